"""The viewer beside a real Jaeger: the same spans, the same answers. And the viewer as a program."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from k8s_tracing.agent.otlp_grpc import METHOD
from k8s_tracing.jaeger import WARNINGS, as_text, to_json
from k8s_tracing.otlp import to_json_line, to_request
from k8s_tracing.record import EventRecord, LinkRecord, SpanRecord
from tests.support.jaeger import Jaeger, flat_attributes, flat_spans
from tests.support.viewer import Viewer
from tests.support.wait import wait_for

NOW_NS = time.time_ns()
TRACE_ID = "0123456789abcdef" * 2
LINKED = LinkRecord("ab" * 16, "cd" * 8, {"b": 2})
AS_CHILD = LinkRecord("0" * 16 + "ab" * 8, "ce" * 8, {"opentracing.ref_type": "child_of"})

ROOT = SpanRecord(
    trace_id=TRACE_ID,
    span_id="f1f2f3f4f5f6f7f8",
    name="GET /<b>&é",
    kind="SERVER",
    start_time_ns=NOW_NS - 1001,
    end_time_ns=NOW_NS + 5_000_123,
    attributes={
        WARNINGS: ("first", "second"),
        "text": "é<b>\u2028",
        "empty": "",
        "truth": False,
        "number": -(2**63),
        "safe": 2**53 - 1,
        "unsafe": 2**53,
        "ratio": 0.1,
        "whole": 1.0,
        "tiny": 1.5e-9,
        "large": 1e21,
        "raw": b"\x00\xff",
        "list": ("a", 1, 2.5, 3.0, True, None, b"q", (), {"x": 1}),
        "map": {"b": 1e-7, "a": "<&>\n\u2029", "h": 2**60, "c": b"xy", "n": None, "small": 0.00001},
        "nothing": None,
        "service.name": "not the resource's",
    },
    status="ERROR",
    status_message="no",
    events=(
        EventRecord("e", NOW_NS + 5, {"z": 1, "a": 1}, 2),
        EventRecord("named twice", NOW_NS + 6, {"event": "own", "b": 1}),
        EventRecord("", NOW_NS + 1001),
    ),
    links=(LINKED, AS_CHILD),
    resource={"service.name": "golden-shop", "process.pid": 7},
    scope_name="scope",
    scope_version="1",
    trace_state="vendor=1",
)
CHILD = SpanRecord(
    trace_id=TRACE_ID,
    span_id="0000000000000abc",
    parent_span_id=ROOT.span_id,
    name="query",
    kind="CLIENT",
    start_time_ns=NOW_NS + 1,
    end_time_ns=NOW_NS + 1_000_999,
    status="OK",
    resource={"service.name": "golden-db", "": "no key"},
    links=(LINKED, LinkRecord(TRACE_ID, ROOT.span_id)),
)
LOST_PARENT = replace(
    CHILD, span_id="0000000000000abd", parent_span_id="1" * 16, links=(LinkRecord("", ""),)
)
SAME_PROCESS = replace(
    ROOT,
    span_id="0000000000000abe",
    parent_span_id=CHILD.span_id,
    start_time_ns=NOW_NS + 2,
    end_time_ns=NOW_NS + 3,
)
BACKWARDS = replace(
    CHILD, span_id="0000000000000abf", start_time_ns=NOW_NS + 10_000, end_time_ns=NOW_NS
)
GOLDEN = [ROOT, CHILD, LOST_PARENT, SAME_PROCESS, BACKWARDS]


def send(otlp_http_endpoint: str, spans: list[SpanRecord]) -> None:
    answer = requests.post(
        f"{otlp_http_endpoint}/v1/traces",
        to_request(spans),
        headers={"Content-Type": "application/x-protobuf"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def golden_jaeger(jaeger: Jaeger) -> Jaeger:
    """A Jaeger that has been sent the golden spans."""
    send(jaeger.otlp_http_endpoint, GOLDEN)
    return jaeger


@pytest.fixture(scope="module")
def golden_viewer() -> Iterator[Viewer]:
    """A viewer that has been sent them."""
    with Viewer() as viewer:
        send(viewer.otlp_http_endpoint, GOLDEN)
        yield viewer


def normal(trace: dict[str, Any]) -> dict[str, Any]:
    """A trace without what may differ: the order of spans, the names of processes, the words of warnings.

    A span has its process in it, and a warning that Jaeger has of a span is one that we have of it.
    """
    spans = []
    for span in trace["spans"]:
        span = {**span, "process": trace["processes"][span["processID"]]}
        del span["processID"]
        span["warnings"] = len(span["warnings"] or ())
        spans.append(span)
    return {**trace, "spans": sorted(spans, key=lambda each: each["spanID"]), "processes": None}


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Span by span, so that a failure shows what differs."""
    for our_span, their_span in zip(ours.pop("spans"), theirs.pop("spans"), strict=True):
        for key in our_span.keys() | their_span.keys():
            assert (key, our_span.get(key)) == (key, their_span.get(key))
    assert ours == theirs


