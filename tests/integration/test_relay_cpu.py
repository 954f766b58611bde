"""The threads and times that the relay asks the scheduler for are those of the process that LTTng recorded."""

import json
import subprocess
import sys
from pathlib import Path

from k8s_tracing.agent.relay import Relay
from k8s_tracing.record import SpanRecord
from tests.support.lttng import SessionDaemon
from tests.support.scheduler import FakeScheduler
from tests.support.spans import by_name, read_all

PROGRAM = """
import asyncio, json, os, sys, threading, time
import k8s_tracing

k8s_tracing.init("threads", backend="lttng")
ran = {}

def nested():
    name = threading.current_thread().name
    before_ns = time.monotonic_ns()
    with k8s_tracing.span(name):
        with k8s_tracing.span(name + " child"):
            time.sleep(0.005)
    ran[name] = (threading.get_native_id(), before_ns, time.monotonic_ns())

async def request(name):
    with k8s_tracing.span(name):
        await asyncio.sleep(0.005)

async def requests():
    await asyncio.gather(request("a"), request("b"))
    await request("c")

for thread in [threading.Thread(target=nested, name=f"thread {n}") for n in range(3)]:
    thread.start()
nested()
for thread in threading.enumerate()[1:]:
    thread.join()
before_ns = time.monotonic_ns()
asyncio.run(requests())
ran["c"] = (threading.get_native_id(), before_ns, time.monotonic_ns())
json.dump([os.getpid(), ran], sys.stdout)
"""


def test_threads_and_an_event_loop(session_daemon: SessionDaemon) -> None:
    session = session_daemon.session("threads")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=session_daemon.env,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    pid, ran = json.loads(done.stdout)
    session.stop()
    scheduler = FakeScheduler((1, 2, 3))
    with Relay(cpu_times=scheduler.times(shortest_ns=1_000_000)) as relay:
        spans = by_name(read_all(relay, session.output))
        stats = relay.stats
    assert {name for name, span in spans.items() if says(span, "shared")} == {"a", "b"}
    assert (stats.cpu_told, stats.cpu_shared, stats.cpu_unknown) == (9, 2, 0)
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    assert {(each.pid_ns, each.vpid) for each in scheduler.asked} == {(namespace, pid)}
    for name, (thread, before_ns, after_ns) in ran.items():
        of_it = [
            each
            for each in scheduler.asked
            if each.vtid == thread and before_ns <= each.begin_ns < each.end_ns <= after_ns
        ]
        told = [spans[name]] if name == "c" else [spans[f"{name} child"], spans[name]]
        assert [each.end_ns - each.begin_ns for each in of_it] == [
            sum(
                says(span, f"{part}_ns")
                for part in ("running", "run_queue", "throttled", "blocked")
            )
            for span in told
        ]
        assert [says(span, "blocked_ns") + 6 for span in told] == [s.duration_ns for s in told]


def says(span: SpanRecord, key: str) -> int:
    """An attribute of its CPU time; 0: none."""
    value = span.attributes.get(f"k8s_tracing.cpu.{key}", 0)
    assert isinstance(value, int)
    return value
