"""What an application gives a span that it should not: it is reported, and tracing goes on."""

from __future__ import annotations

import time as clock
from typing import Any, NoReturn

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, StatusCode, TraceFlags

import k8s_tracing
from k8s_tracing.backends.memory import MemoryBackend


class Fails:
    """Every question to it is an error."""

    def _fail(self, *args: object) -> NoReturn:
        raise ValueError("a trap")

    __bool__ = __str__ = __repr__ = __iter__ = __len__ = __index__ = __getitem__ = _fail
    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> NoReturn:
        raise ValueError("a trap")


def hostile(given: Any) -> Any:
    """The class Fails stands for one of it, which pytest must not touch."""
    if isinstance(given, list):
        return [hostile(item) for item in given]
    return Fails() if given is Fails else given


def test_an_argument_whose_truth_fails_is_true(backend: MemoryBackend, tracer: Any) -> None:
    options = dict.fromkeys(("record_exception", "set_status_on_exception", "end_on_exit"), Fails())
    with pytest.raises(KeyError), tracer.start_as_current_span("work", **options):
        raise KeyError("x")
    [record] = backend.records
    assert record.status == "ERROR"
    assert len(record.events) == 1


@pytest.mark.parametrize("time", ["now", object(), Fails, 2**70, float("nan"), float("inf"), []])
def test_a_wrong_time_is_reported_and_is_now(
    backend: MemoryBackend, tracer: Any, time: object, caplog: pytest.LogCaptureFixture
) -> None:
    before, time = clock.time_ns(), hostile(time)
    span = tracer.start_span("work", start_time=time)
    span.add_event("event", timestamp=time)
    span.end(time)
    [record] = backend.records
    [event] = record.events
    assert before <= record.start_time_ns <= event.time_ns <= record.end_time_ns <= clock.time_ns()
    assert "times are int" in caplog.text


def test_a_time_may_be_a_float_or_count_as_an_int(backend: MemoryBackend, tracer: Any) -> None:
    class Like:
        def __index__(self) -> int:
            return 1_700_000_000_000_000_001

    tracer.start_span("work", start_time=1.7e18).end(Like())
    [record] = backend.records
    assert record.start_time_ns == 1_700_000_000_000_000_000
    assert record.end_time_ns == 1_700_000_000_000_000_001


@pytest.mark.parametrize(
    ("name", "expected"), [(None, "None"), (7, "7"), (Fails, "<Fails>"), (b"x", "b'x'")]
)
def test_a_name_that_is_no_str_becomes_one(
    backend: MemoryBackend, tracer: Any, name: object, expected: str
) -> None:
    name = hostile(name)
    span = tracer.start_span(name)
    assert span.name == expected
    span.update_name("good")
    span.update_name(name)
    span.add_event(name)
    span.end()
    [record] = backend.records
    assert (record.name, record.events[0].name) == (expected, expected)


@pytest.mark.parametrize(
    "links", [7, [object()], [None], Fails, [Link(None)], [Link(object())], [Fails]]
)
def test_wrong_links_are_reported_and_the_good_ones_stay(
    backend: MemoryBackend, tracer: Any, links: Any, caplog: pytest.LogCaptureFixture
) -> None:
    links = hostile(links)
    good = Link(SpanContext(1, 2, False))
    given = [good, *links, good] if isinstance(links, list) else links
    with tracer.start_as_current_span("work", links=given) as span:
        span.add_link(links)
        span.add_link(None)
    [record] = backend.records
    assert len(record.links) == (2 if isinstance(links, list) else 0)
    assert "link" in caplog.text


def test_a_link_to_nowhere_is_kept_if_it_says_something(
    backend: MemoryBackend, tracer: Any
) -> None:
    with tracer.start_as_current_span("work") as span:
        span.add_link(trace.INVALID_SPAN_CONTEXT)
        span.add_link(trace.INVALID_SPAN_CONTEXT, {"why": "unknown"})
    [record] = backend.records
    assert [dict(link.attributes) for link in record.links] == [{"why": "unknown"}]


