from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import k8s_tracing
from k8s_tracing.backends.memory import MemoryBackend
from k8s_tracing.otlp import parse_request
from k8s_tracing.provider import TracerProvider
from k8s_tracing.sampling import Sampling
from k8s_tracing.settings import Limits
from k8s_tracing.testing import using


@pytest.fixture
def provider() -> Iterator[TracerProvider]:
    provider = TracerProvider(MemoryBackend({"service.name": "shop"}, Limits(events=2), Sampling()))
    with using(provider):
        yield provider


def test_an_exporter_gets_the_same_span_as_the_backend(provider: TracerProvider) -> None:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    remote = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}

    @k8s_tracing.traced("work", {"a": [1, 2]})
    def work() -> None:
        span = k8s_tracing.current_span()
        span.add_link(trace.SpanContext(1, 2, True), {"l": 1})
        for number in range(3):
            span.add_event("event", {"n": number})
        raise ValueError("x")

    with k8s_tracing.extracted(remote), pytest.raises(ValueError, match="x"):
        work()
    [span] = exporter.get_finished_spans()
    assert isinstance(span, ReadableSpan)
    [exported] = parse_request(encode_spans([span]).SerializeToString())
    assert isinstance(provider.backend, MemoryBackend)
    [record] = provider.backend.records
    assert exported.dropped_events == record.dropped_events == 2
    for name in record.__slots__:
        if name not in ("flags", "attributes", "links"):
            assert getattr(exported, name) == getattr(record, name), name
    assert list(exported.attributes["a"]) == [1, 2]  # type: ignore[arg-type]


def test_a_processor_that_is_added_late_hears_of_existing_tracers(provider: TracerProvider) -> None:
    tracer = provider.get_tracer("early")
    exporter = InMemorySpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer.start_span("work").end()
    assert provider.force_flush()
    assert [span.name for span in exporter.get_finished_spans()] == ["work"]
    provider.shutdown()


def test_a_processor_may_write_to_a_span_that_starts(provider: TracerProvider) -> None:
    class Stamp(SpanProcessor):
        def on_start(self, span: Any, parent_context: Context | None = None) -> None:
            assert trace.get_current_span(parent_context) is not span
            span.set_attribute("stamp", span.name)

    provider.add_span_processor(Stamp())
    with k8s_tracing.span("work"):
        pass
    assert isinstance(provider.backend, MemoryBackend)
    assert dict(provider.backend.records[0].attributes) == {"stamp": "work"}


def test_the_console_exporter_prints_it(provider: TracerProvider) -> None:
    out = StringIO()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=out)))
    with k8s_tracing.span("work"):
        pass
    assert json.loads(out.getvalue())["name"] == "work"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_processor_that_fails_breaks_nothing(
    provider: TracerProvider, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise RuntimeError("broken")

    provider.add_span_processor(Broken())
    with caplog.at_level(logging.ERROR), k8s_tracing.span("work"):
        pass
    assert isinstance(provider.backend, MemoryBackend)
    assert [record.name for record in provider.backend.records] == ["work"]
