"""When a process has ended, and all that it recorded has been read: real processes, in the real /proc."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8s_tracing.agent import lifetime
from k8s_tracing.agent.lifetime import Lifetimes
from k8s_tracing.agent.processes import Proc
from k8s_tracing.agent.relay import Process
from tests.support.wait import wait_for


def described(pid: int) -> Process:
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    return Process(pid << 32, pid, namespace, 1, b"")


@pytest.fixture(params=["pidfd", "start time"])
def lifetimes(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lifetimes]:
    if request.param == "start time":
        monkeypatch.setattr(lifetime, "_PIDFDS_MAX", 0)
    watching = Lifetimes(Proc(), every_s=0.0)
    yield watching
    watching.close()


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def none() -> int:
    return 0


def test_one_that_lives_has_not_ended(
    lifetimes: Lifetimes, child: "subprocess.Popen[bytes]"
) -> None:
    lifetimes.watch(described(child.pid))
    for read in range(100):
        assert list(lifetimes.ended(read, none)) == []


def test_its_end_is_certain_when_the_chunks_that_were_there_and_one_more_are_read(
    lifetimes: Lifetimes, child: "subprocess.Popen[bytes]"
) -> None:
    process = described(child.pid)
    lifetimes.watch(process)
    assert list(lifetimes.ended(10, none)) == []
    child.kill()
    child.wait()
    unread = iter([5])
    for read in range(10, 16):
        assert list(lifetimes.ended(read, lambda: next(unread))) == []
    assert list(lifetimes.ended(16, none)) == [process.instance_id]
    assert list(lifetimes.ended(17, none)) == []


def test_a_zombie_has_ended(lifetimes: Lifetimes, child: "subprocess.Popen[bytes]") -> None:
    """Its parent has not asked for it; it cannot record any more."""
    lifetimes.watch(described(child.pid))
    child.kill()
    stat = Path(f"/proc/{child.pid}/stat")
    wait_for("a zombie", lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z", 30)
    list(lifetimes.ended(0, none))
    assert list(lifetimes.ended(1, none)) == [child.pid << 32]


def test_one_that_was_gone_before_it_was_watched(
    lifetimes: Lifetimes, child: "subprocess.Popen[bytes]"
) -> None:
    child.kill()
    child.wait()
    lifetimes.watch(described(child.pid))
    assert list(lifetimes.ended(3, none)) == []
    assert list(lifetimes.ended(4, none)) == [child.pid << 32]


def test_one_of_which_nothing_is_known_is_not_said_to_be_gone(lifetimes: Lifetimes) -> None:
    lifetimes.watch(Process(1, 0, 0, 0, b""))
    for read in range(3):
        assert list(lifetimes.ended(read, none)) == []