def test_the_codec_writes_what_jaeger_answers(golden_jaeger: Jaeger) -> None:
    url = f"{golden_jaeger.query.base_url}/api/traces/{TRACE_ID}"
    theirs, ours = requests.get(url, timeout=10).json(), to_json(GOLDEN)
    (their_trace,), (our_trace,) = theirs.pop("data"), ours.pop("data")
    assert ours == theirs
    assert_same(normal(our_trace), normal(their_trace))


@pytest.mark.parametrize("path", [f"/api/traces/{TRACE_ID}", "/api/traces?service=golden-db"])
def test_the_viewer_answers_with_the_trace_that_jaeger_answers_with(
    golden_jaeger: Jaeger, golden_viewer: Viewer, path: str
) -> None:
    theirs = requests.get(f"{golden_jaeger.query.base_url}{path}", timeout=10).json()
    ours = requests.get(f"{golden_viewer.url}{path}", timeout=10).json()
    (their_trace,), (our_trace,) = theirs.pop("data"), ours.pop("data")
    assert ours == theirs
    assert_same(normal(our_trace), normal(their_trace))


END = "&end=99999999999999999"
SEARCH = "/api/traces?service=golden-shop"


@pytest.mark.parametrize(
    "path",
    [
        f"{SEARCH}&operation=query",
        f"{SEARCH}&operation=GET%20/%3Cb%3E%26%C3%A9",
        f"{SEARCH}&minDuration=4ms",
        f"{SEARCH}&minDuration=1h",
        f"{SEARCH}&maxDuration=1ns",
        f"{SEARCH}&start=0{END}",
        f"{SEARCH}&start=0&end=5",
        f"{SEARCH}&tag=process.pid:7",
        f"{SEARCH}&tag=process.pid:8",
        *(
            f"{SEARCH}&tags=" + quote(json.dumps({key: as_text(value)}))
            for key, value in ROOT.attributes.items()
            if key != WARNINGS
        ),
        f"{SEARCH}&tags=" + quote('{"z":"1","text":"é<b>\u2028"}'),
        f"{SEARCH}&tags=" + quote('{"z":"2"}'),
        f"{SEARCH}&limit=1",
        "/api/traces?service=golden-nobody",
        "/api/operations?service=golden-shop",
        "/api/operations?service=golden-shop&spanKind=client",
        "/api/services/golden-shop/operations",
        "/api/services/golden-nobody/operations",
        "/api/dependencies?service=golden-shop",
        "/api/dependencies?service=golden-shop&endTs=5&lookback=1",
        f"/api/traces?traceID={TRACE_ID}&traceID=5",
        # and what both refuse
        "/api/traces",
        "/api/operations",
        "/api/traces/xyz",
        "/api/traces/5",
        f"/api/traces/{'1' * 33}",
        f"{SEARCH}&tags=nope",
        f"{SEARCH}&tag=nope",
        f"{SEARCH}&limit=x",
        f"{SEARCH}&start=x",
        f"{SEARCH}&minDuration=5",
        f"{SEARCH}&minDuration=5s&maxDuration=1s",
        "/api/traces?traceID=xyz",
        "/api/dependencies?endTs=x",
        "/api/v3/traces",
        "/api/v3/traces/xyz",
        "/api/v3/traces/5",
        "/api/v3/traces?query.start_time_min=x&query.start_time_max=y",
        "/api/v3/operations?service=golden-shop",
        "/api/v3/operations?service=golden-shop&span_kind=server",
        "/api/v3/operations?service=golden-nobody",
    ],
)
def test_the_viewer_answers_what_jaeger_answers(
    golden_jaeger: Jaeger, golden_viewer: Viewer, path: str
) -> None:
    theirs = requests.get(f"{golden_jaeger.query.base_url}{path}", timeout=10)
    ours = requests.get(f"{golden_viewer.url}{path}", timeout=10)
    assert ours.status_code == theirs.status_code
    assert comparable(ours.json()) == comparable(theirs.json())