def test_a_state_that_is_none_of_opentelemetrys_is_left_out(tracer: Any) -> None:
    class Odd:
        def __len__(self) -> int:
            return 1

        def to_header(self) -> int:
            return 7

    tracer.listen(None, lambda ended: None)
    for state in ("text", Odd()):
        context = SpanContext(1, 2, True, TraceFlags(1), state)  # type: ignore[arg-type]
        span = tracer.start_span("work", links=[Link(context)])
        span.add_link(context)
        span.end()
        assert len(span.links) == 2
        parent = trace.set_span_in_context(trace.NonRecordingSpan(context))
        with tracer.start_as_current_span("work", parent):
            if state == "text":
                k8s_tracing.inject({})


@pytest.mark.parametrize("status", [1, "ERROR", None, Fails, object()])
def test_a_wrong_status_is_ignored(backend: MemoryBackend, tracer: Any, status: Any) -> None:
    with tracer.start_as_current_span("work") as span:
        span.set_status(hostile(status))
        span.set_status(StatusCode.ERROR, 7)
    [record] = backend.records
    assert (record.status, record.status_message) == ("ERROR", "7")


@pytest.mark.parametrize("attributes", [7, "text", [("a", 1)], Fails])
def test_attributes_that_are_no_mapping_are_reported(
    backend: MemoryBackend, tracer: Any, attributes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    attributes = hostile(attributes)
    with tracer.start_as_current_span("work", attributes=attributes) as span:
        span.set_attributes(attributes)
        span.add_event("event", attributes)
        span.record_exception(KeyError("x"), attributes)
    [record] = backend.records
    assert dict(record.attributes) == {}
    assert record.events[1].attributes["exception.type"] == "KeyError"
    assert "no mapping" in caplog.text


def test_a_warning_names_the_line_of_the_application_and_comes_once(
    backend: MemoryBackend, caplog: pytest.LogCaptureFixture
) -> None:
    with k8s_tracing.span("work") as span:
        for _ in range(3):
            span.set_attribute("bad", object())  # type: ignore[arg-type]
        for _ in range(3):
            span.record_exception(KeyError("x"), {"bad": object()})  # type: ignore[dict-item]
    places = [record.getMessage().partition(": ")[0] for record in caplog.records]
    assert len(places) == 2
    assert all(place.startswith(__file__) for place in places), places


@pytest.mark.parametrize(
    "span_context",
    [
        SpanContext(2**130, 1, True),
        SpanContext(1, 2**70, True),
        SpanContext(-1, 1, True),
        SpanContext(1, -1, True),
        SpanContext(0, 1, True),
        SpanContext(1, 0, True),
    ],
    ids=repr,
)
def test_an_impossible_parent_begins_a_new_trace(
    backend: MemoryBackend, tracer: Any, span_context: SpanContext
) -> None:
    given = trace.set_span_in_context(trace.NonRecordingSpan(span_context), Context())
    tracer.start_span("work", given).end()
    [record] = backend.records
    assert record.parent_span_id == ""
    assert int(record.trace_id, 16) not in (0, 1)


def test_a_parent_that_fails_begins_a_new_trace(backend: MemoryBackend, tracer: Any) -> None:
    class Broken(trace.NonRecordingSpan):
        def get_span_context(self) -> NoReturn:
            raise ValueError("a trap")

    given = trace.set_span_in_context(Broken(trace.INVALID_SPAN_CONTEXT), Context())
    tracer.start_span("work", given).end()
    assert backend.records[0].parent_span_id == ""


def test_undefined_flags_of_a_caller_are_not_passed_on(backend: MemoryBackend, tracer: Any) -> None:
    caller = SpanContext(1, 2, True, TraceFlags(0xFF))
    given = trace.set_span_in_context(trace.NonRecordingSpan(caller), Context())
    assert tracer.start_span("work", given).get_span_context().trace_flags == 0x03
