"""The viewer beside a real Jaeger: the same spans, the same answers."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import requests

from k8s_tracing.jaeger import WARNINGS, to_json
from k8s_tracing.otlp import to_request
from k8s_tracing.record import EventRecord, LinkRecord, SpanRecord
from tests.support.jaeger import Jaeger
from tests.support.viewer import Viewer

NOW_NS = time.time_ns()
TRACE_ID = f"{NOW_NS:016x}" * 2
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