def comparable(answer: Any) -> Any:
    """An answer without the words of errors, and without an order where there is none."""
    if "error" in answer:
        return answer["error"]["httpCode"]
    answer = dict(answer)
    for each in answer.get("errors") or ():
        del each["msg"]
    for key, value in answer.items():
        if isinstance(value, list):
            traces = [normal(each) if "spans" in each else each for each in value]
            answer[key] = sorted(traces, key=repr)
    return answer


def test_the_services_are_the_same(golden_jaeger: Jaeger, golden_viewer: Viewer) -> None:
    for path in ("/api/services", "/api/v3/services"):
        theirs = requests.get(f"{golden_jaeger.query.base_url}{path}", timeout=10).json()
        ours = requests.get(f"{golden_viewer.url}{path}", timeout=10).json()
        for answer in (theirs, ours):
            names = answer.pop("data", None) or answer.pop("services")
            answer["names"] = sorted(name for name in names if name.startswith("golden-"))
            answer.pop("total", None)  # Jaeger has been sent other tests' spans as well
        assert ours == theirs


def test_v3_answers_with_the_same_spans(golden_jaeger: Jaeger, golden_viewer: Viewer) -> None:
    theirs, ours = (each.query.trace(TRACE_ID) for each in (golden_jaeger, golden_viewer))
    # Jaeger writes empty objects, adds warnings, and corrects an end before its start and a link to nowhere.
    for span in (*theirs, *ours):
        span["attributes"].pop(WARNINGS, None)
        span["links"] = [each for each in span.get("links", ()) if each.get("traceId")]
        for empty in [key for key, value in span.items() if value in ({}, [], "")]:
            del span[empty]
        if int(span["endTimeUnixNano"]) <= int(span["startTimeUnixNano"]) + 1:
            del span["endTimeUnixNano"]
        span["events"] = sorted(span.get("events", ()), key=lambda each: each["timeUnixNano"])
        for event in span["events"]:
            event["attributes"] = flat_attributes(event.get("attributes"))
    by_id = lambda span: span["spanId"]  # noqa: E731
    assert sorted(ours, key=by_id) == sorted(theirs, key=by_id)


@pytest.mark.parametrize("service", ["golden-db", "golden-nobody"])
def test_v3_finds_by_both_spellings(golden_viewer: Viewer, service: str) -> None:
    found = golden_viewer.query.find(service, NOW_NS - 10**9, NOW_NS + 10**9)
    assert list(found) == ([TRACE_ID] if service == "golden-db" else [])
    url = f"{golden_viewer.url}/api/v3/traces?query.startTimeMin=1970-01-01T00:00:00Z"
    url += f"&query.startTimeMax=2200-01-01T00:00:00Z&query.serviceName={service}"
    assert requests.get(url, timeout=10).status_code == (200 if found else 404)


def test_spans_by_grpc(golden_viewer: Viewer) -> None:
    sent = replace(CHILD, trace_id="9" * 32, span_id="8" * 16)
    message = ExportTraceServiceRequest.FromString(to_request([sent, sent, CHILD]))
    message.resource_spans[0].scope_spans[0].spans[2].trace_id = b"short"
    address = golden_viewer.otlp_grpc_endpoint.removeprefix("http://")
    with grpc.insecure_channel(address) as channel:
        export = channel.unary_unary(
            METHOD,
            request_serializer=ExportTraceServiceRequest.SerializeToString,
            response_deserializer=ExportTraceServiceResponse.FromString,
        )
        answer = export(message, timeout=30)
    assert answer.partial_success.rejected_spans == 1
    assert len(golden_viewer.query.trace("9" * 32)) == 1


