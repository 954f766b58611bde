"""What every backend does alike. The names of the tests are the contract."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

import k8s_tracing
from k8s_tracing.record import SpanRecord
from tests.contract.conftest import Recording

REMOTE = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "vendor=1,other=2",
    "baggage": "session=s1",
}


def one(recording: Recording) -> SpanRecord:
    [span] = recording.spans()
    return span


def by_name(recording: Recording) -> dict[str, SpanRecord]:
    return {span.name: span for span in recording.spans()}


def test_a_span_has_name_kind_times_resource_and_scope(recording: Recording) -> None:
    with k8s_tracing.span("work", kind=SpanKind.SERVER) as span:
        ids = span.get_span_context()
    record = one(recording)
    assert (record.name, record.kind, record.status) == ("work", "SERVER", "UNSET")
    assert record.trace_id == f"{ids.trace_id:032x}"
    assert record.span_id == f"{ids.span_id:016x}"
    assert record.parent_span_id == ""
    assert record.start_time_ns <= record.end_time_ns
    assert record.resource["service.name"] == "contract"
    assert record.scope_name == "k8s_tracing"


def test_a_span_within_another_is_its_child(recording: Recording) -> None:
    with k8s_tracing.span("outer"), k8s_tracing.span("inner"):
        pass
    with k8s_tracing.span("alone"):
        pass
    spans = by_name(recording)
    assert spans["inner"].parent_span_id == spans["outer"].span_id
    assert spans["inner"].trace_id == spans["outer"].trace_id
    assert spans["alone"].trace_id != spans["outer"].trace_id


def test_the_current_span_is_opentelemetrys_current_span(recording: Recording) -> None:
    before = trace.get_current_span()
    with k8s_tracing.span("work") as span:
        assert trace.get_current_span() is span
        assert k8s_tracing.current_span() is span
        assert isinstance(span, trace.Span)
    assert trace.get_current_span() is before


def test_attributes_of_every_type(recording: Recording) -> None:
    given = {
        "str": "héllo",
        "empty": "",
        "true": True,
        "false": False,
        "int": -7,
        "zero": 0,
        "big": 2**62,
        "float": 0.1,
        "strings": ["a", "b"],
        "ints": (1, 2, 3),
        "none": [],
        "mixed": [1, "a", None],
        "bytes": b"\x00\xff",
    }
    with k8s_tracing.span("work", given) as span:
        span.set_attribute("later", "x")
        span.set_attributes({"int": 8, "more": 1.5})
    attributes = dict(one(recording).attributes)
    expected = {**given, "later": "x", "int": 8, "more": 1.5}
    assert {
        key: list(v) if isinstance(v, (list, tuple)) else v for key, v in attributes.items()
    } == {key: list(v) if isinstance(v, (list, tuple)) else v for key, v in expected.items()}


@pytest.mark.parametrize("value", [object(), {"a": object()}, [object()], lambda: None])
def test_a_bad_attribute_breaks_nothing(recording: Recording, value: object) -> None:
    with k8s_tracing.span("work", {"good": 1}) as span:
        span.set_attribute("bad", value)  # type: ignore[arg-type]
        span.set_attribute("", "no key")
    attributes = one(recording).attributes  # the SDK keeps what it makes of a bad value
    assert attributes["good"] == 1
    assert "" not in attributes


def test_an_exception_is_recorded_and_goes_on(recording: Recording) -> None:
    with pytest.raises(ValueError, match="no driver"), k8s_tracing.span("work"):
        raise ValueError("no driver")
    record = one(recording)
    assert (record.status, record.status_message) == ("ERROR", "ValueError: no driver")
    [event] = record.events
    assert event.name == "exception"
    assert event.attributes["exception.type"] == "ValueError"
    assert event.attributes["exception.message"] == "no driver"
    assert "test_an_exception_is_recorded" in str(event.attributes["exception.stacktrace"])


def test_leaving_by_what_is_no_error_is_no_error(recording: Recording) -> None:
    with pytest.raises(KeyboardInterrupt), k8s_tracing.span("work"):
        raise KeyboardInterrupt
    record = one(recording)
    assert (record.status, record.events) == ("UNSET", ())


def test_status_rules(recording: Recording) -> None:
    with k8s_tracing.span("ok is final") as span:
        span.set_status(StatusCode.OK)
        span.set_status(Status(StatusCode.ERROR, "too late"))
    with k8s_tracing.span("unset is ignored") as span:
        span.set_status(StatusCode.ERROR, "broken")
        span.set_status(StatusCode.UNSET)
    spans = by_name(recording)
    assert spans["ok is final"].status == "OK"
    assert spans["unset is ignored"].status == "ERROR"
    assert spans["unset is ignored"].status_message == "broken"


def test_events_keep_their_time_and_attributes(recording: Recording) -> None:
    with k8s_tracing.span("work") as span:
        span.add_event("first", {"n": 1})
        span.add_event("given", timestamp=1_700_000_000_000_000_001)
    events = {event.name: event for event in one(recording).events}
    assert dict(events["first"].attributes) == {"n": 1}
    assert events["given"].time_ns == 1_700_000_000_000_000_001


def test_links_given_and_added(recording: Recording, tracer: trace.Tracer) -> None:
    other = SpanContext(7 << 64 | 9, 11, True, TraceFlags(1), TraceState([("a", "b")]))
    with tracer.start_as_current_span("work", links=[Link(other, {"why": "batch"})]) as span:
        span.add_link(SpanContext(1, 2, False))
    first, second = one(recording).links
    assert (first.trace_id, first.span_id) == (f"{7 << 64 | 9:032x}", f"{11:016x}")
    assert dict(first.attributes) == {"why": "batch"}
    assert (second.trace_id, second.span_id) == (f"{1:032x}", f"{2:016x}")


def test_explicit_times(recording: Recording, tracer: trace.Tracer) -> None:
    tracer.start_span("work", start_time=1_700_000_000_000_000_000).end(1_700_000_000_000_000_500)
    record = one(recording)
    assert record.start_time_ns == 1_700_000_000_000_000_000
    assert record.duration_ns == 500


def test_a_renamed_span_and_one_beside_it_that_is_not(recording: Recording) -> None:
    for number in range(3):
        with k8s_tracing.span("before") as span:
            span.update_name(f"after {number}")
        with pytest.raises(ValueError, match="x"), k8s_tracing.span(f"bad {number}"):
            raise ValueError("x" * (number + 1))
        with k8s_tracing.span(f"plain {number}"):
            pass
    spans = by_name(recording)
    assert sorted(spans) == sorted(f"{w} {n}" for w in ("after", "bad", "plain") for n in range(3))
    assert {spans[f"plain {n}"].status_message for n in range(3)} == {""}


def test_start_span_does_not_make_current(recording: Recording) -> None:
    before = trace.get_current_span()
    span = k8s_tracing.start_span("work", {"a": 1})
    assert trace.get_current_span() is before
    k8s_tracing.end_span(span)
    k8s_tracing.end_span(span)  # a second end changes nothing
    assert one(recording).name == "work"


def test_after_its_end_a_span_takes_nothing_more(recording: Recording) -> None:
    span = k8s_tracing.start_span("work")
    assert span.is_recording()
    span.end()
    assert not span.is_recording()
    span.set_attribute("late", 1)
    span.add_event("late")
    span.set_status(StatusCode.ERROR)
    span.update_name("late")
    record = one(recording)
    assert (record.name, dict(record.attributes), record.events) == ("work", {}, ())


def test_a_tracer_has_its_scope(recording: Recording, tracer: trace.Tracer) -> None:
    tracer.start_span("work").end()
    record = one(recording)
    assert (record.scope_name, record.scope_version) == ("contract.scope", "1.2")


def test_an_opentelemetry_parent_and_child_of_ours_mix(
    recording: Recording, tracer: trace.Tracer
) -> None:
    span = tracer.start_span("theirs")
    with trace.use_span(span, end_on_exit=True), k8s_tracing.span("ours"):
        pass
    spans = by_name(recording)
    assert spans["ours"].parent_span_id == spans["theirs"].span_id


def test_start_as_current_span_decorates(recording: Recording, tracer: trace.Tracer) -> None:
    @tracer.start_as_current_span("decorated", attributes={"a": 1})
    def work(number: int) -> int:
        return number + 1

    assert (work(1), work(2)) == (2, 3)
    first, second = recording.spans()
    assert first.name == second.name == "decorated"
    assert first.span_id != second.span_id
    assert dict(second.attributes) == {"a": 1}


def test_traced_functions_and_coroutines(recording: Recording) -> None:
    @k8s_tracing.traced
    def inner() -> None:
        k8s_tracing.current_span().set_attribute("seen", True)

    @k8s_tracing.traced("outer", {"a": 1})
    async def outer() -> None:
        await asyncio.sleep(0)
        inner()

    asyncio.run(outer())
    spans = by_name(recording)
    assert spans["inner"].parent_span_id == spans["outer"].span_id
    assert dict(spans["inner"].attributes) == {"seen": True}
    assert dict(spans["outer"].attributes) == {"a": 1}


def test_a_remote_trace_is_continued_and_passed_on(recording: Recording) -> None:
    with k8s_tracing.extracted(REMOTE), k8s_tracing.span("work") as span:
        assert baggage.get_baggage("session") == "s1"
        headers: dict[str, str] = {}
        k8s_tracing.inject(headers)
    record = one(recording)
    assert record.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert record.parent_span_id == "b7ad6b7169203331"
    assert record.trace_state == "vendor=1,other=2"
    span_id = f"{span.get_span_context().span_id:016x}"
    assert headers["traceparent"].startswith(f"00-{record.trace_id}-{span_id}-")
    assert headers["tracestate"] == "vendor=1,other=2"
    assert headers["baggage"] == "session=s1"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00-0-0-01",
        "ff-" + "1" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "0" * 32 + "-1234567890abcdef-01",
        "x" * 999,
    ],
)
def test_a_bad_header_starts_a_new_trace(recording: Recording, header: str) -> None:
    with k8s_tracing.extracted({"traceparent": header}), k8s_tracing.span("work"):
        pass
    assert one(recording).parent_span_id == ""


def test_what_the_caller_did_not_sample_is_not_recorded_but_passed_on(recording: Recording) -> None:
    parent = REMOTE["traceparent"][:-1] + "0"
    headers: dict[str, str] = {}
    with k8s_tracing.extracted({"traceparent": parent}), k8s_tracing.span("work") as span:
        assert not span.is_recording()
        span.set_attribute("a", 1)
        k8s_tracing.inject(headers)
    assert recording.spans() == []
    assert headers["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert headers["traceparent"].endswith("-00")


def test_baggage_and_other_context_values_survive_spans(recording: Recording) -> None:
    token = context.attach(baggage.set_baggage("customer", "123"))
    with k8s_tracing.span("outer"):
        assert baggage.get_baggage("customer") == "123"
        inner = context.attach(context.set_value("mine", 1))
        with k8s_tracing.span("inner"):
            assert baggage.get_baggage("customer") == "123"
            assert context.get_value("mine") == 1
        context.detach(inner)
    assert context.get_value("mine") is None
    context.detach(token)
    assert baggage.get_baggage("customer") is None
    assert len(recording.spans()) == 2


def test_tasks_that_interleave_keep_their_parents_apart(recording: Recording) -> None:
    async def request(number: int) -> None:
        with k8s_tracing.span(f"request {number}"):
            for step in range(3):
                await asyncio.sleep(0)
                with k8s_tracing.span(f"step {number}.{step}"):
                    await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(request(number) for number in range(10)))

    asyncio.run(main())
    spans = by_name(recording)
    assert len(spans) == 40
    for number in range(10):
        for step in range(3):
            assert (
                spans[f"step {number}.{step}"].parent_span_id == spans[f"request {number}"].span_id
            )


def test_a_task_sees_the_span_it_was_made_in_also_after_that_has_ended(
    recording: Recording,
) -> None:
    async def late() -> None:
        await asyncio.sleep(0.01)
        assert baggage.get_baggage("k") == "v"
        with k8s_tracing.span("late"):
            pass

    async def main() -> None:
        token = context.attach(baggage.set_baggage("k", "v"))
        with k8s_tracing.span("early"):
            task = asyncio.create_task(late())
        context.detach(token)
        await task

    asyncio.run(main())
    spans = by_name(recording)
    assert spans["late"].parent_span_id == spans["early"].span_id


def test_threads_begin_without_a_parent_unless_they_are_given_the_context(
    recording: Recording,
) -> None:
    def work(name: str) -> None:
        with k8s_tracing.span(name):
            pass

    with k8s_tracing.span("main"):
        thread = threading.Thread(target=work, args=("bare",))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(3) as pool:
            for number in range(6):
                pool.submit(contextvars.copy_context().run, work, f"carried {number}")
    spans = by_name(recording)
    assert spans["bare"].parent_span_id == ""
    assert {spans[f"carried {n}"].parent_span_id for n in range(6)} == {spans["main"].span_id}


def test_a_generator_closed_in_another_context_harms_nobody(
    recording: Recording, caplog: pytest.LogCaptureFixture
) -> None:
    def numbers() -> object:
        with k8s_tracing.span("generator"):
            yield 1

    generator = numbers()
    contextvars.copy_context().run(next, generator)  # type: ignore[arg-type]
    with k8s_tracing.span("here") as here:
        generator.close()  # type: ignore[attr-defined]
        assert trace.get_current_span() is here
    assert set(by_name(recording)) == {"generator", "here"}
