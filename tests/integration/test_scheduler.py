"""`agent --cpu-split`: what spans say of their threads, against the kernel's own figures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from k8s_tracing.otlp import read_json_lines
from k8s_tracing.record import SpanRecord
from tests.support import cgroups
from tests.support.agent import PATIENCE_S, agent
from tests.support.folder import open_folder
from tests.support.wait import wait_for

APPS = Path(__file__).with_name("apps")
QUOTA_MS = 10
MS = 1_000_000
PARTS = ("running_ns", "run_queue_ns", "throttled_ns", "blocked_ns")
SUMMARY = "k8s_tracing.cpu.summary"
SHARED = "k8s_tracing.cpu.shared"

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(os.geteuid() != 0, reason="the kernel's scheduler is for root's eyes"),
]


def split(span: SpanRecord) -> dict[str, int]:
    """The parts that it tells."""
    keys = {part: f"k8s_tracing.cpu.{part}" for part in PARTS}
    return {part: int(span.attributes[key]) for part, key in keys.items() if key in span.attributes}


def steal_ns() -> int:
    """CPU time that a hypervisor took away: /proc/stat, in ticks."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(fields[8]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def spans_of(file: Path) -> list[SpanRecord]:
    """What there is; the last line may be half written."""
    try:
        return list(read_json_lines(file))
    except (OSError, ValueError):
        return []


