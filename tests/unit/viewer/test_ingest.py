"""What the store is sent: sorted by trace; what is wrong is refused, what is too much cut, both counted."""

import random

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from k8s_tracing.otlp import records
from k8s_tracing.record import EventRecord, LinkRecord
from k8s_tracing.viewer import ingest as module
from k8s_tracing.viewer.ingest import Ingested, ingest, tag
from k8s_tracing.viewer.schema import ERROR, UNFINISHED
from tests.unit.viewer.conftest import MS, START_NS, request, span


def raw(**fields: object) -> ExportTraceServiceRequest:
    """A request with one span of these fields."""
    message = ExportTraceServiceRequest()
    message.resource_spans.add().scope_spans.add().spans.add(
        **{"trace_id": b"t" * 16, "span_id": b"s" * 8, **fields}
    )
    return message


def only(ingested: Ingested) -> module.SpanRow:
    (part,) = ingested.parts
    (row,) = part.rows
    return row


def test_spans_are_sorted_by_trace_and_stay_what_they_were() -> None:
    spans = [
        span(1, 1, service="a"),
        span(2, 2, service="a"),
        span(1, 3, service="b", scope_name="s"),
        span(1, 4, service="a"),
    ]
    ingested = ingest(request(*spans))
    assert [part.trace_id[-1] for part in ingested.parts] == [1, 2]
    first, second = (list(records(part.request)) for part in ingested.parts)
    assert sorted(each.span_id for each in first) == [s.span_id for s in (spans[0], *spans[2:])]
    assert {each.span_id: each for each in first}[spans[2].span_id] == spans[2]
    assert second == [spans[1]]
    assert not ingested.refused
    assert not ingested.cut


def test_rows_are_in_the_order_of_the_parts_spans() -> None:
    spans = [span(1, number, service="ab"[number % 2]) for number in range(1, 9)]
    (part,) = ingest(request(*spans)).parts
    assert [row.span_id for row in part.rows] == [
        int(each.span_id, 16) for each in records(part.request)
    ]


def test_what_a_search_needs_of_a_span() -> None:
    sent = span(
        service="shop",
        parent=7,
        status="ERROR",
        status_message="no",
        attributes={"a": 1, "k8s_tracing.unfinished": True},
        events=(EventRecord("e", START_NS, {"in event": (1, 2)}),),
        scope_name="scope",
        trace_state="v=1",
    )
    row = only(ingest(request(sent)))
    assert (row.span_id, row.parent, row.service, row.name) == (1, 7, "shop", "op")
    assert (row.start_ns, row.duration_ns, row.flags) == (START_NS, 10 * MS, ERROR | UNFINISHED)
    expected = {
        "service.name": "shop",
        "otel.scope.name": "scope",
        "span.kind": "server",
        "a": "1",
        "k8s_tracing.unfinished": "true",
        "in event": "[1,2]",
        "otel.status_description": "no",
        "error": "true",
        "otel.status_code": "ERROR",
        "w3c.tracestate": "v=1",
    }
    assert set(row.tags) == {tag(key, value) for key, value in expected.items()}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"trace_id": b""}, "trace id"),
        ({"trace_id": b"t" * 15}, "trace id"),
        ({"trace_id": bytes(16)}, "trace id"),
        ({"span_id": b"s" * 9}, "span id"),
        ({"span_id": bytes(8)}, "span id"),
        ({"parent_span_id": b"p"}, "parent span id"),
        ({"start_time_unix_nano": 2**63}, "time"),
        ({"end_time_unix_nano": 2**64 - 1}, "time"),
    ],
)
def test_what_is_wrong_is_refused_and_the_rest_is_not(
    fields: dict[str, object], reason: str
) -> None:
    message = raw(**fields)
    message.MergeFrom(request(span()))
    ingested = ingest(message)
    assert ingested.refused == {reason: 1}
    assert only(ingested).service == "shop"


