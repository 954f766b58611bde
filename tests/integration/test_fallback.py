"""Machines that lack a part: what a process records there, and what it says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import package
from tests.support.lttng import SessionDaemon

PROGRAM = """
import logging, sys
logging.basicConfig(level="INFO", format="%(levelname)s %(message)s")
import k8s_tracing
k8s_tracing.init("fallback")
k8s_tracing.init("fallback")

@k8s_tracing.traced
def work():
    return k8s_tracing.current_span().get_span_context()

with k8s_tracing.span("outer", {"a": 1}) as outer:
    outer.set_attribute("b", 2)
    outer.add_event("event")
    headers = {}
    k8s_tracing.inject(headers)
    inner = work()
with k8s_tracing.extracted({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}):
    span = k8s_tracing.start_span("continued")
    k8s_tracing.end_span(span)
continued = span.get_span_context()
assert inner.trace_id == outer.get_span_context().trace_id
assert not continued.is_valid or continued.trace_id == 0x0af7651916cd43dd8448eb211c80319c
name = k8s_tracing.backend_name()
k8s_tracing.flush()
k8s_tracing.shutdown()
print(name, inner.is_valid, bool(headers))
"""
NO_SDK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("opentelemetry.sdk"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""
EXPLICIT = """
import k8s_tracing
try:
    k8s_tracing.init("explicit", backend="lttng")
except k8s_tracing.K8sTracingError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    package.copy(tmp_path)
    return tmp_path


def lose(folder: Path, pattern: str) -> None:
    [found] = (folder / "k8s_tracing").glob(pattern)
    found.unlink()


def run(folder: Path, program: str, env: dict[str, str] | None = None) -> tuple[str, list[str]]:
    """What it printed, and what it logged of tracing."""
    done = package.run(folder, program, {**(env or os.environ), "OTEL_TRACES_EXPORTER": "none"})
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    return done.stdout, [line for line in lines if "tracing" in line]


def test_with_all_parts_the_copy_is_like_the_original(
    folder: Path, session_daemon: SessionDaemon
) -> None:
    said, logged = run(folder, PROGRAM, session_daemon.env)
    assert said == "lttng True True\n"
    assert logged == ["INFO tracing with LTTng"]


def test_without_the_provider_the_sdk_records(folder: Path, session_daemon: SessionDaemon) -> None:
    lose(folder, "libk8s_tracing_lttng.so")
    said, [logged] = run(folder, PROGRAM, session_daemon.env)
    assert said == "otel True True\n"
    assert logged.startswith("INFO tracing with OpenTelemetry's SDK: k8s-tracing was built without")
    assert "apt-get install liblttng-ust-dev" in logged


def test_without_liblttng_ust_the_sdk_records(folder: Path, session_daemon: SessionDaemon) -> None:
    # a file that cannot be loaded fails as a missing library does: in the dynamic linker
    lose(folder, "libk8s_tracing_lttng.so")
    (folder / "k8s_tracing/libk8s_tracing_lttng.so").write_bytes(b"\x7fELF")
    said, [logged] = run(folder, PROGRAM, session_daemon.env)
    assert said == "otel True True\n"
    assert "apt-get install liblttng-ust1" in logged


def test_without_a_daemon_the_sdk_records(folder: Path, tmp_path: Path) -> None:
    env = {**os.environ, "LTTNG_UST_APP_PATH": str(tmp_path)}
    said, [logged] = run(folder, PROGRAM, env)
    assert said == "otel True True\n"
    assert "INFO tracing with OpenTelemetry's SDK: no LTTng session daemon runs here" in logged


def test_without_the_extension_the_sdk_records_and_it_is_a_warning(
    folder: Path, session_daemon: SessionDaemon
) -> None:
    lose(folder, "_core.*.so")
    said, [logged] = run(folder, PROGRAM, session_daemon.env)
    assert said == "otel True True\n"
    assert logged.startswith("WARNING tracing with OpenTelemetry's SDK: the native span is missing")
    assert "apt-get install gcc python3-dev" in logged


def test_with_neither_extension_nor_sdk_spans_do_nothing(folder: Path) -> None:
    lose(folder, "_core.*.so")
    said, [logged] = run(folder, NO_SDK + PROGRAM)
    assert said == "noop False False\n"
    assert logged.startswith("WARNING no tracing: the native span is missing")
    assert "pip install 'k8s-tracing[otlp]'" in logged


def test_with_neither_lttng_nor_sdk_spans_do_nothing(folder: Path) -> None:
    lose(folder, "libk8s_tracing_lttng.so")
    said, [logged] = run(folder, NO_SDK + PROGRAM)
    assert said == "noop False False\n"
    assert logged.startswith("INFO no tracing: ")


@pytest.mark.parametrize(
    ("part", "remedy"),
    [
        ("libk8s_tracing_lttng.so", "apt-get install liblttng-ust-dev"),
        ("_core.*.so", "apt-get install gcc python3-dev"),
    ],
)
def test_a_backend_that_was_named_is_not_replaced(folder: Path, part: str, remedy: str) -> None:
    lose(folder, part)
    said, _ = run(folder, EXPLICIT)
    assert said.startswith("BackendUnavailable ")
    assert remedy in said


def test_opentelemetrys_context_stays_its_own_without_the_extension(folder: Path) -> None:
    lose(folder, "_core.*.so")
    env = {**os.environ, "OTEL_PYTHON_CONTEXT": "contextvars_context"}
    said, _ = run(folder, PROGRAM, env)
    assert said == "otel True True\n"
