from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind
from opentelemetry.trace.span import TraceState
from opentelemetry.util.types import Attributes

import k8s_tracing
from k8s_tracing import api
from k8s_tracing.backends.memory import MemoryBackend
from k8s_tracing.backends.noop import NoopBackend
from k8s_tracing.errors import K8sTracingError
from k8s_tracing.provider import TracerProvider
from k8s_tracing.sampling import ALL, Sampling, from_argument, from_name
from k8s_tracing.settings import Limits
from k8s_tracing.testing import using

REMOTE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"


@pytest.fixture(autouse=True)
def _afterwards() -> Iterator[None]:
    with using(TracerProvider(NoopBackend())):
        yield


def use(sampling: Sampling) -> MemoryBackend:
    backend = MemoryBackend({}, Limits(), sampling)
    api._use(TracerProvider(backend))
    return backend


@pytest.mark.parametrize(
    ("name", "argument", "sampling"),
    [
        ("always_on", "", Sampling(parent_based=False)),
        ("always_off", "", Sampling(parent_based=False, below=0)),
        ("traceidratio", "0.25", Sampling(parent_based=False, below=1 << 62)),
        ("parentbased_always_on", "", Sampling()),
        ("parentbased_always_off", "", Sampling(below=0)),
        ("Parentbased_TraceIdRatio ", "1", Sampling(below=ALL)),
        ("traceidratio", "", Sampling(parent_based=False)),
    ],
)
def test_names(name: str, argument: str, sampling: Sampling) -> None:
    assert from_name(name, argument) == sampling


@pytest.mark.parametrize(
    ("name", "argument"),
    [("sometimes", ""), ("parentbased_traceidratio", "x"), ("traceidratio", "2")],
)
def test_a_mistake_is_logged_and_every_trace_sampled(
    name: str, argument: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "k8s_tracing"):
        assert from_name(name, argument).below == ALL
    assert "OTEL_TRACES_SAMPLER" in caplog.text


@pytest.mark.parametrize("sampler", ["always_on", True, -0.1, 1.1, object()])
def test_what_init_cannot_take_is_an_error(sampler: Any) -> None:
    with pytest.raises(K8sTracingError, match="neither a share"):
        from_argument(sampler)


def test_a_share_samples_the_same_traces_as_opentelemetrys_sampler() -> None:
    backend = use(from_argument(0.3))
    theirs = TraceIdRatioBased(0.3)
    expected = []
    for _ in range(300):
        with k8s_tracing.span("work") as span:
            trace_id = span.get_span_context().trace_id
        if theirs.should_sample(None, trace_id, "work").decision.is_sampled():
            expected.append(f"{trace_id:032x}")
    assert [record.trace_id for record in backend.records] == expected
    assert 0 < len(expected) < 300


@pytest.mark.parametrize(
    ("name", "flags", "recorded"),
    [
        ("always_on", "0", True),
        ("always_off", "1", False),
        ("parentbased_always_on", "0", False),
        ("parentbased_always_off", "1", True),
    ],
)
def test_a_remote_parents_decision(name: str, flags: str, recorded: bool) -> None:
    backend = use(from_name(name, ""))
    with k8s_tracing.extracted({"traceparent": REMOTE + flags}), k8s_tracing.span("work") as span:
        assert span.is_recording() is recorded
        assert span.get_span_context().trace_flags.sampled is recorded
    assert bool(backend.records) is recorded


def test_children_of_what_is_not_sampled_are_not_sampled_and_the_trace_goes_on() -> None:
    backend = use(from_name("parentbased_always_off", ""))
    headers: dict[str, str] = {}
    with k8s_tracing.span("outer") as outer, k8s_tracing.span("inner"):
        k8s_tracing.inject(headers)
    assert backend.records == []
    assert headers["traceparent"].startswith(f"00-{outer.get_span_context().trace_id:032x}-")
    assert headers["traceparent"][-2:] in ("00", "02")


class Asked(Sampler):
    """Records what it was asked and answers as told."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.questions: list[dict[str, Any]] = []

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        parent = trace.get_current_span(parent_context).get_span_context()
        self.questions.append(
            {"parent": parent.span_id, "trace_id": trace_id, "name": name, "kind": kind}
        )
        return SamplingResult(
            self.decision, {**(attributes or {}), "by": "sampler"}, TraceState([("s", "1")])
        )

    def get_description(self) -> str:
        return "Asked"


def test_a_sampler_object_is_asked_and_may_set_attributes_and_state() -> None:
    sampler = Asked(Decision.RECORD_AND_SAMPLE)
    backend = use(from_argument(sampler))
    with (
        k8s_tracing.span("outer") as outer,
        k8s_tracing.span("inner", {"a": 1}, kind=SpanKind.CLIENT),
    ):
        pass
    context = outer.get_span_context()
    assert sampler.questions[1] == {
        "parent": context.span_id, "trace_id": context.trace_id, "name": "inner", "kind": SpanKind.CLIENT,
    }  # fmt: skip
    inner = backend.records[0]
    assert dict(inner.attributes) == {"a": 1, "by": "sampler"}
    assert inner.trace_state == "s=1"


def test_record_only_records_but_says_that_it_is_not_sampled() -> None:
    use(from_argument(Asked(Decision.RECORD_ONLY)))
    with k8s_tracing.span("work") as span:
        assert span.is_recording()
        assert not span.get_span_context().trace_flags.sampled


def test_opentelemetrys_own_samplers() -> None:
    backend = use(from_argument(ParentBased(ALWAYS_OFF)))
    with k8s_tracing.span("work") as span:
        assert not span.is_recording()
    with k8s_tracing.extracted({"traceparent": REMOTE + "1"}), k8s_tracing.span("child"):
        pass
    assert [record.name for record in backend.records] == ["child"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_sampler_that_fails_breaks_nothing() -> None:
    class Broken(Asked):
        def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
            raise RuntimeError("broken")

    backend = use(from_argument(Broken(Decision.DROP)))
    with k8s_tracing.span("work"):
        pass
    assert [record.name for record in backend.records] == ["work"]
