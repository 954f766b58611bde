"""OTLP requests and OTLP JSON lines <-> SpanRecords."""

import json

import pytest

from k8s_tracing.errors import OtlpError
from k8s_tracing.otlp import parse_request, read_json_lines, to_json_line, to_request
from k8s_tracing.record import EventRecord, LinkRecord, SpanRecord

FULL = SpanRecord(
    trace_id="0102030405060708090a0b0c0d0e0f10",
    span_id="f1f2f3f4f5f6f7f8",
    parent_span_id="00f067aa0ba902b7",
    name="GET /",
    kind="SERVER",
    start_time_ns=1_800_000_000_000_000_001,
    end_time_ns=1_800_000_000_000_000_002,
    attributes={
        "text": "é",
        "empty": "",
        "truth": False,
        "number": -(2**63),
        "ratio": 0.1,
        "raw": b"\x00\xff",
        "list": (1, 2),
        "empty list": (),
        "map": {"nested": {"deep": (True, "x")}},
        "nothing": None,
        "traceId": "not an id",
    },
    status="ERROR",
    status_message="no",
    events=(EventRecord("e", 5, {"a": 1}, 2), EventRecord("f", 6)),
    links=(LinkRecord("ab" * 16, "cd" * 8, {"b": 2}, "v=1", 1, 3),),
    resource={"service.name": "shop", "process.pid": 7},
    scope_name="scope",
    scope_version="1",
    trace_state="vendor=1",
    flags=0x101,
    dropped_attributes=1,
    dropped_events=2,
    dropped_links=3,
)
LEAST = SpanRecord(
    trace_id="00000000000000000000000000000001",
    span_id="0000000000000002",
    name="",
    start_time_ns=0,
    end_time_ns=0,
    flags=0,
)


def test_a_record_survives_the_wire():
    assert parse_request(to_request([FULL, LEAST])) == [FULL, LEAST]


def test_a_record_survives_json_lines(tmp_path):
    path = tmp_path / "spans.jsonl"
    lines = [to_json_line(to_request([span])) for span in (FULL, LEAST)]
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    assert read_json_lines(path) == [FULL, LEAST]


def test_json_is_otlp_json():
    """Ids are hexadecimal, enumerations numbers, 64-bit numbers texts, names in camelCase."""
    line = to_json_line(to_request([FULL]))
    assert "\n" not in line
    (group,) = json.loads(line)["resourceSpans"]
    (span,) = group["scopeSpans"][0]["spans"]
    assert span["traceId"] == FULL.trace_id
    assert span["spanId"] == FULL.span_id
    assert span["parentSpanId"] == FULL.parent_span_id
    assert span["links"][0]["traceId"] == "ab" * 16
    assert span["links"][0]["spanId"] == "cd" * 8
    assert (span["kind"], span["status"]["code"]) == (2, 2)
    assert span["startTimeUnixNano"] == "1800000000000000001"
    assert span["droppedAttributesCount"] == 1


def test_grouped_by_resource_and_scope():
    other = SpanRecord(**{name: getattr(FULL, name) for name in FULL.__slots__})
    groups = json.loads(to_json_line(to_request([FULL, LEAST, other])))["resourceSpans"]
    assert [len(group["scopeSpans"][0]["spans"]) for group in groups] == [2, 1]


def test_json_that_others_write(tmp_path):
    """Ids in capitals, fields that are not known here, and missing ones."""
    path = tmp_path / "spans.jsonl"
    span = {"traceId": "AB" * 16, "spanId": "CD" * 8, "kind": 9, "newField": 1}
    path.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}))
    (record,) = read_json_lines(path)
    assert (record.trace_id, record.kind, record.parent_span_id) == ("ab" * 16, "INTERNAL", "")


@pytest.mark.parametrize(
    "line",
    [
        "no",
        "[]",
        "{",
        '{"resourceSpans": 5}',
        '{"resourceSpans": [5]}',
        '{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}',
        '{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": 5}]}]}]}',
        '{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": 5}]}]}]}',
    ],
)
def test_what_is_not_otlp_json_says_where(tmp_path, line):
    path = tmp_path / "spans.jsonl"
    path.write_text('{"resourceSpans": []}\n' + line)
    with pytest.raises(OtlpError, match=r"spans\.jsonl:2 is not OTLP JSON: "):
        read_json_lines(path)


def test_what_is_not_text_says_so(tmp_path):
    path = tmp_path / "spans.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OtlpError, match="not OTLP JSON"):
        read_json_lines(path)


@pytest.mark.parametrize("function", [parse_request, to_json_line])
def test_bytes_that_are_no_request(function):
    with pytest.raises(OtlpError, match="not an OTLP request"):
        function(b"\xff\xff\xff")
