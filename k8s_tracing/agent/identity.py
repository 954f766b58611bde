# SPDX-License-Identifier: Apache-2.0
"""Which pod and container a process is in, as the node knows it: namespaces -> /proc -> cgroup.

What a process says of itself anybody can say. LTTng's contexts, which are recorded with it, are the kernel's: the inode
number of its PID namespace, and its process id there. /proc has the process with these, and the cgroup that the
container runtime put it into. An agent without privileges does not see the namespaces of other users' processes, and
takes those whose key (procfs.py) the process says is its own: docs/explanation/identity.md.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from k8s_tracing import kubernetes
from k8s_tracing.agent.relay import Process
from k8s_tracing.procfs import KEY, process_key, start_ticks

log = logging.getLogger(__name__)

POD_UID = "k8s.pod.uid"
CONTAINER_ID = "container.id"

#: An inode number is given to another namespace when its last process is gone; a container that is restarted
#: gets other ones.
_REMEMBERED_S = 60.0
#: A look at all of /proc serves whoever asks within that time, and finds.
_FRESH_S = 0.5
_MANY = 4096


@dataclass(frozen=True, slots=True)
class Container:
    """Where a process runs; None where it is not in a pod, or in no container."""

    pod_uid: str | None
    container_id: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """A process in /proc.

    Attributes:
        pid: Its id where /proc was mounted.
        vpid: Its id in its own namespace.
        pid_ns: The inode number of that; 0 where this user may not see it.
    """

    pid: int
    vpid: int
    pid_ns: int


class Proc:
    """The node's processes.

    Args:
        root: Where the node's proc file system is: /proc, with the node's PID namespace, or /host/proc.
    """

    def __init__(self, root: Path = Path("/proc")) -> None:
        self.root = root
        self._all: list[Found] = []
        self._looked_s = -_FRESH_S
        self._node_ns = 0
        #: The last look saw the namespaces of all processes.
        self.saw_all = False
        #: Processes that were not told from others: two have the key, or it was said in two namespaces.
        self.ambiguous = 0
        # Of processes found by their keys: the namespace in which each was said. It cannot be in two.
        self._said: dict[tuple[int, str], int] = {}
        self._doubted: set[int] = set()

    def find(self, process: Process) -> Found | None:
        """Find a process by its namespace and its id there, which are unique; or by its key."""
        if not process.pid_ns or not process.vpid:
            return None
        direct = self._read(str(process.vpid))  # on the node itself, the two ids are the same
        if direct is not None and _matches(direct, process):
            return direct
        for again in (False, True):
            for found in self.look(again=again):
                if _matches(found, process):
                    return found
            pids = [] if self.saw_all else self._with_its_key(process)
            if pids:
                return self._only(pids, process)
        return None

    def _with_its_key(self, process: Process) -> list[int]:
        """Of the processes whose namespaces are hidden, those that have its id there, and the key that it says."""
        key = _said_key(process)
        if not key or process.pid_ns == self.node_namespace():
            return []
        hidden = (found.pid for found in self._hidden(process))
        return [pid for pid in hidden if process_key(self.root / str(pid)) == key]

    def _hidden(self, process: Process) -> list[Found]:
        return [found for found in self._all if not found.pid_ns and found.vpid == process.vpid]

    def _only(self, pids: list[int], process: Process) -> Found | None:
        """The one that it is; None, counted, if there is a doubt."""
        if len(self._said) > _MANY:
            there = {found.pid for found in self._all}
            self._said = {each: ns for each, ns in self._said.items() if each[0] in there}
        said_in = self._said.setdefault((pids[0], _said_key(process)), process.pid_ns)
        if len(pids) == 1 and said_in == process.pid_ns:
            return Found(pids[0], process.vpid, process.pid_ns)
        if process.instance_id not in self._doubted:
            if len(self._doubted) > _MANY:
                self._doubted.clear()
            self._doubted.add(process.instance_id)
            self.ambiguous += 1
            log.warning(
                "a process (%d in PID namespace %d) cannot be told from others by what this user may see of them: what "
                "it says of its container is taken",
                process.vpid,
                process.pid_ns,
            )
        return None

    def look(self, *, again: bool) -> list[Found]:
        """All processes, as they were a moment ago, or are now."""
        now_s = time.monotonic()
        if again or now_s - self._looked_s >= _FRESH_S:
            self.saw_all = True
            self._all = list(self._scan())
            self._looked_s = now_s
        return self._all

    def cgroup(self, pid: int) -> list[str]:
        """The lines of a process's cgroup file; none when it is gone."""
        try:
            return (self.root / str(pid) / "cgroup").read_text(errors="replace").splitlines()
        except OSError:
            return []

    def node_namespace(self) -> int:
        """The PID namespace whose numbers /proc has; 0: not known.

        Containers that ask for the node's are in it as well.
        """
        if not self._node_ns:
            self._node_ns = self._find_node_namespace()
        return self._node_ns

    def _find_node_namespace(self) -> int:
        try:
            own = str((self.root / "self").readlink())
        except OSError:
            own = ""
        for name in filter(None, ("1", own)):
            try:
                if len(self._ids(name)) == 1:
                    return self._namespace(name)
            except (OSError, ValueError):
                continue
        return 0

    def is_gone(self, process: Process) -> bool:
        """Is it certain that there is no such process? To be asked when `find` has not found it."""
        if not process.pid_ns or not process.vpid:
            return False
        if process.pid_ns == self.node_namespace():
            return not (self.root / str(process.vpid)).exists()
        if self.saw_all:
            return True
        started = _said_key(process).rpartition("-")[2]
        # Its root may be another one since it said so, its start may not.
        return (
            bool(started)
            and self._sees_others()
            and not any(
                start_ticks(self.root / str(found.pid)) == started
                for found in self._hidden(process)
            )
        )

    def _sees_others(self) -> bool:
        """Does /proc show other users' processes at all? Mounted with `hidepid` it does not."""
        return (self.root / "1/stat").exists()

    def _scan(self) -> Iterator[Found]:
        try:
            names = [entry.name for entry in os.scandir(self.root) if entry.name.isdigit()]
        except OSError:
            self.saw_all = False
            return
        for name in names:
            found = self._read(name)
            if found is not None:
                yield found

    def _read(self, name: str) -> Found | None:
        try:
            ids = self._ids(name)
            try:
                pid_ns = self._namespace(name)
            except PermissionError:
                # One number: it is in no other namespace than that of /proc itself.
                pid_ns = self.node_namespace() if len(ids) == 1 else 0
                self.saw_all = self.saw_all and pid_ns != 0
            return Found(int(name), ids[-1], pid_ns)
        except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
            return None
        except OSError:
            self.saw_all = False
            return None
        except (ValueError, IndexError):
            return None

    def _ids(self, name: str) -> list[int]:
        """The process's id in each PID namespace that it is in, from that of /proc inwards."""
        status = (self.root / name / "status").read_text(errors="replace")
        ids = next((line for line in status.splitlines() if line.startswith("NSpid:")), "")
        return [int(each) for each in ids.split()[1:]]

    def _namespace(self, name: str) -> int:
        return int(str((self.root / name / "ns/pid").readlink()).partition("[")[2].rstrip("]"))