def test_a_parent_of_zeros_is_none() -> None:
    ingested = ingest(raw(parent_span_id=bytes(8)))
    assert only(ingested).parent is None
    assert next(records(ingested.parts[0].request)).parent_span_id == ""


def test_a_span_that_ends_before_its_start_has_no_duration() -> None:
    row = only(ingest(raw(start_time_unix_nano=5, end_time_unix_nano=3)))
    assert row.duration_ns == 0


def test_a_long_span_is_cut_and_says_so() -> None:
    sent = span(
        name="n" * 100_000,
        attributes={
            "long": "x" * 100_000,
            "deep": {"a": {"b": "y" * 10_000}},
            "raw": bytes(10_000),
            **{f"more {number}": number for number in range(200)},
        },
        events=tuple(EventRecord("e", START_NS + n, {"a": "z" * 9999}) for n in range(300)),
        links=tuple(LinkRecord("ab" * 16, "cd" * 8) for _ in range(129)),
    )
    ingested = ingest(request(sent))
    (kept,) = records(ingested.parts[0].request)
    assert len(kept.name) == module.MAX_VALUE_LENGTH
    assert len(kept.attributes) == 128
    assert kept.dropped_attributes == 75
    assert kept.attributes["long"] == "x" * module.MAX_VALUE_LENGTH
    assert str(kept.attributes["deep"]).startswith('{"a":{"b":"yyy')
    assert kept.attributes["raw"] == bytes(module.MAX_VALUE_LENGTH)
    assert (len(kept.events), kept.dropped_events) == (128, 172)
    assert (len(kept.links), kept.dropped_links) == (128, 1)
    assert ingested.cut == {"attributes": 75, "values": 131, "events": 172, "links": 1}
    assert not ingested.refused


def test_a_span_that_stays_too_long_is_refused() -> None:
    value = "x" * module.MAX_VALUE_LENGTH
    attributes = {str(number): value for number in range(100)}
    events = tuple(EventRecord("e", START_NS, attributes) for _ in range(20))
    ingested = ingest(request(span(events=events)))
    assert ingested.refused == {"size": 1}
    assert ingested.parts == []


def test_a_resource_is_cut_as_well() -> None:
    resource = {"service.name": "s" * 200_000, **{str(n): "y" * 9999 for n in range(20)}}
    ingested = ingest(request(span(resource=resource)))
    assert only(ingested).service == "s" * module.MAX_VALUE_LENGTH
    assert ingested.parts[0].request.ByteSize() < 200_000


@pytest.mark.parametrize("resource", [{}, {"service.name": ""}, {"service.name": None}, {"x": "y"}])
def test_a_service_without_a_name(resource: dict[str, object]) -> None:
    assert only(ingest(request(span(resource=resource)))).service == "unknown_service"


def test_values_nested_as_deep_as_protobuf_takes_them() -> None:
    message = raw()
    value = message.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="deep").value
    for _ in range(40):
        value = value.array_value.values.add()
    value.int_value = 7
    row = only(ingest(ExportTraceServiceRequest.FromString(message.SerializeToString())))
    assert tag("deep", "[" * 40 + "7" + "]" * 40) in row.tags


def test_any_bytes_that_protobuf_takes_are_handled() -> None:
    """Random damage to a request: each span of what is still a request is taken or refused."""
    chance = random.Random(7)
    body = request(
        span(attributes={"a": ("x", 1, {"b": b"z"})}, events=(EventRecord("e", 1, {"k": "v"}),)),
        span(2, 2, links=(LinkRecord("ab" * 16, "cd" * 8),)),
    ).SerializeToString()
    decoded = 0
    for _ in range(3000):
        damaged = bytearray(body)
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        message = ExportTraceServiceRequest()
        try:
            message.ParseFromString(bytes(damaged))
        except Exception:
            continue
        decoded += 1
        spans = sum(len(s.spans) for r in message.resource_spans for s in r.scope_spans)
        ingested = ingest(message)
        taken = sum(len(part.rows) for part in ingested.parts)
        assert taken + sum(ingested.refused.values()) == spans
    assert decoded > 100
