"""Entering and leaving a span's block: by an exception, twice, in another order, over what is no context."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import pytest
from opentelemetry import context, trace
from opentelemetry.context import Context

import k8s_tracing
from k8s_tracing import native
from k8s_tracing.backends.memory import MemoryBackend


def test_an_exception_that_cannot_be_described_is_recorded_all_the_same(
    backend: MemoryBackend,
) -> None:
    class Awkward(Exception):
        __module__ = None  # type: ignore[assignment]

        def __str__(self) -> str:
            raise ValueError("a trap")

        __repr__ = __str__

    with k8s_tracing.span("work") as span:
        span.record_exception("no exception")  # type: ignore[arg-type]
        span.record_exception(Awkward())
    with pytest.raises(Awkward), k8s_tracing.span("work"):
        raise Awkward
    record, failed = backend.records
    assert failed.status == "ERROR"
    assert len(failed.events) == 1
    assert record.events[0].attributes["exception.type"] == "str"
    name = "test_an_exception_that_cannot_be_described_is_recorded_all_the_same.<locals>.Awkward"
    assert record.events[1].attributes["exception.type"] == name
    assert record.events[1].attributes["exception.message"] == "<no text: ValueError>"


def test_a_failure_to_record_does_not_hide_the_applications_exception_or_the_status(
    backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []

    def fail(*args: object) -> NoReturn:
        raise ValueError("a trap")

    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    monkeypatch.setattr(native.Span, "record_exception", fail)
    with pytest.raises(KeyError, match="own"), k8s_tracing.span("work"):
        raise KeyError("own")
    assert [type(event.exc_value) for event in shown] == [ValueError]
    assert backend.records[0].status == "ERROR"
    assert not trace.get_current_span().get_span_context().is_valid


def test_an_interrupt_while_recording_goes_on_and_the_span_ends(
    backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(native.Span, "record_exception", interrupt)
    with pytest.raises(KeyboardInterrupt), k8s_tracing.span("work"):
        raise KeyError("own")
    assert len(backend.records) == 1
    assert not trace.get_current_span().get_span_context().is_valid


def test_exit_without_enter_or_with_odd_arguments(backend: MemoryBackend) -> None:
    span = k8s_tracing.span("work")
    assert span.__exit__(None, None, None) is None  # type: ignore[func-returns-value]
    span.__exit__()  # type: ignore[call-arg]
    span.end()
    assert backend.records == []
    with span:
        span.__exit__(1, 2, 3)  # type: ignore[arg-type]
    assert len(backend.records) == 1


def test_the_end_of_a_span_that_has_not_started_is_forgotten(backend: MemoryBackend) -> None:
    span = k8s_tracing.span("work")
    span.end(1)
    with span:
        pass
    assert backend.records[0].duration_ns >= 0


def test_a_span_can_be_entered_twice(backend: MemoryBackend) -> None:
    with k8s_tracing.span("outer") as outer:
        span = k8s_tracing.span("work", end_on_exit=False)
        with span, span:
            assert trace.get_current_span() is span
        assert trace.get_current_span() is outer
        with span:
            assert trace.get_current_span() is span
        assert trace.get_current_span() is outer
        span.end()
        with span:
            assert trace.get_current_span() is outer
    assert [record.name for record in backend.records] == ["work", "outer"]


def test_what_is_no_context_may_be_attached(backend: MemoryBackend) -> None:
    for odd in (None, 7, {}):
        token = context.attach(odd)  # type: ignore[arg-type]
        with k8s_tracing.span("work") as span:
            assert trace.get_current_span() is span
            context.get_current()
        context.detach(token)


def test_spans_left_in_another_order_than_they_were_entered(backend: MemoryBackend) -> None:
    first, second = k8s_tracing.span("first"), k8s_tracing.span("second")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not trace.get_current_span().get_span_context().is_valid
    second.__exit__(None, None, None)
    assert trace.get_current_span() is first  # as OpenTelemetry's tokens do
    context.attach(Context())
