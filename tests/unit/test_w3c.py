"""Native spans' headers are those that OpenTelemetry's own propagators write."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import k8s_tracing
from k8s_tracing import api, w3c
from k8s_tracing.backends.memory import MemoryBackend
from k8s_tracing.provider import TracerProvider
from k8s_tracing.sampling import Sampling
from k8s_tracing.settings import Limits

REMOTE = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "vendor=1",
    "baggage": "session=s1",
}


@pytest.fixture(autouse=True)
def _native() -> Iterator[None]:
    api._use(TracerProvider(MemoryBackend({}, Limits(), Sampling())))
    yield
    api._use(None)


def theirs(where: Context | None = None) -> dict[str, str]:
    carrier: dict[str, str] = {}
    own = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
    own.inject(carrier, where)
    return carrier


def ours(where: Context | None = None) -> dict[str, str]:
    carrier: dict[str, str] = {}
    propagate.inject(carrier, where)
    return carrier


def test_ours_are_in_place() -> None:
    propagator = propagate.get_global_textmap()
    assert isinstance(propagator, CompositePropagator)
    assert [type(part) for part in propagator._propagators] == [
        w3c.TraceContextPropagator,
        w3c.BaggagePropagator,
    ]


@pytest.mark.parametrize(
    "remote", [{}, REMOTE, {**REMOTE, "traceparent": REMOTE["traceparent"][:-1] + "0"}]
)
def test_the_same_headers(remote: dict[str, str]) -> None:
    assert ours() == theirs() == {}
    with k8s_tracing.extracted(remote):
        assert ours() == theirs()
        with k8s_tracing.span("native"):
            assert ours() == theirs()
            assert ours(context.get_current()) == theirs()
            token = context.attach(baggage.set_baggage("k", "v"))
            assert ours() == theirs()
            assert "k=v" in ours()["baggage"]
            with k8s_tracing.span("inner"):
                assert ours() == theirs()
            context.detach(token)


def test_a_context_that_is_given_counts_and_not_the_current_one() -> None:
    with k8s_tracing.span("current"):
        assert ours(Context()) == {}
        given = trace.set_span_in_context(k8s_tracing.start_span("given"), Context())
        assert ours(given) == theirs(given)


def test_what_is_no_native_span_is_written_all_the_same() -> None:
    foreign = trace.NonRecordingSpan(trace.SpanContext(1, 2, True, trace.TraceFlags(1)))
    with trace.use_span(foreign):
        assert ours() == theirs() == {"traceparent": f"00-{1:032x}-{2:016x}-01"}


def test_a_setter_of_the_callers_is_used() -> None:
    class Upper:
        def set(self, carrier: dict[str, str], key: str, value: str) -> None:
            carrier[key.upper()] = value

    carrier: dict[str, str] = {}
    with k8s_tracing.span("native"):
        propagate.inject(carrier, setter=Upper())  # type: ignore[arg-type]
    assert set(carrier) == {"TRACEPARENT"}


def test_other_propagators_stay() -> None:
    class Mine(TraceContextTextMapPropagator):
        pass

    before = propagate.get_global_textmap()
    try:
        propagate.set_global_textmap(CompositePropagator([Mine(), W3CBaggagePropagator()]))
        w3c.install()
        propagator = propagate.get_global_textmap()
        assert isinstance(propagator, CompositePropagator)
        assert [type(part) for part in propagator._propagators] == [Mine, w3c.BaggagePropagator]
    finally:
        propagate.set_global_textmap(before)
