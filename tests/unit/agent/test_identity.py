"""Which container a process is in: a node's /proc as tests/golden/proc has it, with processes in namespaces."""

import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from k8s_tracing.agent.identity import Container, Identities
from k8s_tracing.agent.processes import Proc
from k8s_tracing.agent.relay import Process, Relay
from k8s_tracing.procfs import KEY
from tests.support.ctf import Event, Style, write_trace
from tests.support.spans import announced, decode, end, start

GOLDEN = Path(__file__).parents[2] / "golden" / "proc"
NODE_NS, POD_NS = 4026531836, 4026532001
UID = "5f8e3c1a-0d2b-4c6d-9e7f-a1b2c3d4e5f6"
OTHER_UID = "00000000-1111-2222-3333-444444444444"
ID = "0123456789abcdef" * 4
POD = f"0::/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/cri-containerd-{ID}.scope\n"


class Node:
    """A /proc of processes that the test says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hidden: set[Path] = set()
        self.add(1, 1, NODE_NS, "0::/init.scope\n")

    def add(self, pid: int, vpid: int, pid_ns: int, cgroup: str = POD) -> None:
        folder = self.root / str(pid)
        (folder / "ns").mkdir(parents=True)
        (folder / "ns/pid").symlink_to(f"pid:[{pid_ns}]")
        ids = str(pid) if pid == vpid else f"{pid}\t{vpid}"
        (folder / "status").write_text(f"Name:\tpython\nNSpid:\t{ids}\nThreads:\t3\n")
        (folder / "cgroup").write_text(cgroup)

    def hide(self, pid: int, mount: int = 40, started: int = 1000) -> str:
        """Show of a process what another user sees who has no privilege; return its key."""
        folder = self.root / str(pid)
        (folder / "stat").write_text(f"{pid} (a) b) S {'0 ' * 18}{started} 0 0\n")
        (folder / "mountinfo").write_text(
            f"{mount - 1} 30 0:5 / /proc rw - proc proc rw\n{mount} 30 0:50 / / ro - overlay overlay rw\n"
        )
        self.hidden.add(folder / "ns/pid")
        return f"{mount}-{started}"

    def remove(self, pid: int) -> None:
        shutil.rmtree(self.root / str(pid))


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    node = Node(tmp_path / "proc")
    readlink = Path.readlink

    def may_read(path: Path) -> Path:
        if path in node.hidden:  # permissions do not hold for root, as whom this may run
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return readlink(path)

    monkeypatch.setattr(Path, "readlink", may_read)
    return node


@pytest.fixture
def unprivileged(node: Node) -> Node:
    """A node of which an agent without CAP_SYS_PTRACE sees its own namespace, and no other."""
    node.hide(1, 20, 1)
    node.add(60, 60, NODE_NS, "0::/system.slice/agent.service\n")
    (node.root / "self").symlink_to("60")
    return node


def process(vpid: int, pid_ns: int = POD_NS, cgroup_ns: int = 1, **claims: str) -> Process:
    resource = Resource()
    for key, value in {"service.name": "shop", **claims}.items():
        resource.attributes.add(key=key).value.string_value = value
    return Process(vpid << 32, vpid, pid_ns, cgroup_ns, resource.SerializeToString())


def exported(node: Node, asked: Process) -> dict[str, str]:
    answer = Identities(Proc(node.root)).resource(asked)
    fields = asked.resource if answer is None else answer
    attributes = Resource.FromString(fields).attributes
    assert len({each.key for each in attributes}) == len(attributes)
    return {each.key: each.value.string_value for each in attributes}


class TestContainer:
    """From the namespaces to the cgroup."""

    @pytest.mark.parametrize("case", sorted(path.name for path in GOLDEN.iterdir()))
    def test_cgroups_of_every_runtime(self, node: Node, case: str) -> None:
        """Where a process's own mounts told it, because its cgroup said nothing, the node sees nothing either."""
        cgroup = (GOLDEN / case / "cgroup").read_text()
        expected = json.loads((GOLDEN / case / "expect.json").read_text())
        node.add(77, 7, POD_NS, cgroup)
        found = Identities(Proc(node.root)).container(process(7))
        if cgroup.strip() == "0::/" or not (expected["pod"] or expected["container"]):
            assert found is None
        else:
            assert found == Container(expected["pod"], expected["container"])

    def test_seen_from_a_container_beside_it(self, node: Node) -> None:
        node.add(77, 7, POD_NS, f"0::/../../../burstable/pod{UID}/{ID}\n")
        assert Identities(Proc(node.root)).container(process(7)) == Container(UID, ID)

    def test_the_process_not_another_of_its_number(self, node: Node) -> None:
        node.add(76, 7, POD_NS + 1, POD.replace(ID, "f" * 64))
        node.add(77, 7, POD_NS)
        node.add(7, 7, NODE_NS, "0::/user.slice\n")
        assert Identities(Proc(node.root)).container(process(7)) == Container(UID, ID)

    def test_in_the_nodes_own_namespace(self, node: Node) -> None:
        """Such as a pod with hostPID, or a service of the node."""
        node.add(50, 50, NODE_NS)
        node.add(51, 51, NODE_NS, "0::/system.slice/cron.service\n")
        identities = Identities(Proc(node.root))
        assert identities.container(process(50, NODE_NS)) == Container(UID, ID)
        assert identities.container(process(51, NODE_NS)) is None
        assert identities.container(process(52, NODE_NS)) is None  # gone, and no other tells

    def test_nothing_is_known_without_contexts(self, node: Node) -> None:
        node.add(77, 7, POD_NS)
        assert Identities(Proc(node.root)).container(process(0, 0, 0)) is None

    def test_one_that_is_gone_was_where_the_others_of_its_namespaces_are(self, node: Node) -> None:
        node.add(77, 7, POD_NS)
        identities = Identities(Proc(node.root))
        assert identities.container(process(7)) == Container(UID, ID)
        node.remove(77)
        assert identities.container(process(8)) == Container(UID, ID)
        assert identities.container(process(8, cgroup_ns=2)) is None
        assert identities.container(process(8, POD_NS + 1)) is None

    def test_containers_that_share_their_namespaces(self, node: Node) -> None:
        """Of one that is gone the pod is known, and its container is not."""
        node.add(77, 7, POD_NS)
        node.add(78, 8, POD_NS, POD.replace(ID, "f" * 64))
        identities = Identities(Proc(node.root))
        assert identities.container(process(7)) == Container(UID, ID)
        assert identities.container(process(8)) == Container(UID, "f" * 64)
        assert identities.container(process(9)) == Container(UID, None)

    def test_not_for_ever(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        """The inode number of a namespace is given to another one."""
        node.add(77, 7, POD_NS)
        identities = Identities(Proc(node.root))
        identities.container(process(7))
        node.remove(77)
        monkeypatch.setattr("k8s_tracing.agent.identity._REMEMBERED_S", -1.0)
        assert identities.container(process(8)) is None

    def test_broken_files(self, node: Node) -> None:
        node.add(77, 7, POD_NS)
        for name, content in (("cgroup", "\0\xff"), ("status", "NSpid:\n"), ("status", "")):
            (node.root / "77" / name).write_text(content)
            assert Identities(Proc(node.root)).container(process(7)) is None
        assert Identities(Proc(node.root / "none")).container(process(7)) is None


class TestWithoutPrivileges:
    """Another user's namespaces are hidden; what /proc shows to all, and the process says, tells which it is."""

    OTHER = POD.replace(ID, "f" * 64)

    def test_two_first_processes_are_told_apart_by_their_roots(self, unprivileged: Node) -> None:
        unprivileged.add(76, 1, POD_NS)
        unprivileged.add(77, 1, POD_NS + 1, self.OTHER)
        first, second = unprivileged.hide(76, 40), unprivileged.hide(77, 41)
        proc = Proc(unprivileged.root)
        identities = Identities(proc)
        assert identities.container(process(1, POD_NS, **{KEY: first})) == Container(UID, ID)
        assert identities.container(process(1, POD_NS + 1, **{KEY: second})) == Container(
            UID, "f" * 64
        )
        assert proc.ambiguous == 0

    def test_a_false_claim_is_corrected(self, unprivileged: Node) -> None:
        unprivileged.add(77, 1, POD_NS)
        key = unprivileged.hide(77)
        found = exported(unprivileged, process(1, **{KEY: key, "container.id": "f" * 64}))
        assert (found["k8s.pod.uid"], found["container.id"]) == (UID, ID)

    @pytest.mark.parametrize("said", [{}, {KEY: ""}, {KEY: "x"}, {KEY: "40-999"}, {KEY: "41-1000"}])
    def test_the_only_one_of_its_number_is_not_taken_for_it(
        self, unprivileged: Node, said: dict[str, str]
    ) -> None:
        """Its own may be gone, and this another container's that came since."""
        unprivileged.add(77, 1, POD_NS)
        unprivileged.hide(77)
        assert Identities(Proc(unprivileged.root)).container(process(1, **said)) is None

    def test_neither_of_two_that_are_alike(self, unprivileged: Node) -> None:
        """Two namespaces on one root, begun within a hundredth of a second."""
        for pid, namespace in ((76, POD_NS), (77, POD_NS + 1)):
            unprivileged.add(pid, 1, namespace)
            key = unprivileged.hide(pid)
        proc = Proc(unprivileged.root)
        for _ in range(2):
            assert proc.find(process(1, **{KEY: key})) is None
        assert proc.ambiguous == 1

    def test_a_key_that_was_said_in_another_namespace(self, unprivileged: Node) -> None:
        """One of them lies."""
        unprivileged.add(77, 1, POD_NS)
        key = unprivileged.hide(77)
        proc = Proc(unprivileged.root)
        found = proc.find(process(1, **{KEY: key}))
        assert found is not None
        assert proc.find(process(1, POD_NS + 1, **{KEY: key})) is None
        assert proc.ambiguous == 1
        assert proc.find(process(1, **{KEY: key})) == found

    def test_in_the_nodes_own_namespace_the_number_is_enough(self, unprivileged: Node) -> None:
        unprivileged.add(50, 50, NODE_NS)
        unprivileged.hide(50)
        found = Identities(Proc(unprivileged.root)).container(process(50, NODE_NS))
        assert found == Container(UID, ID)

    def test_what_is_readable_needs_no_key(self, unprivileged: Node) -> None:
        unprivileged.add(70, 7, POD_NS + 1)
        unprivileged.hide(70)
        unprivileged.add(77, 7, POD_NS)
        assert Identities(Proc(unprivileged.root)).container(process(7)) == Container(UID, ID)

    def test_whether_it_is_gone(self, unprivileged: Node) -> None:
        unprivileged.add(77, 1, POD_NS)
        key = unprivileged.hide(77, 40, 1000)
        proc = Proc(unprivileged.root)

        def is_gone(said: str) -> bool:
            asked = process(1, **{KEY: said})
            return proc.find(asked) is None and proc.is_gone(asked)

        assert not is_gone(key)
        assert is_gone("40-999")
        assert not is_gone("39-1000")  # it may have got another root since
        assert not is_gone("")
        unprivileged.remove(1)  # as where /proc hides other users' processes
        assert not is_gone("40-999")


class TestResource:
    """What is handed out."""

    def test_the_nodes_word_is_added(self, node: Node) -> None:
        node.add(77, 7, POD_NS)
        assert exported(node, process(7)) == {
            "service.name": "shop",
            "k8s.pod.uid": UID,
            "container.id": ID,
        }

    def test_names_stay_with_a_pod_that_is_the_right_one(self, node: Node) -> None:
        node.add(77, 7, POD_NS)
        names = {"k8s.pod.name": "shop-1", "k8s.namespace.name": "default"}
        for claim in ({}, {"k8s.pod.uid": UID}):
            found = exported(node, process(7, **names, **claim))
            assert names.items() <= found.items()
            assert found["k8s.pod.uid"] == UID

    def test_a_claim_of_another_pod_is_replaced_and_its_names_go(
        self, node: Node, caplog: pytest.LogCaptureFixture
    ) -> None:
        node.add(77, 7, POD_NS)
        claims = {
            "k8s.pod.uid": OTHER_UID,
            "k8s.pod.name": "bank-1",
            "k8s.namespace.name": "bank",
            "container.id": "f" * 64,
            "host.name": "node",
        }
        asked = process(7, **claims)
        assert exported(node, asked) == {
            "service.name": "shop",
            "host.name": "node",
            "k8s.pod.uid": UID,
            "container.id": ID,
        }
        identities = Identities(Proc(node.root))
        caplog.clear()
        for _ in range(3):
            identities.resource(asked)
        assert identities.replaced == 3
        (record,) = caplog.records
        assert OTHER_UID in record.getMessage()
        assert UID in record.getMessage()

    def test_a_pod_claimed_in_a_container_that_is_in_none(self, node: Node) -> None:
        node.add(77, 7, POD_NS, f"0::/system.slice/docker-{ID}.scope\n")
        claims = {"k8s.pod.uid": UID, "k8s.pod.name": "shop-1"}
        assert exported(node, process(7, **claims)) == {"service.name": "shop", "container.id": ID}

    def test_a_right_claim_beside_a_wrong_one(self, node: Node) -> None:
        node.add(77, 7, POD_NS)
        resource = Resource.FromString(process(7, **{"k8s.pod.uid": OTHER_UID}).resource)
        for key, value in (("k8s.pod.uid", UID), ("container.id", ID)):
            resource.attributes.add(key=key).value.string_value = value
        asked = dataclasses.replace(process(7), resource=resource.SerializeToString())
        assert exported(node, asked)["k8s.pod.uid"] == UID

    def test_outside_of_containers_all_stays(self, node: Node) -> None:
        node.add(77, 77, NODE_NS, "0::/user.slice\n")
        asked = process(77, NODE_NS, **{"k8s.pod.uid": UID})
        assert Identities(Proc(node.root)).resource(asked) is None


class TestRelay:
    """The relay asks before it hands out a span."""

    def test_spans_have_the_resource_that_it_is_told(self, tmp_path: Path) -> None:
        asked: list[Process] = []

        def identify(process: Process) -> bytes | None:
            asked.append(process)
            resource = Resource.FromString(process.resource)
            resource.attributes.add(key="asked").value.int_value = len(asked)
            return None if b"same" in process.resource else resource.SerializeToString()

        events = [*announced(), start(1), end(1), *announced(10), start(2, 11), end(2, 10**6 + 1)]
        others = [*announced(0, "same", 99), start(3, instance_id=99), end(3)]
        again = [*announced(10**9, "renamed"), start(4, 10**9), end(4, 10**9 + 1)]
        write_trace(tmp_path / "1" / "a", [events])
        write_trace(tmp_path / "1" / "b", [others])
        write_trace(tmp_path / "2" / "a", [again])
        with Relay(identify=identify, request_bytes=1) as relay:
            spans = decode(relay.read(tmp_path / "1"))
            state = relay.save()
        with Relay(identify=identify) as relay:
            relay.restore(state)
            spans += decode(relay.read(tmp_path / "2"))
            spans += decode(relay.finish())
        assert len(asked) == 3  # not again for what was said before
        # those that were held back have the newest
        assert {(s.service_name, s.resource.get("asked")) for s in spans} == {
            ("renamed", 3),
            ("same", None),
        }
        assert len(spans) == 4

    def test_the_first_to_announce_an_id_keeps_it(self, tmp_path: Path) -> None:
        """It cannot be told by the announcement who is right; but the namespaces are the kernel's word."""

        def recorded_by(vpid: int, service: str, at: int) -> list[Event]:
            context = {"vpid": vpid, "vtid": vpid, "pid_ns": POD_NS, "cgroup_ns": 5}
            return [dataclasses.replace(each, context=context) for each in announced(at, service)]

        events = [
            *recorded_by(7, "shop", 0),
            *recorded_by(8, "impostor", 1),
            *recorded_by(7, "shop", 2),
        ]
        none = dict.fromkeys(CONTEXT, 0)
        spans = [dataclasses.replace(each, context=none) for each in (start(1, 3), end(1, 4))]
        write_trace(tmp_path, [[*events, *spans]], style=Style(context=CONTEXT))
        with Relay() as relay:
            named = [span.service_name for span in decode([*relay.read(tmp_path), *relay.finish()])]
            (known,) = relay.processes()
            assert relay.stats.contradicting_processes == 1
        assert named == ["shop"]
        assert (known.vpid, known.pid_ns, known.cgroup_ns) == (7, POD_NS, 5)


CONTEXT = {"vpid": "i32", "vtid": "i32", "pid_ns": "u32", "cgroup_ns": "u32"}
