"""What is lost, and what is not, when an application, a daemon or a session dies."""

import itertools
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from k8s_tracing.agent.buffers import Buffers
from k8s_tracing.agent.daemon import PrivateDaemon
from k8s_tracing.agent.daemon_process import consumer_daemons, is_running
from k8s_tracing.agent.leftovers import shared_folder
from k8s_tracing.agent.relay import Relay
from k8s_tracing.agent.session import list_sessions
from k8s_tracing.agent.spool import Spool
from k8s_tracing.agent.supervisor import Supervisor
from k8s_tracing.otlp import parse_request
from k8s_tracing.record import SpanRecord
from tests.integration import producer
from tests.integration.producer import no_producer_left  # noqa: F401
from tests.support.lttng import require
from tests.support.wait import wait_for

pytestmark = pytest.mark.alone

PATIENCE_S = 60.0

# As short as rotations can be: what lies in the buffers is what differs between the tests.
ROTATION_S = 0.5
LONG_ROTATION_S = 600.0

CPU_0 = ("taskset", "--cpu-list", "0")


class Node:
    """A supervised session with a daemon of its own, and what it recorded."""

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        *,
        rotation_s: float = ROTATION_S,
        stall_s: float | None = None,
        buffers: Buffers | None = None,
    ) -> None:
        self.spool = stack.enter_context(Spool(folder / "spool"))
        self.daemon = PrivateDaemon(folder / "daemon")
        self.supervisor = stack.enter_context(
            Supervisor(
                "s",
                self.spool,
                self.daemon,
                rotation_s=rotation_s,
                stall_s=stall_s,
                buffers=buffers,
            )
        )
        self.status = self.supervisor.status
        self.env = self.daemon.env

    def spans(self) -> list[SpanRecord]:
        """Stop recording; every span with an end that was recorded."""
        self.supervisor.finish()
        with Relay() as relay:
            requests = [
                request
                for chunk in self.spool.chunks()
                if not chunk.is_empty
                for request in relay.read(chunk.path)
            ]
            requests += relay.finish()
        return [span for request in requests for span in parse_request(request.body)]

    def ids(self) -> Counter[int]:
        """Stop recording; the ids of the spans, and how often each was recorded."""
        return Counter(int(span.span_id, 16) for span in self.spans())

    def wait_for_restart(self) -> None:
        wait_for("the daemon is there again", lambda: self.status.daemon_restarts, PATIENCE_S)
        assert self.status.recording


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the daemon's user can come to."""
    with tempfile.TemporaryDirectory(prefix="k8st-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        (folder / "spool").mkdir()
        shm = shared_folder(folder / "spool")
        yield folder
    assert not shm.exists()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def once(*ids: int) -> Counter[int]:
    return Counter(range(*ids))


def test_a_process_killed_in_a_burst_loses_no_span_that_it_finished(
    folder: Path, stack: ExitStack
) -> None:
    node = Node(stack, folder)
    with producer.start(node.env, 1, 100_000, interval_us=1) as process:
        time.sleep(0.5)
        process.kill()
    seen = node.ids()
    # In order and without a gap, up to the span in which the process was killed.
    assert seen == once(1, len(seen) + 1)
    assert len(seen) > 100


def test_the_session_daemon_is_killed(folder: Path, stack: ExitStack) -> None:
    node = Node(stack, folder, rotation_s=LONG_ROTATION_S)
    with producer.start(node.env, 1, 100_000, interval_us=1000) as process:
        time.sleep(1.0)
        os.kill(node.daemon.pid, signal.SIGKILL)
        node.wait_for_restart()
        after = producer.run(node.env, 1_000_001, 100)
        wait_for(
            "it registers again",
            lambda: f"PID: {process.pid} " in node.daemon.control.run("list", "--userspace"),
            PATIENCE_S,
            0.2,
        )
        time.sleep(0.5)
        process.kill()
    seen = node.ids()
    assert after <= seen.keys()
    assert set(seen.values()) == {1}
    running = sorted(each for each in seen if each < 1_000_000)
    gaps = [(a, b) for a, b in itertools.pairwise(running) if b != a + 1]
    assert running[0] == 1
    assert len(gaps) == 1, gaps
    # All of the second before the kill is there: a consumer daemon that is left alone writes out what it has.
    assert gaps[0][0] > 400


def test_the_consumer_daemon_is_killed(folder: Path, stack: ExitStack) -> None:
    node = Node(stack, folder, rotation_s=LONG_ROTATION_S)
    expected = producer.run(node.env, 1, 5000)
    with producer.start(node.env, 10_001, 100, hold=True) as process:
        assert producer.is_done(process)
        old = node.daemon.pid
        (consumer,) = consumer_daemons(old)
        os.kill(consumer, signal.SIGKILL)
        node.wait_for_restart()
        assert not is_running(old)
    expected |= set(range(10_001, 10_101))
    expected |= producer.run(node.env, 30_001, 100)
    assert node.ids() == Counter(expected)
    assert node.status.daemon_restarts == 1


def test_a_stalled_buffer(folder: Path, stack: ExitStack) -> None:
    node = Node(stack, folder, stall_s=1.5)
    with producer.start(node.env, 1, 50, crash=True, prefix=CPU_0) as process:
        process.communicate()
    assert process.returncode == -signal.SIGSEGV
    first = node.supervisor.status.output
    stalled = node.supervisor._session
    assert stalled is not None
    at = stalled.rotations()
    wait_for("a rotation begins", lambda: stalled.rotations() != at, PATIENCE_S)
    # The sub-buffer with the hole is closed. What comes now lies behind it in the ring, and LTTng cannot get there.
    with producer.start(node.env, 1001, 3000, interval_us=1000, prefix=CPU_0) as process:
        wait_for("the stall is seen", lambda: node.status.stalls, PATIENCE_S)
        wait_for("another session", lambda: node.status.output != first, PATIENCE_S)
        process.communicate()
    seen = node.ids()
    seen.pop(0, None)
    assert seen.keys() == (once(1, 51) + once(1001, 4001)).keys()
    # Both record from the start of the one to the stop of the other.
    twice = sorted(each for each in seen if seen[each] > 1)
    assert max(seen.values()) <= 2
    assert twice == list(range(twice[0], twice[0] + len(twice))) if twice else True
    assert len(twice) < 1000
    assert (node.status.stalls, node.status.daemon_restarts) == (1, 0)


def test_somebody_stops_and_destroys_the_session(folder: Path, stack: ExitStack) -> None:
    node = Node(stack, folder, stall_s=1.5)
    expected = producer.run(node.env, 1, 10)
    node.daemon.control.run("stop", "s")
    wait_for("it is started again", lambda: node.status.resumed == 1, PATIENCE_S)
    expected |= producer.run(node.env, 101, 10)
    node.daemon.control.run("destroy", "s")
    wait_for("there is another", lambda: node.status.resumed == 2, PATIENCE_S)
    wait_for("it records", lambda: node.status.session == "s", PATIENCE_S)
    expected |= producer.run(node.env, 201, 10)
    assert node.ids() == Counter(expected)
    assert node.status.stalls == 0


def test_200_short_lived_processes(folder: Path, stack: ExitStack) -> None:
    node = Node(stack, folder)

    def run(number: int) -> None:
        producer.run(node.env | {"PRODUCER_SERVICE": f"service-{number}"}, 10 * number, 5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(1, 201)))
    spans = node.spans()
    assert len(spans) == 1000
    expected = {
        10 * number + span: f"service-{number}" for number in range(1, 201) for span in range(5)
    }
    assert {int(span.span_id, 16): span.service_name for span in spans} == expected


