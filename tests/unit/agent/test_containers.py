"""Which cgroup's figures /metrics has, on a node that the test makes up."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from k8s_tracing.agent import containers
from k8s_tracing.agent.containers import Containers
from k8s_tracing.agent.identity import Identities
from k8s_tracing.agent.processes import Proc
from k8s_tracing.agent.relay import Process

NODE_NS, POD_NS = 4026531836, 4026532001
UID = "5f8e3c1a-0d2b-4c6d-9e7f-a1b2c3d4e5f6"
GOLDEN = Path(__file__).parents[2] / "golden/cgroup"


class Node:
    """Processes 100, 101, ... each in a container of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mountinfo = root / "mountinfo"
        self.mountinfo.write_text(f"1 1 0:1 / {root}/cgroup rw - cgroup2 cgroup2 rw\n")
        self.add_process(1, 1, NODE_NS, "0::/\n")
        proc = Proc(root / "proc")
        self.containers = Containers(proc, Identities(proc), self.mountinfo)

    def add_process(self, pid: int, vpid: int, pid_ns: int, cgroup: str) -> None:
        folder = self.root / "proc" / str(pid)
        (folder / "ns").mkdir(parents=True)
        (folder / "ns/pid").symlink_to(f"pid:[{pid_ns}]")
        (folder / "status").write_text(f"NSpid:\t{pid}\t{vpid}\n")
        (folder / "cgroup").write_text(cgroup)

    def add(self, number: int) -> Process:
        self.add_process(100 + number, 7, POD_NS + number, f"0::{self.path(number)}\n")
        folder = self.folder(number)
        folder.mkdir(parents=True)
        (folder / "cpu.stat").write_text((GOLDEN / "v2-kubernetes.cpu.stat").read_text())
        resource = Resource()
        resource.attributes.add(key="service.name").value.string_value = "shop"
        return Process(number, 7, POD_NS + number, 1, resource.SerializeToString())

    def path(self, number: int) -> str:
        return f"/kubepods/pod{UID}/{self.container(number)}"

    def folder(self, number: int) -> Path:
        return self.root / f"cgroup{self.path(number)}"

    def container(self, number: int) -> str:
        return f"{number:064x}"

    def samples(self) -> dict[tuple[str, ...], float]:
        return {
            (
                sample.name.removeprefix("k8s_tracing_agent_container_cpu_"),
                *sample.labels.values(),
            ): (sample.value)
            for family in self.containers.collect()
            for sample in family.samples
        }


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_container_has_its_cgroup_s_figures_in_seconds(node: Node) -> None:
    node.containers.watch(node.add(1))
    labels = (node.container(1), UID, "shop")
    assert node.samples() == {
        ("seconds_total", *labels): 58.204981,
        ("periods_total", *labels): 41872,
        ("throttled_periods_total", *labels): 903,
        ("throttled_seconds_total", *labels): 61.402115,
        ("not_watched_total",): 0,
    }


def test_what_a_cgroup_does_not_say_has_no_figure(node: Node) -> None:
    process = node.add(1)
    (node.folder(1) / "cpu.stat").write_text("usage_usec 5\n")
    node.containers.watch(process)
    assert {name for name, *_ in node.samples()} == {"seconds_total", "not_watched_total"}


def test_a_container_that_is_gone_has_none(node: Node) -> None:
    for number in (1, 2):
        node.containers.watch(node.add(number))
    shutil.rmtree(node.folder(1))
    assert {labels[0] for name, *labels in node.samples() if labels} == {node.container(2)}


def test_processes_outside_of_containers_have_none(node: Node) -> None:
    node.add_process(50, 50, NODE_NS, "0::/system.slice/shop.service\n")
    node.containers.watch(Process(50, 50, NODE_NS, 1, b""))
    assert list(node.samples()) == [("not_watched_total",)]


def test_there_is_a_limit_and_it_is_counted(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MAX_CONTAINERS", 2)
    for number in range(3):
        node.containers.watch(node.add(number))
    assert node.samples()["not_watched_total",] == 1
    assert sum(name == "seconds_total" for name, *_ in node.samples()) == 2
    shutil.rmtree(node.folder(0))
    node.containers.watch(node.add(3))
    assert ("seconds_total", node.container(3), UID, "shop") in node.samples()


def test_a_cgroup_that_is_not_seen_is_said_once(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.mountinfo.write_text("")
    with caplog.at_level(logging.WARNING):
        for number in (1, 2):
            node.containers.watch(node.add(number))
    assert caplog.text.count("cannot be read from here") == 1
    assert list(node.samples()) == [("not_watched_total",)]
