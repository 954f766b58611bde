"""OTEL_PROPAGATORS, through OpenTelemetry's entry points, in processes of their own: it is read at import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, sys
import k8s_tracing
k8s_tracing.init("propagators", backend="memory")
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
incoming = SpanContext(0x0af7651916cd43dd8448eb211c80319c, 0xb7ad6b7169203331, True, TraceFlags(1))
outgoing = trace.set_span_in_context(NonRecordingSpan(incoming), baggage.set_baggage("k", "v"))
headers = {}
k8s_tracing.inject(headers, outgoing)
found = k8s_tracing.extract(headers)
back = trace.get_current_span(found).get_span_context()
same = (back.trace_id, back.span_id) == (incoming.trace_id, incoming.span_id)
with k8s_tracing.extracted(headers):
    assert trace.get_current_span().get_span_context() == back
context.attach(propagate.extract({}))   # as instrumentations do
with k8s_tracing.span("work"):
    pass
json.dump([headers, same, baggage.get_baggage("k", found)], sys.stdout)
"""
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
W3C = {"traceparent": f"00-{TRACE}-{SPAN}-01"}


def run(propagators: str, program: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OTEL_PROPAGATORS": propagators}
    words = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    ("propagators", "headers", "same", "value"),
    [
        ("", {**W3C, "baggage": "k=v"}, True, "v"),
        ("tracecontext,baggage", {**W3C, "baggage": "k=v"}, True, "v"),
        ("tracecontext", W3C, True, None),
        ("baggage", {"baggage": "k=v"}, False, "v"),
        ("b3", {"b3": f"{TRACE}-{SPAN}-1"}, True, None),
        (
            "b3multi",
            {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-sampled": "1"},
            True,
            None,
        ),
        ("jaeger", {"uber-trace-id": f"{TRACE}:{SPAN}:{0:016}:03", "uberctx-k": "v"}, True, "v"),
        ("tracecontext, b3", {**W3C, "b3": f"{TRACE}-{SPAN}-1"}, True, None),
        ("none", {}, False, None),
    ],
)
def test_what_is_written_is_read(
    propagators: str, headers: dict[str, str], same: bool, value: str | None
) -> None:
    written, is_same, found = json.loads(run(propagators).stdout)
    assert {name.lower(): value for name, value in written.items()} == headers
    assert (is_same, found) == (same, value)


def test_a_propagator_that_is_not_there_is_left_out_with_its_remedy() -> None:
    done = run("xray,tracecontext,trcecontext")
    assert json.loads(done.stdout)[0] == W3C
    assert "'xray'" in done.stderr
    assert "pip install opentelemetry-propagator-aws-xray" in done.stderr
    assert (
        "no propagator 'trcecontext' here, it is left out: correct OTEL_PROPAGATORS" in done.stderr
    )


def test_none_but_unknown_ones_propagate_nothing() -> None:
    assert json.loads(run("xray").stdout) == [{}, False, None]


def test_the_variable_stays_as_it_was() -> None:
    program = "import os, k8s_tracing; print(os.environ['OTEL_PROPAGATORS'])"
    assert run("xray,b3", program).stdout == "xray,b3\n"


def test_the_command_of_opentelemetry_refuses_an_unknown_one_before_we_can_help() -> None:
    """What the page on variables says of it; when this fails, OpenTelemetry has become kinder."""
    command = str(Path(sys.executable).parent / "opentelemetry-instrument")
    env = {**os.environ, "OTEL_PROPAGATORS": "xray", "OTEL_PYTHON_DISTRO": "k8s_tracing"}
    words = [command, sys.executable, "-c", "print('runs')"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Propagator xray not found" in done.stderr
