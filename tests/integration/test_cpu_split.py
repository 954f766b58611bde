"""Where a span's time went, against the kernel's own figures, with a real quota."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from k8s_tracing.otlp import read_json_lines
from k8s_tracing.record import SpanRecord
from tests.support import cgroups
from tests.support.agent import PATIENCE_S, agent
from tests.support.folder import open_folder
from tests.support.wait import wait_for

pytestmark = pytest.mark.alone

WORK = str(Path(__file__).with_name("apps") / "cpu_work.py")
# So little that also a machine with much other work gives it more, and the quota is what ends it.
QUOTA_MS = 10
CPU_S = 0.05

PARTS = ("running_ns", "run_queue_ns", "throttled_ns", "blocked_ns")


def work(cgroup: Path | None, cpu_s: float, spans: int, cpu: int | None = None) -> Any:
    """Run cpu_work.py, on one CPU if asked to."""
    environ = dict(os.environ) | {"K8S_TRACING_BACKEND": "memory", "K8S_TRACING_CPU_SPLIT": "1ms"}
    pin = [] if cpu is None else ["taskset", "-c", str(cpu)]
    words = [*pin, sys.executable, WORK, str(cgroup or "-"), str(cpu_s), str(spans)]
    done = subprocess.run(
        words, env=environ, input=b"", stdout=subprocess.PIPE, check=True, timeout=120
    )
    return json.loads(done.stdout)


def split(span: dict[str, Any]) -> dict[str, int]:
    return {part: span["attributes"][f"k8s_tracing.cpu.{part}"] for part in PARTS}


def check_against_the_kernel(span: dict[str, Any], kernel: dict[str, int]) -> float:
    """The parts are what the kernel said around the span; returns how much can have happened between, in ns."""
    parts = split(span)
    # the process can lose the CPU between our reading and the span's
    slack_ns = kernel["wall_ns"] - span["duration_ns"] + span["duration_ns"] / 100
    assert abs(sum(parts.values()) - span["duration_ns"]) <= slack_ns
    assert 0 <= kernel["running_ns"] - parts["running_ns"] <= slack_ns
    delay_ns = parts["throttled_ns"] + parts["run_queue_ns"]
    assert 0 <= kernel["delay_ns"] - delay_ns <= slack_ns
    return slack_ns


@contextmanager
def busy(cpu: int, count: int) -> Iterator[None]:
    """Other processes that never leave a CPU."""
    words = ["taskset", "-c", str(cpu), sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(words) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
        for other in others:
            other.wait()


def test_a_quota_shows_as_throttled_time_and_in_words() -> None:
    with cgroups.quota(QUOTA_MS) as cgroup:
        told = work(cgroup, cpu_s=CPU_S, spans=4)
    total_ns = 0
    for span, kernel in zip(told["spans"], told["kernel"], strict=True):
        parts = split(span)
        slack_ns = check_against_the_kernel(span, kernel)
        delay_ns = parts["throttled_ns"] + parts["run_queue_ns"]
        limit_ns = min(kernel["throttled_ns"], delay_ns)
        assert abs(parts["throttled_ns"] - limit_ns) <= slack_ns + limit_ns / 10
        check_words(span["attributes"])
        total_ns += parts["throttled_ns"]
    assert total_ns > 0


def check_words(attributes: dict[str, Any]) -> None:
    """A span that was throttled says so, and no other one."""
    running_ns, throttled_ns = (
        attributes[f"k8s_tracing.cpu.{part}"] for part in ("running_ns", "throttled_ns")
    )
    said = attributes.get("k8s_tracing.cpu.summary", "")
    found = re.fullmatch(r"needed ([\d.]+) ms of CPU, was throttled ([\d.]+) ms", said)
    assert (found is not None) == (throttled_ns > 0)
    if found:
        assert abs(float(found[1]) - running_ns / 1e6) <= 0.5
        assert abs(float(found[2]) - throttled_ns / 1e6) <= 0.5


def test_other_programs_on_the_cpu_show_as_run_queue_and_not_as_throttled() -> None:
    cpu = max(os.sched_getaffinity(0))
    with busy(cpu, 3):
        told = work(None, cpu_s=0.1, spans=2, cpu=cpu)
    waited = worked = 0
    for span, kernel in zip(told["spans"], told["kernel"], strict=True):
        parts = split(span)
        assert parts["throttled_ns"] == 0
        assert "k8s_tracing.cpu.summary" not in span["attributes"]
        check_against_the_kernel(span, kernel)
        waited += parts["run_queue_ns"]
        worked += parts["running_ns"]
    # of four, each waits three times as long as it works
    assert waited > worked


def test_a_throttled_container_is_seen_in_its_spans_and_in_the_metrics() -> None:
    container = secrets.token_hex(32)
    with open_folder() as folder, cgroups.quota(QUOTA_MS, container) as cgroup:
        file = folder / "spans.jsonl"
        arguments = ["--output-file", str(file), "--rotation-s", "0.3"]
        with agent(folder / "agent", *arguments) as running:
            environ = dict(os.environ) | running.env
            environ |= {"K8S_TRACING_BACKEND": "lttng", "K8S_TRACING_CPU_SPLIT": "1"}
            words = [sys.executable, WORK, str(cgroup), str(CPU_S), "2"]
            with subprocess.Popen(words, env=environ, stdin=subprocess.PIPE) as work:
                spans = wait_for("both spans arrive", lambda: two_of(file), PATIENCE_S)
                told = wait_for(
                    "the container has figures",
                    lambda: figures(running.info["health"], container),
                    PATIENCE_S,
                )
                work.communicate()
    for span in spans:
        check_words(dict(span.attributes))
        assert span.resource["container.id"] == container
    running_ns = sum(int(span.attributes["k8s_tracing.cpu.running_ns"]) for span in spans)
    throttled_ns = sum(int(span.attributes["k8s_tracing.cpu.throttled_ns"]) for span in spans)
    assert throttled_ns > 0
    assert told["seconds_total"] >= running_ns / 1e9
    assert told["throttled_seconds_total"] >= throttled_ns / 1e9
    assert told["periods_total"] >= told["throttled_periods_total"] > 0


def two_of(file: Path) -> list[SpanRecord]:
    """The last line may be half written."""
    try:
        spans = list(read_json_lines(file))
    except (OSError, ValueError):
        return []
    return spans if len(spans) == 2 else []


def figures(health: str, container: str) -> dict[str, float]:
    text = requests.get(f"{health}/metrics", timeout=30).text
    return {
        sample.name.removeprefix("k8s_tracing_agent_container_cpu_"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("container_id") == container and sample.labels["service"] == "cpu-work"
    }