def test_a_page_that_listens_is_told_of_a_new_trace(golden_viewer: Viewer) -> None:
    sent = replace(ROOT, trace_id="7" * 32)
    with requests.get(f"{golden_viewer.url}/api/live", stream=True, timeout=30) as news:
        assert news.headers["content-type"].startswith("text/event-stream")
        lines = news.iter_lines(chunk_size=1)
        assert next(lines) == b": live"
        send(golden_viewer.otlp_http_endpoint, [sent])
        data = next(line for line in lines if line.startswith(b"data:"))
    found = json.loads(data.removeprefix(b"data:"))
    assert (found["traceID"], found["spans"]) == ("7" * 32, 1)


def test_a_killed_viewer_has_all_that_it_acknowledged(tmp_path: Path) -> None:
    spans = [replace(CHILD, span_id=f"{number:016x}") for number in range(1, 201)]
    with Viewer("--store", tmp_path / "store") as viewer:
        assert viewer.process is not None
        for start in range(0, 200, 20):
            send(viewer.otlp_http_endpoint, spans[start : start + 20])
        viewer.process.kill()
        viewer.process.wait()
    with Viewer("--store", tmp_path / "store") as viewer:
        assert len(viewer.query.trace(TRACE_ID)) == 200


def test_files_and_folders_are_shown(tmp_path: Path) -> None:
    otlp, jaegers = tmp_path / "otlp.jsonl", tmp_path / "jaeger.json"
    lines = [to_json_line(to_request([span])) for span in GOLDEN]
    otlp.write_text("\n".join(["", *lines, ""]))
    other = "6" * 32
    jaegers.write_text(json.dumps(to_json([replace(each, trace_id=other) for each in GOLDEN])))
    recorded = Path(__file__).parents[1] / "golden" / "relay"
    expected = [
        span
        for line in (recorded / "expected.jsonl").read_text().splitlines()
        for span in flat_spans({"result": json.loads(line)})
    ]
    with Viewer(otlp, jaegers, recorded / "recorded") as viewer:
        assert viewer.process is not None
        ended = viewer.process.poll
        wait_for("all", lambda: viewer.log().count(" spans\n") == 3 or ended() is not None, 60)
        assert ended() is None, viewer.log()
        assert len(viewer.query.trace(TRACE_ID)) == len(GOLDEN)
        assert len(viewer.query.trace(other)) == len(GOLDEN)
        for span in expected:
            found = viewer.query.trace(span["traceId"])
            assert span["spanId"] in {each["spanId"] for each in found}
    assert expected
    assert viewer.process.returncode == 0


def view(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "k8s_tracing", "view", "--port", "0", "--no-receiver"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"resourceSpans":[]}\n{"resourceSpans":5}', "traces:2 is not OTLP JSON"),
        ("no", "is not Jaeger's JSON"),
        ('{"data":[{"spans":[{}]}]}', "span 0 of trace None: 'traceID' is missing"),
    ],
)
def test_a_file_that_cannot_be_read_ends_the_viewer(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "traces").write_text(content)
    done = view(tmp_path / "traces")
    assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_missing_or_taken_says_so(golden_viewer: Viewer, tmp_path: Path) -> None:
    assert "does not exist" in view(tmp_path / "missing").stderr
    assert "no LTTng trace in" in view(tmp_path).stderr
    port = golden_viewer.url.rpartition(":")[2]
    done = view("--port", port)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in done.stderr
    grpc_port = golden_viewer.otlp_grpc_endpoint.rpartition(":")[2]
    command = [sys.executable, "-m", "k8s_tracing", "view", "--port", "0", "--otlp-http-port", "0"]
    done = subprocess.run(
        [*command, "--otlp-grpc-port", grpc_port],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"cannot listen on 127.0.0.1 port {grpc_port}" in done.stderr
