"""Where a span's time went, as the process itself measures it."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.context import Context

import k8s_tracing
from k8s_tracing import _core, cpu
from k8s_tracing.backends.memory import MemoryBackend
from k8s_tracing.provider import TracerProvider
from k8s_tracing.record import SpanRecord
from k8s_tracing.sampling import Sampling
from k8s_tracing.settings import Limits
from k8s_tracing.testing import using

pytestmark = pytest.mark.alone

PARTS = ("running_ns", "run_queue_ns", "throttled_ns", "blocked_ns")
MS = 1_000_000
SHARED = "k8s_tracing.cpu.shared"


@pytest.fixture
def backend() -> Iterator[MemoryBackend]:
    backend = MemoryBackend({"service.name": "tests"}, Limits(), Sampling())
    cpu.split(MS, backend.name)
    try:
        with using(TracerProvider(backend)):
            yield backend
    finally:
        _core.split_cpu(-1, None)


def parts(record: SpanRecord) -> dict[str, int]:
    """What is said of a span; empty: nothing."""
    told = {name: record.attributes.get(f"k8s_tracing.cpu.{name}") for name in PARTS}
    return {name: value for name, value in told.items() if isinstance(value, int)}


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def burn(cpu_ms: int) -> None:
    end_ns = time.thread_time_ns() + cpu_ms * MS
    while time.thread_time_ns() < end_ns:
        pass


def test_sleeping_is_blocked(backend: MemoryBackend) -> None:
    with k8s_tracing.span("asleep"):
        time.sleep(0.05)
    [record] = backend.records
    told = parts(record)
    # late by what it waits for a CPU after the sleep
    assert told["blocked_ns"] >= 45 * MS
    assert told["running_ns"] < told["blocked_ns"] / 5


def test_working_is_running_even_for_less_than_a_tick(backend: MemoryBackend) -> None:
    for _ in range(20):
        with k8s_tracing.span("busy"):
            burn(2)
    for record in backend.records:
        told = parts(record)
        assert 2 * MS <= told["running_ns"] < 4 * MS
        duration_ns = record.end_time_ns - record.start_time_ns
        assert abs(sum(told.values()) - duration_ns) < duration_ns / 10 + MS


def test_a_span_below_the_limit_is_told_nothing(backend: MemoryBackend) -> None:
    with k8s_tracing.span("short"):
        pass
    [record] = backend.records
    duration_ns = record.end_time_ns - record.start_time_ns
    assert duration_ns >= MS or record.attributes == {}


def test_only_a_local_root_is_told(backend: MemoryBackend) -> None:
    remote = _core.remote_span("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert remote is not None
    with (
        k8s_tracing.span("of another process", context=trace.set_span_in_context(remote)),
        k8s_tracing.span("below it"),
    ):
        burn(2)
    below, root = backend.records
    assert below.attributes == {}
    assert set(parts(root)) == set(PARTS)


def test_requests_that_share_a_thread_are_told_so_and_nothing_is_attributed(
    backend: MemoryBackend,
) -> None:
    async def request(name: str, delay_s: float) -> None:
        with k8s_tracing.span(name):
            burn(2)
            await asyncio.sleep(delay_s)

    async def serve() -> None:
        await asyncio.gather(request("first", 0.02), request("second", 0.04))
        await request("alone", 0.02)

    asyncio.run(serve())
    records = {record.name: record for record in backend.records}
    for name in ("first", "second"):
        assert records[name].attributes == {SHARED: True}
    assert SHARED not in records["alone"].attributes
    alone = parts(records["alone"])
    assert 2 * MS <= alone["running_ns"] < alone["blocked_ns"]


def test_a_request_that_is_not_sampled_shares_the_thread_as_well() -> None:
    backend = MemoryBackend({}, Limits(), Sampling())
    never = MemoryBackend({}, Limits(), Sampling(below=0))
    cpu.split(MS, "memory")
    try:
        unseen = never.tracer("tests").start_span("unseen")
        assert not unseen.is_recording()
        span = backend.tracer("tests").start_span("seen", context=Context())
        burn(2)
        span.end()
        unseen.end()
        alone = backend.tracer("tests").start_span("alone", context=Context())
        burn(2)
        alone.end()
    finally:
        _core.split_cpu(-1, None)
    seen, later = backend.records
    assert seen.attributes == {SHARED: True}
    assert set(parts(later)) == set(PARTS)


def test_a_span_that_nobody_ends_does_not_share_for_ever(backend: MemoryBackend) -> None:
    tracer = backend.tracer("tests")
    forgotten = tracer.start_span("forgotten", context=Context())
    del forgotten
    with k8s_tracing.span("alone"):
        burn(2)
    [record] = backend.records
    assert set(parts(record)) == set(PARTS)


def test_a_span_that_ends_on_another_thread_is_told_nothing(backend: MemoryBackend) -> None:
    span = k8s_tracing.start_span("moved")
    burn(2)
    thread = threading.Thread(target=span.end)
    thread.start()
    thread.join()
    with k8s_tracing.span("alone"):
        burn(2)
    moved, alone = backend.records
    assert moved.attributes == {}
    assert set(parts(alone)) == set(PARTS)


def test_a_thread_that_is_gone_takes_nothing_along(backend: MemoryBackend) -> None:
    spans = []

    def begin() -> None:
        spans.append(k8s_tracing.start_span("orphan"))

    before = open_files()
    for _ in range(50):
        thread = threading.Thread(target=begin)
        thread.start()
        thread.join()
    for span in spans:
        span.end()
    assert [record.attributes for record in backend.records] == [{}] * 50
    assert open_files() <= before + 1


def test_times_that_are_given_are_not_those_that_are_measured(backend: MemoryBackend) -> None:
    tracer = backend.tracer("tests")
    started = tracer.start_span("given start", start_time=time.time_ns() - 10**9)
    burn(2)
    started.end()
    ended = tracer.start_span("given end")
    burn(2)
    ended.end(time.time_ns())
    assert [record.attributes for record in backend.records] == [{}, {}]


def test_a_limit_on_attributes_does_not_drop_them() -> None:
    backend = MemoryBackend({}, Limits(attributes=1), Sampling())
    cpu.split(MS, backend.name)
    try:
        with using(TracerProvider(backend)), k8s_tracing.span("full", {"a": 1}):
            burn(2)
    finally:
        _core.split_cpu(-1, None)
    [record] = backend.records
    assert record.attributes["a"] == 1
    assert set(parts(record)) == set(PARTS)
    assert record.dropped_attributes == 0


def run(program: str) -> str:
    environ = dict(os.environ) | {"K8S_TRACING_BACKEND": "memory", "K8S_TRACING_CPU_SPLIT": "1ms"}
    header = """
        import os, sys, time
        import k8s_tracing
        k8s_tracing.init("test")
        def records():
            return k8s_tracing.api._provider.backend.records
        def burn(cpu_ms):
            end_ns = time.thread_time_ns() + cpu_ms * 1_000_000
            while time.thread_time_ns() < end_ns: pass
        def told(record):
            return sorted(name.rpartition(".")[2] for name in record.attributes if name.endswith("_ns"))
    """
    words = [sys.executable, "-c", textwrap.dedent(header) + textwrap.dedent(program)]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_forked_child_measures_its_own_thread() -> None:
    said = run(
        """
        with k8s_tracing.span("before"):
            burn(30)
        pid = os.fork()
        if not pid:
            with k8s_tracing.span("child"):
                burn(5)
            delay = int(open("/proc/thread-self/schedstat").read().split()[1])
            child = records()[-1]
            print(told(child), child.attributes["k8s_tracing.cpu.run_queue_ns"]
                  + child.attributes["k8s_tracing.cpu.throttled_ns"] <= delay, flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        """
    )
    assert said.strip() == f"{sorted(PARTS)} True"


def test_an_application_that_closes_all_files_is_not_harmed() -> None:
    said = run(
        """
        with k8s_tracing.span("before"):
            burn(2)
        os.closerange(3, 256)
        # the numbers are now others'
        mine = [os.open("/etc/hostname", os.O_RDONLY) for _ in range(20)]
        for _ in range(3):
            with k8s_tracing.span("after"):
                burn(2)
        print(told(records()[0]) == told(records()[-1]) != [], all(os.fstat(fd) for fd in mine))
        """
    )
    assert said.strip() == "True True"


def test_what_is_no_native_span_is_said_to_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "k8s_tracing"):
        cpu.split(MS, "otel")
    assert "the backend is otel" in caplog.text
