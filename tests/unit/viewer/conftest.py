"""Requests for the store to take, and a store."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from k8s_tracing.otlp import to_request
from k8s_tracing.record import SpanRecord
from k8s_tracing.viewer.store import Store

START_NS = 1_800_000_000_000_000_000
MS = 1_000_000
SPAN = SpanRecord(
    trace_id="0" * 31 + "1",
    span_id="0" * 15 + "1",
    name="op",
    kind="SERVER",
    start_time_ns=START_NS,
    end_time_ns=START_NS + 10 * MS,
    resource={"service.name": "shop"},
)


def span(trace: int = 1, number: int = 1, at_ms: int = 0, **fields: object) -> SpanRecord:
    """A span of 10 ms, unless it is told its `last_ms`, in a trace and at a time."""
    start_ns = START_NS + at_ms * MS
    end_ns = start_ns + int(fields.pop("last_ms", 10)) * MS  # type: ignore[call-overload]
    if "service" in fields:
        fields["resource"] = {"service.name": fields.pop("service")}
    if "parent" in fields:
        fields["parent_span_id"] = f"{fields.pop('parent'):016x}"
    return replace(
        SPAN,
        trace_id=f"{trace:032x}",
        span_id=f"{number:016x}",
        start_time_ns=start_ns,
        end_time_ns=end_ns,
        **fields,  # type: ignore[arg-type]
    )


def request(*spans: SpanRecord) -> ExportTraceServiceRequest:
    """An OTLP request."""
    return ExportTraceServiceRequest.FromString(to_request(spans))


def trace_id(trace: int) -> bytes:
    """A trace's id as the store has it."""
    return trace.to_bytes(16, "big")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "traces.sqlite") as opened:
        yield opened
