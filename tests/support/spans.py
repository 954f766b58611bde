"""Events of spans as the library records them, for traces that tests write themselves."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from k8s_tracing.agent.relay import Relay, Request
from k8s_tracing.otlp import parse_request
from k8s_tracing.record import SpanRecord
from tests.support.ctf import Event

#: When the events below happen: so many ns after the Unix epoch, plus the time they are given.
BASE_NS = 1_800_000_000_000_000_000
MS = 1_000_000
S = 1_000_000_000

TRACE_HIGH, TRACE_LOW = 0x0102030405060708, 0x1112131415161718
TRACE_ID = f"{TRACE_HIGH:016x}{TRACE_LOW:016x}"
INSTANCE = 0xABCD


def event(kind: str, at_ns: int, /, **fields: Any) -> Event:
    """Any event of our provider."""
    return Event(BASE_NS + at_ns, f"k8s_tracing:{kind}", fields)


def start(span_id: int, at_ns: int = 0, **fields: Any) -> Event:
    """The start of a span of the process and scope that `announced` has."""
    defaults = {
        "trace_id_high": TRACE_HIGH,
        "trace_id_low": TRACE_LOW,
        "instance_id": INSTANCE,
        "scope_id": 1,
        "kind": 1,
        "flags": 1,
        "op_name": f"span {span_id}",
    }
    return event("start_span", at_ns, span_id=span_id, **{**defaults, **fields})


def end(span_id: int, at_ns: int = MS, **fields: Any) -> Event:
    """The end of that span."""
    return event("end_span", at_ns, **{"trace_id_low": TRACE_LOW, "span_id": span_id, **fields})


def announced(at_ns: int = 0, service: str = "shop", instance_id: int = INSTANCE) -> list[Event]:
    """What a process says of itself before its first span."""
    resource = Resource()
    resource.attributes.add(key="service.name").value.string_value = service
    process = {"instance_id": instance_id, "resource": resource.SerializeToString()}
    scope = {"instance_id": instance_id, "scope_id": 1, "name": "tests", "version": "1.0"}
    return [event("process", at_ns, **process), event("scope", at_ns, **scope)]


def attributes(**values: str) -> bytes:
    """Attributes as the bytes of `end_span`."""
    span = Span()
    for key, value in values.items():
        span.attributes.add(key=key).value.string_value = value
    return span.SerializeToString()


def decode(requests: Iterable[Request]) -> list[SpanRecord]:
    """The spans of requests, whose numbers of spans must be right."""
    spans = []
    for request in requests:
        records = parse_request(request.body)
        assert len(records) == request.spans
        spans += records
    return spans


def read_all(relay: Relay, *chunks: Path) -> list[SpanRecord]:
    """All spans of these chunks, and those that are left in the end."""
    spans = [span for chunk in chunks for span in decode(relay.read(chunk))]
    return spans + decode(relay.finish())


def by_name(spans: Iterable[SpanRecord]) -> Mapping[str, SpanRecord]:
    """Spans by their names, of which each may occur once."""
    spans = list(spans)
    named = {span.name: span for span in spans}
    assert len(named) == len(spans), [span.name for span in spans]
    return named
