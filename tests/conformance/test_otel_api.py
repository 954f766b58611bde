"""What OpenTelemetry's specification asks of a trace API, where its own tests (test_upstream.py) do not reach."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode

from k8s_tracing import api
from k8s_tracing.backends.memory import MemoryBackend
from k8s_tracing.provider import TracerProvider
from k8s_tracing.sampling import Sampling
from k8s_tracing.settings import Limits
from tests.support.interpreter import run

REMOTE = SpanContext(
    0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, True, trace.TraceFlags(1)
)


@pytest.fixture
def backend() -> Iterator[MemoryBackend]:
    backend = MemoryBackend({}, Limits(), Sampling())
    api._use(TracerProvider(backend))
    yield backend
    api._use(None)


@pytest.fixture
def tracer(backend: MemoryBackend) -> trace.Tracer:
    return TracerProvider(backend).get_tracer("tests", "1.0", "schema", {"a": 1})


# ---- how a provider is found

READ = """
provider = trace.get_tracer_provider()
print(type(provider).__module__, [record.name for record in provider.backend.records])
"""


def test_a_provider_is_named_by_the_environment() -> None:
    printed = run(
        """
        from opentelemetry import trace
        with trace.get_tracer("tests").start_as_current_span("work"):
            trace.get_tracer("other").start_span("child").end()
        """
        + textwrap.indent(READ, " " * 8),
        OTEL_PYTHON_TRACER_PROVIDER="k8s_tracing",
        K8S_TRACING_BACKEND="memory",
    )
    assert printed == "k8s_tracing.provider ['child', 'work']\n"


def test_tracers_and_decorators_from_before_the_provider_use_it_later() -> None:
    printed = run(
        """
        from opentelemetry import trace
        tracer = trace.get_tracer("early")
        with tracer.start_as_current_span("lost") as span:
            assert not span.is_recording()

        @tracer.start_as_current_span("decorated")
        def work():
            with tracer.start_as_current_span("inner") as span:
                return span

        import k8s_tracing
        k8s_tracing.init("service", backend="memory")
        span = work()
        assert span.parent is not None
        tracer.start_span("late").end()
        """
        + textwrap.indent(READ, " " * 8)
    )
    assert printed == "k8s_tracing.provider ['inner', 'decorated', 'late']\n"


def test_the_context_and_the_provider_are_both_named_by_the_environment() -> None:
    printed = run(
        """
        from opentelemetry import baggage, context, trace
        print(type(context._RUNTIME_CONTEXT).__module__)
        token = context.attach(baggage.set_baggage("key", "value"))
        with trace.get_tracer("tests").start_as_current_span("work") as span:
            assert trace.get_current_span() is span
            assert baggage.get_baggage("key") == "value"
        context.detach(token)
        """
        + textwrap.indent(READ, " " * 8),
        OTEL_PYTHON_CONTEXT="k8s_tracing",
        OTEL_PYTHON_TRACER_PROVIDER="k8s_tracing",
        K8S_TRACING_BACKEND="memory",
    )
    assert printed == "k8s_tracing.context\nk8s_tracing.provider ['work']\n"


# ---- every argument


@pytest.mark.parametrize("by_position", [True, False])
@pytest.mark.parametrize("method", ["start_span", "start_as_current_span"])
def test_every_argument_by_position_and_by_name(
    backend: MemoryBackend, tracer: Any, method: str, by_position: bool
) -> None:
    given: dict[str, Any] = {
        "name": "work",
        "context": trace.set_span_in_context(NonRecordingSpan(REMOTE)),
        "kind": SpanKind.CONSUMER,
        "attributes": {"a": 1},
        "links": [Link(SpanContext(1, 2, False), {"l": 1})],
        "start_time": 1_700_000_000_000_000_000,
        "record_exception": False,
        "set_status_on_exception": False,
    }
    start = getattr(tracer, method)
    span = start(*given.values()) if by_position else start(**given)
    with pytest.raises(ValueError, match="x"), span:
        raise ValueError("x")
    [record] = backend.records
    assert record.name == "work"
    assert record.trace_id == f"{REMOTE.trace_id:032x}"
    assert record.parent_span_id == f"{REMOTE.span_id:016x}"
    assert record.kind == "CONSUMER"
    assert dict(record.attributes) == {"a": 1}
    assert [dict(link.attributes) for link in record.links] == [{"l": 1}]
    assert record.start_time_ns == 1_700_000_000_000_000_000
    assert (record.status, record.events) == ("UNSET", ())


def test_an_empty_context_makes_a_root_also_within_a_span(
    backend: MemoryBackend, tracer: trace.Tracer
) -> None:
    with tracer.start_as_current_span("outer"):
        with tracer.start_as_current_span("root", context=Context()) as root:
            assert trace.get_current_span() is root
        tracer.start_span("child").end()
    root_record, child, outer = backend.records
    assert root_record.parent_span_id == ""
    assert root_record.trace_id != outer.trace_id
    assert child.parent_span_id == outer.span_id


def test_a_span_stays_open_where_it_is_not_to_end_on_exit(
    backend: MemoryBackend, tracer: trace.Tracer
) -> None:
    with tracer.start_as_current_span("work", end_on_exit=False) as span:
        pass
    assert span.is_recording()
    assert backend.records == []
    span.end()
    assert not span.is_recording()
    assert len(backend.records) == 1


def test_a_coroutine_function_can_be_decorated(
    backend: MemoryBackend, tracer: trace.Tracer
) -> None:
    @tracer.start_as_current_span("work")
    async def work() -> trace.Span:
        await asyncio.sleep(0)
        return trace.get_current_span()

    async def main() -> list[trace.Span]:
        return await asyncio.gather(work(), work())

    first, second = asyncio.run(main())
    assert first is not second
    assert [record.name for record in backend.records] == ["work", "work"]


# ---- spans of others


def test_a_non_recording_span_only_passes_its_context_on(
    backend: MemoryBackend, tracer: trace.Tracer
) -> None:
    wrapped = NonRecordingSpan(REMOTE)
    with trace.use_span(wrapped):
        assert trace.get_current_span() is wrapped
        with tracer.start_as_current_span("work") as span:
            assert span.get_span_context().trace_id == REMOTE.trace_id
        assert trace.get_current_span() is wrapped
    assert backend.records[0].parent_span_id == f"{REMOTE.span_id:016x}"


def test_use_span_records_what_is_raised_and_ends_if_it_is_told(
    backend: MemoryBackend, tracer: trace.Tracer
) -> None:
    span = tracer.start_span("work")
    with trace.use_span(span):
        assert trace.get_current_span() is span
    assert span.is_recording()
    with pytest.raises(ValueError, match="x"), trace.use_span(span, end_on_exit=True):
        raise ValueError("x")
    [record] = backend.records
    assert (record.status, record.status_message) == ("ERROR", "ValueError: x")
    assert [event.name for event in record.events] == ["exception"]


def test_an_instrumentation_may_attach_and_detach_across_our_spans(
    backend: MemoryBackend, tracer: trace.Tracer
) -> None:
    """As hooks of libraries do, which begin in one function and end in another."""
    server = tracer.start_span("server")
    first = context.attach(trace.set_span_in_context(server))
    with tracer.start_as_current_span("handler"):
        client = tracer.start_span("client")
        second = context.attach(trace.set_span_in_context(client))
        third = context.attach(baggage.set_baggage("key", "value"))
        tracer.start_span("innermost").end()
        context.detach(third)
        context.detach(second)
        client.end()
    context.detach(first)
    server.end()
    records = {record.name: record for record in backend.records}
    for child, parent in (
        ("handler", "server"),
        ("client", "handler"),
        ("innermost", "client"),
    ):
        assert records[child].parent_span_id == records[parent].span_id
    assert not trace.get_current_span().get_span_context().is_valid


# ---- a span's life


def test_what_is_told_a_span_that_has_ended_changes_nothing(
    backend: MemoryBackend, tracer: trace.Tracer
) -> None:
    span: Any = tracer.start_span("work", attributes={"a": 1})

    def facts() -> tuple[object, ...]:
        status = span.status.status_code
        return span.name, span.attributes, span.events, span.links, status, span.end_time

    span.end(1_900_000_000_000_000_000)
    before = facts()
    span.set_attribute("b", 2)
    span.set_attributes({"b": 2})
    span.add_event("event")
    span.add_link(REMOTE)
    span.record_exception(ValueError("x"))
    span.set_status(StatusCode.ERROR)
    span.update_name("other")
    span.end()
    with span:
        pass
    assert facts() == before
    assert span.get_span_context().is_valid
    assert len(backend.records) == 1


def test_a_child_may_start_and_end_after_its_parent_has_ended(
    backend: MemoryBackend, tracer: trace.Tracer
) -> None:
    parent = tracer.start_span("parent")
    parent.end()
    tracer.start_span("child", trace.set_span_in_context(parent)).end()
    first, second = backend.records
    assert second.parent_span_id == first.span_id


def test_a_tracer_is_the_same_for_the_same_scope_and_has_all_of_it(tracer: Any) -> None:
    scope = tracer.start_span("work").instrumentation_scope
    assert (scope.name, scope.version, scope.schema_url) == ("tests", "1.0", "schema")
    assert dict(scope.attributes) == {"a": 1}


def test_ids_are_valid_random_and_differ(tracer: trace.Tracer) -> None:
    contexts = [tracer.start_span("work").get_span_context() for _ in range(1000)]
    assert all(span_context.is_valid for span_context in contexts)
    assert not any(span_context.is_remote for span_context in contexts)
    assert len({span_context.trace_id for span_context in contexts}) == 1000
    assert len({span_context.span_id for span_context in contexts}) == 1000
    for bit in range(128):  # each bit is set in about half of them
        ones = sum(span_context.trace_id >> bit & 1 for span_context in contexts)
        assert 350 < ones < 650
