"""Processes that fork, die or start before the daemon: what is recorded of them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from k8s_tracing.agent.relay import Relay
from k8s_tracing.otlp import parse_request
from k8s_tracing.record import SpanRecord
from tests.support.lttng import Session, SessionDaemon
from tests.support.wait import wait_for


def spans_of(session: Session) -> list[SpanRecord]:
    session.stop()
    with Relay() as relay:
        requests = [*relay.read(session.output), *relay.finish()]
        stats = relay.stats
    assert (stats.discarded_events, stats.invalid_events, stats.ends_without_start) == (0, 0, 0)
    return [span for request in requests for span in parse_request(request.body)]


def start(program: str, env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, text=True
    )


def run(program: str, env: dict[str, str]) -> str:
    with start(program, env) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out


def test_sigkill_right_after_the_last_span_loses_none(session_daemon: SessionDaemon) -> None:
    session = session_daemon.session("killed")
    program = """
import os, signal, k8s_tracing
k8s_tracing.init("killed", backend="lttng")
for number in range(10_000):
    with k8s_tracing.span("work", {"number": number}):
        pass
os.kill(os.getpid(), signal.SIGKILL)
"""
    processes = [start(program, session_daemon.env) for _ in range(3)]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    spans = spans_of(session)
    numbers = Counter(span.attributes["number"] for span in spans)
    assert numbers == Counter(dict.fromkeys(range(10000), 3))
    assert len({span.resource["service.instance.id"] for span in spans}) == 3


def test_what_was_open_when_its_process_was_killed_is_there_as_unfinished(
    session_daemon: SessionDaemon,
) -> None:
    session = session_daemon.session("open")
    program = """
import os, signal, k8s_tracing
k8s_tracing.init("open", backend="lttng")
with k8s_tracing.span("outer"), k8s_tracing.span("inner"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with start(program, session_daemon.env) as process:
        process.communicate(timeout=60)
    spans = {span.name: span for span in spans_of(session)}
    assert spans["outer"].unfinished
    assert spans["inner"].unfinished
    assert spans["inner"].parent_span_id == spans["outer"].span_id


def test_a_forked_child_is_an_instance_of_its_own(session_daemon: SessionDaemon) -> None:
    session = session_daemon.session("fork")
    program = """
import os, sys, k8s_tracing
k8s_tracing.init("forking", backend="lttng")
with k8s_tracing.span("parent"):
    children = []
    for number in range(4):
        child = os.fork()
        if not child:
            with k8s_tracing.span(f"child {number}", {"pid": os.getpid()}):
                pass
            sys.exit(0)   # leaves the parent's span in the child: that must not end it
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
"""
    run(program, session_daemon.env)
    spans = {span.name: span for span in spans_of(session)}
    assert sorted(spans) == ["child 0", "child 1", "child 2", "child 3", "parent"]
    children = [spans[f"child {number}"] for number in range(4)]
    for child in children:
        assert child.parent_span_id == spans["parent"].span_id
        assert child.resource["process.pid"] == child.attributes["pid"]
        assert child.end_time_ns <= spans["parent"].end_time_ns
    everyone = [*children, spans["parent"]]
    assert len({span.span_id for span in everyone}) == 5
    assert len({span.resource["service.instance.id"] for span in everyone}) == 5


def test_forking_while_threads_fork_and_record_hangs_nobody(session_daemon: SessionDaemon) -> None:
    session = session_daemon.session("storm")
    program = """
import os, threading, k8s_tracing
k8s_tracing.init("storm", backend="lttng")
def work(thread):
    for number in range(10):
        with k8s_tracing.span(f"before {thread}.{number}"):
            child = os.fork()
            if not child:
                with k8s_tracing.span(f"child {thread}.{number}"):
                    os._exit(0)   # in the middle: unfinished, and no exit handlers
            os.waitpid(child, 0)
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
    run(program, session_daemon.env)
    spans = {span.name: span for span in spans_of(session)}
    assert len(spans) == 80
    for thread in range(4):
        for number in range(10):
            child = spans[f"child {thread}.{number}"]
            assert child.unfinished
            assert child.parent_span_id == spans[f"before {thread}.{number}"].span_id


def test_multiprocessing_by_spawn_and_by_fork(
    session_daemon: SessionDaemon, tmp_path: Path
) -> None:
    session = session_daemon.session("multiprocessing")
    script = tmp_path / "script.py"
    script.write_text("""
import multiprocessing, sys, k8s_tracing
def work(headers):
    k8s_tracing.init("pool", backend="lttng")
    with k8s_tracing.extracted(headers), k8s_tracing.span("work"):
        pass
if __name__ == "__main__":
    k8s_tracing.init("pool", backend="lttng")
    with k8s_tracing.span("main"):
        headers = {}
        k8s_tracing.inject(headers)
        for method in ("fork", "spawn", "forkserver"):
            process = multiprocessing.get_context(method).Process(target=work, args=(headers,))
            process.start()
            process.join()
            assert process.exitcode == 0
""")
    subprocess.run([sys.executable, script], env=session_daemon.env, check=True, timeout=60)
    spans = spans_of(session)
    [main] = [span for span in spans if span.name == "main"]
    works = [span for span in spans if span.name == "work"]
    assert [span.parent_span_id for span in works] == [main.span_id] * 3
    assert (
        len({span.resource["process.pid"] for span in works} - {main.resource["process.pid"]}) == 3
    )


def test_a_session_that_starts_later_learns_who_records(session_daemon: SessionDaemon) -> None:
    program = """
import sys, k8s_tracing
from opentelemetry import trace
k8s_tracing.init("early", backend="lttng")
with k8s_tracing.span("unrecorded") as span:
    assert not span.is_recording()
    assert span.get_span_context().is_valid
print("ready", flush=True)
sys.stdin.readline()
with k8s_tracing.span("recorded"):
    pass
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], env=session_daemon.env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        session = session_daemon.session("late")
        process.communicate("go\n", timeout=60)
    [span] = spans_of(session)
    assert (span.name, span.resource["service.name"]) == ("recorded", "early")
    assert span.scope_name == "k8s_tracing"


def test_a_daemon_that_starts_later_finds_the_process() -> None:
    """The process has its own /dev/shm, as in a container, so only the wait files can do it."""
    daemon = SessionDaemon()
    program = """
import time, k8s_tracing
k8s_tracing.init("patient", backend="lttng")
print("ready", flush=True)
for number in range(600):
    with k8s_tracing.span("work") as span:
        if span.is_recording():
            break
    time.sleep(0.1)
"""
    # the variable that makes it find the daemon's folder, before there is a daemon
    mount = 'mount -t tmpfs shm /dev/shm && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", program]
    with subprocess.Popen(words, env=daemon.env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with daemon:
            session = daemon.session("late")
            wait_for("the process to be recorded", lambda: process.poll() is not None, 60)
            assert process.returncode == 0
            spans = spans_of(session)
    assert [span.resource["service.name"] for span in spans] == ["patient"]


def test_os_exit_and_signals_lose_nothing(session_daemon: SessionDaemon) -> None:
    session = session_daemon.session("exits")
    for ending in ("os._exit(0)", "os.kill(os.getpid(), 15)", "os.abort()"):
        program = f"""
import os, resource, k8s_tracing
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
k8s_tracing.init("exits", backend="lttng")
with k8s_tracing.span({ending!r}):
    pass
{ending}
"""
        with start(program, session_daemon.env) as process:
            process.communicate(timeout=60)
    assert sorted(span.name for span in spans_of(session)) == [
        "os._exit(0)", "os.abort()", "os.kill(os.getpid(), 15)",
    ]  # fmt: skip