@contextmanager
def followed(folder: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """An agent that follows the scheduler: what programs need in their environment, and its output."""
    file = folder / "spans.jsonl"
    arguments = ["--output-file", str(file), "--rotation-s", "0.3", "--cpu-split", "1ms"]
    with agent(folder / "agent", *arguments) as running:
        yield dict(os.environ) | running.env | {"K8S_TRACING_BACKEND": "lttng"}, file


def test_a_quota_shows_as_throttled_time_in_each_span() -> None:
    count = 16
    with (
        open_folder() as folder,
        cgroups.quota(QUOTA_MS) as cgroup,
        followed(folder) as (environ, file),
    ):
        words = [sys.executable, str(APPS / "cpu_work.py"), str(cgroup), "0.02", str(count)]
        with subprocess.Popen(
            words, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as work:
            spans = wait_for("all spans arrive", lambda: exactly(file, count), PATIENCE_S)
            assert work.stdin is not None
            assert work.stdout is not None
            kernel = json.loads(work.stdout.readline())["kernel"]
            work.stdin.close()
    by_name = {span.name: span for span in spans}
    told = known = throttled_ns = waited_ns = 0
    for number, figures in enumerate(kernel):
        span = by_name[f"work {number}"]
        parts = split(span)
        if not parts:
            continue  # the agent did not know the process yet
        told += 1
        check_sum(span, parts)
        assert parts["running_ns"] >= figures["running_ns"] - 2 * MS
        assert parts["blocked_ns"] <= 2 * MS
        if "throttled_ns" not in parts:
            continue  # nor which timer is its quota's
        known += 1
        assert (SUMMARY in span.attributes) == (parts["throttled_ns"] > 0)
        # cpu.stat is of all CPUs, also of one that the thread was on before
        assert parts["throttled_ns"] <= figures["throttled_ns"] + 5 * MS
        throttled_ns += parts["throttled_ns"]
        waited_ns += figures["wall_ns"] - figures["running_ns"]
    assert told >= count / 2
    assert known >= count / 4
    # It never sleeps: what it does not run it was throttled for, or others of the machine had the CPU.
    assert throttled_ns > waited_ns / 2


def check_sum(span: SpanRecord, parts: dict[str, int]) -> None:
    """The parts are the span, from one event to the other."""
    assert abs(sum(parts.values()) - (span.end_time_ns - span.start_time_ns)) < MS / 10
    assert min(parts.values()) >= 0


def exactly(file: Path, count: int) -> list[SpanRecord]:
    spans = spans_of(file)
    return spans if len(spans) == count else []


@pytest.mark.parametrize("place", [[], ["unshare", "--pid", "--fork", "--mount-proc"]])
def test_every_span_on_every_thread_says_where_its_time_went(place: list[str]) -> None:
    threads, count = 3, 6
    expected = 1 + 2 * threads * count + 3 + 6
    with open_folder() as folder, followed(folder) as (environ, file):
        words = [*place, sys.executable, "-m", "tests.integration.apps.cpu_requests"]
        words += [str(threads), str(count), "0.01"]
        with subprocess.Popen(
            words, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as work:
            assert work.stdin is not None
            assert work.stdout is not None
            assert work.stdout.readline() == b"ready\n"
            wait_for("the process is known", lambda: exactly(file, 1), PATIENCE_S)
            stolen_ns = steal_ns()
            work.stdin.write(b"go\n")
            work.stdin.flush()
            used_ns: dict[str, int] = json.loads(work.stdout.readline())
            spans = wait_for("all spans arrive", lambda: exactly(file, expected), PATIENCE_S)
            stolen_ns = steal_ns() - stolen_ns
            work.stdin.close()
    by_id = {span.span_id: span for span in spans}
    told = extra_ns = 0
    for span in spans:
        parts = split(span)
        if span.name in ("hello", "together"):
            assert parts == {}
            assert (SHARED in span.attributes) == (span.name == "together")
            continue
        if not parts:
            continue
        told += 1
        check_sum(span, parts)
        assert parts["throttled_ns"] == 0
        if span.name == "alone":
            assert parts["running_ns"] >= 10 * MS
            assert parts["blocked_ns"] >= 9 * MS
        elif span.name == "request":
            # the thread's clock leaves out interrupts and what a hypervisor takes
            extra_ns += parts["running_ns"] - used_ns[span.span_id]
            assert parts["running_ns"] >= used_ns[span.span_id] - MS / 2
            assert parts["blocked_ns"] >= 4 * MS
        else:
            outer = split(by_id[span.parent_span_id or ""])
            assert parts["running_ns"] >= 4 * MS
            for part in PARTS:
                assert not outer or parts[part] <= outer[part] + MS / 10
    assert told >= 0.9 * (expected - 1 - 6)
    assert extra_ns <= stolen_ns + sum(used_ns.values()) / 5


def instances(tracefs: Path, pid: int) -> list[Path]:
    return list((tracefs / "instances").glob(f"k8s_tracing-{pid}-*"))


LISTEN = """
import sys
from k8s_tracing.dataplane.scheduler import Scheduler
with Scheduler() as scheduler:
    scheduler.start()
    print("listens", flush=True)
    sys.stdin.read()
"""


@contextmanager
def listening() -> Iterator[subprocess.Popen[bytes]]:
    """A process that follows the scheduler."""
    words = [sys.executable, "-c", LISTEN]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listens\n"
        yield process


def test_the_kernel_records_nothing_any_more_after_the_end_however_it_ended() -> None:
    with open_folder() as folder:
        tracefs = folder / "tracefs"
        tracefs.mkdir()
        subprocess.run(["mount", "-t", "tracefs", "test", str(tracefs)], check=True)
        try:
            with listening() as first:
                assert len(instances(tracefs, first.pid)) == 2
                first.send_signal(signal.SIGKILL)
                first.wait()
                assert len(instances(tracefs, first.pid)) == 2
            with listening() as second:
                assert instances(tracefs, first.pid) == []
                assert second.stdin is not None
                second.stdin.close()
                assert second.wait(PATIENCE_S) == 0
            assert instances(tracefs, second.pid) == []
        finally:
            subprocess.run(["umount", str(tracefs)], check=True)


def test_an_agent_in_another_pid_namespace_says_what_is_missing() -> None:
    words = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", LISTEN]
    done: subprocess.CompletedProcess[Any] = subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "hostPID" in done.stderr