# A namespace needs root, or a user namespace in which one is root.
UNSHARE = ("unshare", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")))


def test_processes_in_pid_namespaces_of_their_own(folder: Path, stack: ExitStack) -> None:
    node = Node(stack, folder)
    pods = [
        producer.start(
            node.env | {"PRODUCER_SERVICE": f"pod-{number}"},
            1000 * number,
            100,
            prefix=(*UNSHARE, "--pid", "--fork", "--mount-proc"),
        )
        for number in (1, 2)
    ]
    for pod in pods:
        assert pod.communicate(timeout=PATIENCE_S)[0] == "done\n"
    names = {int(span.span_id, 16): span.service_name for span in node.spans()}
    expected = {1000 * number + each: f"pod-{number}" for number in (1, 2) for each in range(100)}
    assert names == expected


def test_a_process_with_shared_memory_of_its_own(folder: Path, stack: ExitStack) -> None:
    node = Node(stack, folder)
    script = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
    prefix = (*UNSHARE, "--mount", "sh", "-c", script, "sh")
    with producer.start(node.env, 1, 100, prefix=prefix) as process:
        assert process.communicate(timeout=PATIENCE_S)[0] == "done\n"
    assert node.ids() == once(1, 101)


def test_buffers_for_each_process(folder: Path, stack: ExitStack) -> None:
    node = Node(stack, folder, buffers=Buffers("pid", 128 * 1024, 4))
    expected = producer.run(node.env, 1, 1000)
    with producer.start(node.env, 10_001, 100, hold=True) as process:
        assert producer.is_done(process)
        process.kill()
    node.supervisor.finish()
    assert any("ust/pid/producer-" in str(path) for path in node.spool.root.rglob("spans_*"))
    assert node.ids() == Counter(expected) + once(10_001, 10_101)


def test_buffers_for_each_process_outlive_their_daemon(folder: Path, stack: ExitStack) -> None:
    buffers = Buffers("pid", 128 * 1024, 4)
    node = Node(stack, folder, buffers=buffers, rotation_s=LONG_ROTATION_S)
    with producer.start(node.env, 1, 1000, hold=True) as process:
        assert producer.is_done(process)
        (consumer,) = consumer_daemons(node.daemon.pid)
        os.kill(consumer, signal.SIGKILL)
        node.wait_for_restart()
    assert node.ids() == once(1, 1001)


@pytest.fixture
def clock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file: how many seconds the clock of what is started from now on is off."""
    library, shift = folder / "clock_shift.so", folder / "shift"
    source = Path(__file__).with_name("clock_shift.c")
    subprocess.run(
        [require("cc"), "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True
    )
    shift.write_text("0")
    shift.chmod(0o644)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("CLOCK_SHIFT_FILE", str(shift))
    return shift


def test_the_clock_is_set_while_recording(folder: Path, stack: ExitStack, clock: Path) -> None:
    node = Node(stack, folder)
    with producer.start(node.env, 1, 4000, interval_us=1000) as process:
        for shift_s in (-3600, 7200, 0):
            time.sleep(1.2)
            clock.write_text(str(shift_s))
        process.communicate(timeout=PATIENCE_S)
    node.supervisor.finish()
    names = [chunk.path.name for chunk in node.spool.chunks()]
    assert names != sorted(names), "no chunk's name shows the clock that was set"
    numbers = [int(name.rpartition("-")[2]) for name in names]
    assert numbers == sorted(numbers)
    spans = node.spans()
    assert Counter(int(span.span_id, 16) for span in spans) == once(1, 4001)
    # The clock of the events is taken once: times go on as if nobody had set it.
    starts = [span.start_time_ns for span in sorted(spans, key=lambda span: int(span.span_id, 16))]
    assert starts == sorted(starts)
    assert starts[-1] - starts[0] < 3600e9


def test_what_is_left_of_a_crash_is_cleared_up_and_nothing_else(
    folder: Path, stack: ExitStack
) -> None:
    """An agent and its daemon are killed together; beside them is a session of somebody else."""
    other = stack.enter_context(PrivateDaemon(folder / "other"))
    theirs = folder / "theirs"
    theirs.mkdir()
    other.grant(theirs)
    other.control.run("create", "s", f"--output={theirs}")
    with ExitStack() as inner:
        node = Node(inner, folder, rotation_s=LONG_ROTATION_S)
        expected = producer.run(node.env, 1, 1000)
        # What a SIGKILL of the agent does, but for the daemon's SIGTERM: all are gone at once.
        node.supervisor._look = lambda: None  # type: ignore[method-assign]
        os.killpg(node.daemon.pid, signal.SIGKILL)
        node.daemon._process.wait()  # type: ignore[union-attr]
        shm = shared_folder(node.spool.root)
        assert list(shm.iterdir())
        node.supervisor._clear_up = lambda: None  # type: ignore[method-assign]
    with ExitStack() as inner:
        node = Node(inner, folder)
        expected |= producer.run(node.env, 10_001, 10)
        assert node.ids() == Counter(expected)
    assert not shm.exists()
    assert [session.name for session in list_sessions(other.control)] == ["s"]
