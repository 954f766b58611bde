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


@pytest.mark.parametrize(
    "header",
    [
        REMOTE["traceparent"],
        REMOTE["traceparent"].upper(),
        " " + REMOTE["traceparent"],
        REMOTE["traceparent"] + "-x",
        "01" + REMOTE["traceparent"][2:] + "-x",
        "01" + REMOTE["traceparent"][2:],
        "ff" + REMOTE["traceparent"][2:],
        REMOTE["traceparent"][:-2] + "ff",
        REMOTE["traceparent"].replace("-", "_"),
        REMOTE["traceparent"][:-1],
        REMOTE["traceparent"][:-1] + "é",
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
    ],
)
@pytest.mark.parametrize("state", [None, "a=1", "a=1,b=2", "=", "x" * 600])
@pytest.mark.parametrize("below", [None, Context({"mine": 1})])
def test_the_same_span_is_read(header: str, state: str | None, below: Context | None) -> None:
    carrier = {"traceparent": header} | ({"tracestate": state} if state is not None else {})
    mine = w3c.TraceContextPropagator().extract(carrier, below)
    other = TraceContextTextMapPropagator().extract(carrier, below)
    read = trace.get_current_span(mine).get_span_context()
    assert read == trace.get_current_span(other).get_span_context()
    assert mine.get("mine") == other.get("mine")


def test_a_remote_span_can_only_be_a_parent() -> None:
    remote = trace.get_current_span(propagate.extract({"traceparent": REMOTE["traceparent"]}))
    assert isinstance(remote, trace.Span)
    assert not remote.is_recording()
    remote.set_attribute("a", 1)
    remote.add_event("e")
    remote.update_name("n")
    remote.set_status(trace.StatusCode.ERROR)
    remote.record_exception(ValueError())
    remote.end()
    assert "0af7651916cd43dd8448eb211c80319c" in repr(remote)
    assert remote.get_span_context().is_remote
    with trace.use_span(remote), k8s_tracing.span("child") as child:
        assert child.parent == remote.get_span_context()  # type: ignore[attr-defined]


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


HEADERS = [
    "",
    "k=v",
    " k = v , k2=v%20w;meta=1 ",
    "k=v,k=w",
    "k=v,,bad,=x,k3=a b",
    "k=%C3%A9",
    "k=" + "v" * 1100,
    "k=" + "v" * 9000,
]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("below", [None, Context({"mine": 1}), baggage.set_baggage("old", "1")])
def test_the_same_baggage_is_read_again_and_again(header: str, below: Context | None) -> None:
    propagator = w3c.BaggagePropagator()
    other = W3CBaggagePropagator().extract({"baggage": header}, below)
    for _ in range(2):
        assert propagator.extract({"baggage": header}, below) == other
    assert propagator.extract({}, below) == W3CBaggagePropagator().extract({}, below)


def test_baggage_that_is_added_to_what_was_read_stays_where_it_was_added() -> None:
    propagator = w3c.BaggagePropagator()
    first = propagator.extract({"baggage": "k=v"}, Context())
    assert baggage.get_all(baggage.set_baggage("more", "1", first)) == {"k": "v", "more": "1"}
    assert baggage.get_all(propagator.extract({"baggage": "k=v"}, Context())) == {"k": "v"}


def test_the_same_baggage_is_written_however_much_of_it_there_was() -> None:
    propagator = w3c.BaggagePropagator()
    for number in range(3 * w3c._REMEMBERED):
        carried = baggage.set_baggage("k", f"v {number}")
        for _ in range(2):
            carrier: dict[str, str] = {}
            propagator.inject(carrier, carried)
            assert carrier == {"baggage": f"k=v+{number}"}
    assert len(propagator._written) <= w3c._REMEMBERED