class Identities:
    """Says what the resource of each process is.

    Attributes:
        resolved: Processes whose container was found.
        replaced: Those whose own word on it was another one.
    """

    def __init__(self, proc: Proc) -> None:
        self.resolved = 0
        self.replaced = 0
        self._proc = proc
        # For processes that are gone before anybody looks: who else was in the namespaces, and when.
        self._seen: dict[tuple[int, int], tuple[Container, float]] = {}
        self._warned: set[int] = set()

    def resource(self, process: Process) -> bytes | None:
        """Return the resource to hand out: OTLP Resource fields; None if it is what the process says.

        Its pod's uid and its container's id are the node's word. All other attributes of Kubernetes (names of the pod,
        the namespace, the node) are the process's, and dropped if it names another pod than the node does.
        """
        container = self.container(process)
        if container is None:
            return None
        self.resolved += 1
        true = {POD_UID: container.pod_uid}
        if container.container_id:
            true[CONTAINER_ID] = container.container_id
        attributes = Resource.FromString(process.resource).attributes
        claims = [(each.key, each.value.string_value) for each in attributes if each.key in true]
        if sorted(claims) == sorted((key, value) for key, value in true.items() if value):
            return None
        wrong = {key for key, value in claims if value != true[key]}
        if wrong:
            self._contradicted(process, [claim for claim in claims if claim[0] in wrong], true)
        # The names of a pod that it is not in are no better than its uid.
        another_pod = POD_UID in wrong
        answer = Resource()
        answer.attributes.extend(
            each
            for each in attributes
            if each.key not in true and not (another_pod and each.key.startswith("k8s."))
        )
        for key, value in true.items():
            if value:
                answer.attributes.add(key=key).value.string_value = value
        return answer.SerializeToString()

    def _contradicted(
        self, process: Process, claims: list[tuple[str, str]], true: Mapping[str, str | None]
    ) -> None:
        """Count it, and log it once for a process, which could claim another thing every time."""
        self.replaced += 1
        if process.instance_id in self._warned:
            return
        if len(self._warned) > _MANY:
            self._warned.clear()
        self._warned.add(process.instance_id)
        log.warning(
            "a process (%d in PID namespace %d) says that it has %s; the node knows %s, and that is taken",
            process.vpid,
            process.pid_ns,
            ", ".join(f"{key} {value!r}" for key, value in claims),
            ", ".join(f"{key} {value or 'none'}" for key, value in true.items()),
        )

    def container(self, process: Process) -> Container | None:
        """Where a process runs, or ran a moment ago; None if that is no container, or not known."""
        found = self._proc.find(process)
        if found is not None:
            return self._remember(process, found)
        if not process.pid_ns or process.pid_ns == self._proc.node_namespace():
            return None
        container, seen_s = self._seen.get((process.pid_ns, process.cgroup_ns), (None, 0.0))
        if container is None or time.monotonic() - seen_s > _REMEMBERED_S:
            return None
        return container

    def _remember(self, process: Process, found: Found) -> Container | None:
        container = self._read(found)
        if container is not None and found.pid_ns != self._proc.node_namespace():
            key = (process.pid_ns, process.cgroup_ns)
            now_s = time.monotonic()
            before, seen_s = self._seen.get(key, (container, now_s))
            known = container
            if before != container and now_s - seen_s <= _REMEMBERED_S:
                # a pod whose containers share their namespaces: of one that is gone, the pod is known
                known = Container(container.pod_uid, None)
            self._seen[key] = known, now_s
            self._forget(now_s)
        return container

    def _read(self, found: Found) -> Container | None:
        lines = self._proc.cgroup(found.pid)
        container = Container(
            kubernetes.pod_in_cgroup(lines), kubernetes.container_in_cgroup(lines)
        )
        return container if container.pod_uid or container.container_id else None

    def _forget(self, now_s: float) -> None:
        if len(self._seen) > _MANY:
            for key, (_, seen_s) in list(self._seen.items()):
                if now_s - seen_s > _REMEMBERED_S:
                    del self._seen[key]


def service_name(process: Process) -> str:
    """The name of a process's service, as it gives it; empty without."""
    attributes = Resource.FromString(process.resource).attributes
    names = [each.value.string_value for each in attributes if each.key == "service.name"]
    return names[0] if names else ""


def _said_key(process: Process) -> str:
    """What it says its key is; empty without."""
    attributes = Resource.FromString(process.resource).attributes
    return next((each.value.string_value for each in attributes if each.key == KEY), "")


def _matches(found: Found, process: Process) -> bool:
    return (found.pid_ns, found.vpid) == (process.pid_ns, process.vpid)
