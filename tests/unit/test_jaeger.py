"""SpanRecords as Jaeger's JSON, and back. What a real Jaeger writes is compared in tests/integration/test_viewer.py."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from k8s_tracing.errors import JaegerJsonError
from k8s_tracing.jaeger import WARNINGS, as_text, to_json
from k8s_tracing.jaeger_reader import from_json, read_json
from k8s_tracing.record import EventRecord, LinkRecord, SpanRecord

START_NS = 1_800_000_000_000_000_000
ROOT = SpanRecord(
    trace_id="0102030405060708090a0b0c0d0e0f10",
    span_id="00f067aa0ba902b7",
    name="root",
    start_time_ns=START_NS,
    end_time_ns=START_NS + 9_000_000,
    resource={"service.name": "web"},
)
#: All that Jaeger's JSON can hold: whole microseconds, no lists or maps, no counts of what was dropped.
FULL = SpanRecord(
    trace_id=ROOT.trace_id,
    span_id="f1f2f3f4f5f6f7f8",
    parent_span_id=ROOT.span_id,
    name="GET /",
    kind="SERVER",
    start_time_ns=START_NS + 1000,
    end_time_ns=START_NS + 5_000_000,
    attributes={
        "number": -(2**63),
        "ratio": 0.1,
        "raw": b"\x00\xff",
        "safe": 2**53 - 1,
        "text": "é<b>",
        "truth": False,
        "unsafe": 2**53,
        "without an end": math.inf,
    },
    status="ERROR",
    status_message="no",
    events=(EventRecord("e", 5000, {"a": 1}), EventRecord("", 6000)),
    links=(
        LinkRecord("ab" * 16, "cd" * 8),
        LinkRecord("0" * 16 + "ab" * 8, "ce" * 8, {"opentracing.ref_type": "child_of"}),
    ),
    resource={"service.name": "shop", "process.pid": 7},
    scope_name="scope",
    scope_version="1",
    trace_state="vendor=1",
)


def written(*spans: SpanRecord) -> list[dict[str, Any]]:
    """The spans of one trace as they stand in the JSON, which strict parsers must accept."""
    content = to_json(spans)
    json.dumps(content, allow_nan=False)
    (trace,) = content["data"]
    return trace["spans"]


def test_what_was_written_is_read() -> None:
    assert from_json(json.loads(json.dumps(to_json([ROOT, FULL])))) == [ROOT, FULL]


def test_traces_in_the_order_of_their_first_spans() -> None:
    other = replace(ROOT, trace_id="0" * 31 + "1")
    content = to_json([FULL, other, ROOT])
    assert [trace["traceID"] for trace in content["data"]] == [FULL.trace_id, "0" * 15 + "1"]
    assert from_json(content) == [FULL, ROOT, other]


def test_a_process_stands_once() -> None:
    (trace,) = to_json([FULL, ROOT, replace(FULL, span_id="1" * 16)])["data"]
    assert [span["processID"] for span in trace["spans"]] == ["p1", "p2", "p1"]
    assert {key: each["serviceName"] for key, each in trace["processes"].items()} == {
        "p1": "shop",
        "p2": "web",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("plain <&>", "plain <&>"),
        (b"\x00\xff", "AP8="),
        (True, "true"),
        (2**60, "1152921504606846976"),
        (1.0, "1"),
        (-0.0, "-0"),
        (0.1, "0.1"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (-1.5e300, "-1.5e+300"),
        (0.000001, "0.000001"),
        (-0.00001234, "-0.00001234"),
        (1e-7, "1e-7"),
        (1.25e-10, "1.25e-10"),
        ((), "[]"),
        (("<", 1.0, None, b"x"), '["\\u003c",1,null,"eA=="]'),
        ({"b": (), "a": {"é": False}}, '{"a":{"é":false},"b":[]}'),
    ],
)
def test_values_as_text_are_those_of_go(value: Any, text: str) -> None:
    assert as_text(value) == text


def test_times_are_microseconds_and_a_span_never_ends_before_its_start() -> None:
    (span,) = written(replace(ROOT, start_time_ns=START_NS + 1999, end_time_ns=START_NS))
    assert (span["startTime"], span["duration"]) == (START_NS // 1000 + 1, 0)
    assert span["warnings"] == ["the span ends 1999 ns before its start"]


def test_a_parent_that_is_elsewhere_is_a_warning() -> None:
    child = replace(ROOT, span_id="1" * 16, parent_span_id="2" * 16)
    assert written(child)[0]["warnings"] == ["the parent span 2222222222222222 is not in the trace"]


def test_warnings_are_kept_apart_from_tags_and_are_read_back() -> None:
    warned = replace(ROOT, attributes={WARNINGS: ("a", "b")})
    (span,) = written(warned)
    assert span["warnings"] == ["a", "b"]
    assert WARNINGS not in {tag["key"] for tag in span["tags"]}
    assert from_json(to_json([warned])) == [warned]


def test_a_link_to_the_parent_says_how_it_is_referred_to() -> None:
    child = replace(FULL, links=(LinkRecord(ROOT.trace_id, ROOT.span_id),))
    span = written(ROOT, child)[1]
    assert [each["refType"] for each in span["references"]] == ["FOLLOWS_FROM"]
    assert from_json(to_json([ROOT, child]))[1].parent_span_id == ROOT.span_id


def test_a_link_to_nowhere_is_left_out_with_a_warning() -> None:
    (span,) = written(replace(ROOT, links=(LinkRecord("", ""), LinkRecord("0" * 32, "1" * 16))))
    assert span["references"] == []
    assert span["warnings"] == ["links without a trace id, left out: 2"]


def test_the_name_of_an_event_is_its_first_field() -> None:
    events = (EventRecord("e", 1000, {"a": 1, "z": 2}), EventRecord("e", 1000, {"event": "own"}))
    (span,) = written(replace(ROOT, events=events))
    fields = [[tag["key"] for tag in log["fields"]] for log in span["logs"]]
    assert fields == [["event", "a", "z"], ["event"]]
    assert span["logs"][1]["fields"][0]["value"] == "own"


def test_spans_of_older_clients() -> None:
    old = {
        "traceID": "AB",
        "spanID": "c",
        "parentSpanID": "D",
        "operationName": "op",
        "startTime": 1.5,
        "duration": 2,
        "tags": [
            {"key": "error", "value": "true"},
            {"key": "span.kind", "type": "string", "value": "client"},
            {"key": "otel.library.name", "value": "lib"},
            {"key": "n", "type": "int64", "value": "7"},
            {"key": "wrong", "type": "int64", "value": "seven"},
            {"key": "huge", "type": "int64", "value": 2**70},
            {"key": "object", "value": {"a": [1]}},
        ],
        "process": {"serviceName": "s", "tags": []},
    }
    (span,) = from_json([{"spans": [old]}])
    assert span == SpanRecord(
        trace_id="ab".zfill(32),
        span_id="c".zfill(16),
        parent_span_id="d".zfill(16),
        name="op",
        kind="CLIENT",
        start_time_ns=1500,
        end_time_ns=3500,
        attributes={"n": 7, "wrong": "seven", "huge": str(2**70), "object": '{"a":[1]}'},
        status="ERROR",
        resource={"service.name": "s"},
        scope_name="lib",
    )


def test_the_first_child_of_goes_before_a_follows_from() -> None:
    references = [
        {"refType": "FOLLOWS_FROM", "traceID": "1", "spanID": "2"},
        {"refType": "CHILD_OF", "traceID": "9", "spanID": "3"},
        {"refType": "CHILD_OF", "traceID": "1", "spanID": "4"},
    ]
    span = {"traceID": "1", "spanID": "a", "startTime": 0, "references": references}
    (record,) = from_json({"spans": [span]})
    assert record.parent_span_id == "4".zfill(16)
    assert [link.span_id[-1] for link in record.links] == ["2", "3"]


LEAST = {"traceID": "1", "spanID": "2", "startTime": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (5, "a trace is an object that has a list `spans`"),
        ({"data": [{}]}, "a trace is an object that has a list `spans`"),
        ({"spans": [5]}, "span 0 of trace None"),
        ({"traceID": "1", "spans": [LEAST, {}]}, "span 1 of trace 1: 'traceID' is missing"),
        ({"spans": [{**LEAST, "spanID": "xyz"}]}, "'xyz' is not an id of up to 16 hex"),
        ({"spans": [{**LEAST, "spanID": "1" * 17}]}, "is not an id of up to 16 hex"),
        ({"spans": [{**LEAST, "traceID": ""}]}, "'' is not an id"),
        ({"spans": [{**LEAST, "startTime": "3"}]}, "'3' is not a time in microseconds"),
        ({"spans": [{**LEAST, "startTime": -1}]}, "-1 us is out of range"),
        ({"spans": [{**LEAST, "duration": math.nan}]}, "nan us is out of range"),
        ({"spans": [{**LEAST, "duration": 2**70}]}, "us is out of range"),
        ({"spans": [{**LEAST, "tags": 5}]}, "span 0 of trace None"),
        ({"spans": [{**LEAST, "tags": [5]}]}, "span 0 of trace None"),
        ({"spans": [{**LEAST, "references": [{}]}]}, "'traceID' is missing"),
        ({"spans": [{**LEAST, "process": 5}]}, "span 0 of trace None"),
    ],
)
def test_what_is_not_jaegers_json_says_why(content: Any, message: str) -> None:
    with pytest.raises(JaegerJsonError, match=message):
        from_json(content)


@pytest.mark.parametrize("content", [b"no", b"", b"\xff\xfe", b"[" * 100_000, b'{"data": 5}'])
def test_a_file_that_is_not_jaegers_json(tmp_path: Any, content: bytes) -> None:
    path = tmp_path / "traces.json"
    path.write_bytes(content)
    with pytest.raises(JaegerJsonError, match=r"traces\.json is not Jaeger's JSON: "):
        read_json(path)


def test_a_file_is_read(tmp_path: Any) -> None:
    path = tmp_path / "traces.json"
    path.write_text(json.dumps(to_json([ROOT, FULL])))
    assert read_json(path) == [ROOT, FULL]
