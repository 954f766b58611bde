"""The trace events of spans: nesting, processes, arrows, times."""

import json
from pathlib import Path
from typing import Any

from k8s_tracing.otlp import read_json_lines
from k8s_tracing.record import EventRecord, LinkRecord, SpanRecord
from k8s_tracing.report.perfetto import write

HOTROD = Path(__file__).parents[2] / "golden/report/hotrod.jsonl"
BEGIN = 1_800_000_000_000_000_001


def span(
    number: int, start: int, end: int, parent: int = 0, service: str = "a", **more: Any
) -> SpanRecord:
    return SpanRecord(
        trace_id="ab" * 16,
        span_id=f"{number:016x}",
        name=f"span {number}",
        start_time_ns=BEGIN + start,
        end_time_ns=BEGIN + end,
        parent_span_id=f"{parent:016x}" if parent else "",
        resource={"service.name": service, "process.pid": 7},
        **more,
    )


def events(*spans: SpanRecord) -> list[dict[str, Any]]:
    content = json.loads("".join(write([list(spans)] if spans else [])))
    assert content["otherData"] == ({"start_time_unix_ns": str(BEGIN)} if spans else {})
    found: list[dict[str, Any]] = content["traceEvents"]
    return found


def of(kind: str, found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {event["name"]: event for event in found if event["ph"] == kind}


def assert_nested(found: list[dict[str, Any]]) -> None:
    """Slices of a thread are one after another, or one within another."""
    threads: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in found:
        if event["ph"] == "X":
            place = threads.setdefault((event["pid"], event["tid"]), [])
            place.append((event["ts"], event["ts"] + event["dur"]))
    for slices in threads.values():
        for number, (start, end) in enumerate(slices):
            for other_start, other_end in slices[number + 1 :]:
                assert start <= other_start
                assert other_start >= end - 1e-3 or other_end <= end + 1e-3


def test_times_are_exact() -> None:
    (event,) = of("X", events(span(1, 0, 1_234_567))).values()
    assert (event["ts"], event["dur"]) == (0, 1234.567)


def test_what_a_slice_says() -> None:
    link = LinkRecord("cd" * 16, "ef" * 8)
    attributes = {"n": 1, "bytes": b"\xff", "list": (1.5, None), "nan": float("nan")}
    one = span(1, 0, 10, attributes=attributes, status="ERROR", status_message="no", links=(link,))
    arguments = of("X", events(one))["span 1"]["args"]
    assert arguments["status"] == "ERROR no"
    assert arguments["links"] == [f"{'cd' * 16}/{'ef' * 8}"]
    assert [arguments[name] for name in attributes] == [1, "ff", [1.5, None], "nan"]


def test_services_are_processes_and_traces_threads() -> None:
    found = events(span(1, 0, 100), span(2, 10, 50, parent=1, service="b"))
    names = [event["args"]["name"] for event in found if event["name"].endswith("_name")]
    assert names == ["a (7)", "trace abababab", "b (7)", "trace abababab"]
    slices = of("X", found)
    assert slices["span 1"]["pid"] != slices["span 2"]["pid"]


def test_what_overlaps_gets_a_thread_of_its_own() -> None:
    spans = [span(1, 0, 100), span(2, 10, 60, 1), span(3, 20, 80, 1), span(4, 60, 70, 1)]
    found = events(*spans, span(5, 100, 110))
    assert_nested(found)
    threads = {name: event["tid"] for name, event in of("X", found).items()}
    assert threads["span 1"] == threads["span 2"] == threads["span 5"] != threads["span 3"]
    names = [event["args"].get("name") for event in found if event["ph"] == "M"]
    assert "trace abababab (2)" in names


def test_arrows_lead_to_other_processes_only() -> None:
    spans = [
        span(1, 0, 100),
        span(2, 10, 50, 1),
        span(3, 20, 120, 2, "b"),
        span(4, 200, 210, 1, "c"),
    ]
    arrows = [event for event in events(*spans) if event["ph"] in "sf"]
    assert [(event["ph"], event["id"], event["pid"], event["ts"]) for event in arrows] == [
        ("s", 1, 1, 0.02),
        ("f", 1, 2, 0.02),
        ("s", 2, 1, 0.1),
        ("f", 2, 3, 0.2),
    ]
    assert all(event["bp"] == "e" for event in arrows if event["ph"] == "f")


def test_events_are_instants() -> None:
    found = events(span(1, 0, 100, events=(EventRecord("retry", BEGIN + 50, {"n": 2}),)))
    event = of("i", found)["retry"]
    assert (event["ts"], event["args"]) == (0.05, {"n": 2})


def test_a_real_trace() -> None:
    spans = read_json_lines(HOTROD)
    ordered = sorted(spans, key=lambda span: span.start_time_ns)
    found = json.loads("".join(write([ordered])))["traceEvents"]
    assert sum(event["ph"] == "X" for event in found) == len(spans)
    assert_nested(found)
    by_id = {span.span_id: span for span in spans}
    remote = [
        span
        for span in spans
        if span.parent_span_id in by_id
        and by_id[span.parent_span_id].service_name != span.service_name
    ]
    assert remote
    assert sum(event["ph"] == "s" for event in found) >= len(remote)


def test_no_traces_are_a_file_too() -> None:
    assert events() == []
