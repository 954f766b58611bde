"""Code of others that runs in the middle of what is done to a span: attributes, listeners, threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanContext

import k8s_tracing
from k8s_tracing.backends.memory import MemoryBackend


def test_an_attribute_may_end_the_span_it_is_set_on(backend: MemoryBackend) -> None:
    remote = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "a=b",
    }

    class Ends:
        def __str__(self) -> str:
            span.end()
            return "text"

    with k8s_tracing.extracted(remote):
        span = k8s_tracing.start_span("attribute", {"first": 1})
        span.set_attribute("key", Ends())  # type: ignore[arg-type]
        span = k8s_tracing.start_span("event", {"first": 1})
        span.add_event("event", {"key": Ends()})  # type: ignore[dict-item]
        span = k8s_tracing.start_span("link", {"first": 1})
        span.add_link(SpanContext(1, 2, False), {"key": Ends()})  # type: ignore[dict-item]
    assert len(backend.records) == 3
    for record in backend.records:
        assert dict(record.attributes) == {"first": 1}
        assert (record.events, record.links) == ((), ())
    assert dict(span.attributes) == {"first": 1}  # type: ignore[attr-defined]


def test_an_attribute_may_use_the_span_it_is_set_on(backend: MemoryBackend) -> None:
    class Busy:
        def __str__(self) -> str:
            span.set_attribute("inner", "x" * 100)
            span.update_name("renamed")
            with k8s_tracing.span("other"):
                return "text"

    with k8s_tracing.span("work") as span:
        span.set_attributes({"a": Busy(), "b": [Busy(), 1]})  # type: ignore[dict-item]
    other, _, record = backend.records
    assert other.parent_span_id == record.span_id
    assert record.name == "renamed"
    assert dict(record.attributes) == {"inner": "x" * 100, "a": "text", "b": ("text", 1)}


def test_attributes_may_change_their_dict_while_it_is_read(backend: MemoryBackend) -> None:
    attributes: dict[Any, Any] = {}

    class Grows:
        def __str__(self) -> str:
            attributes[len(attributes)] = Grows()
            return "text"

    class Clears:
        def __str__(self) -> str:
            attributes.clear()
            return "text"

    for hostile in (Grows, Clears):
        attributes.clear()
        attributes.update({"a": hostile(), "b": hostile(), "c": 3})
        with k8s_tracing.span("work", attributes):
            pass
        assert backend.records.pop().attributes["a"] == "text"


def test_a_listener_may_start_spans_and_replace_itself(tracer: Any) -> None:
    log: list[str] = []

    def start(span: Any, parent: Any) -> None:
        span.set_attribute("by", "listener")

    def make_end() -> Callable[[Any], None]:
        def end(span: Any) -> None:
            log.append(span.name)
            tracer.listen(start, make_end())
            if len(log) < 5:
                with tracer.start_as_current_span(f"of {span.name}"):
                    assert span.attributes == {"by": "listener"}

        return end

    tracer.listen(start, make_end())
    with tracer.start_as_current_span("x"):
        pass
    assert log == ["x", "of x", "of of x", "of of of x", "of of of of x"]


def test_a_listener_hears_the_end_only_of_what_it_heard_the_start_of(tracer: Any) -> None:
    log: list[str] = []
    tracer.listen(None, None)
    early = tracer.start_span("early")
    tracer.listen(None, lambda span: log.append(span.name))
    late = tracer.start_span("late")
    early.end()
    late.end()
    assert log == ["late"]


def test_threads_may_share_one_span(backend: MemoryBackend) -> None:
    def work(number: int) -> None:
        start.wait()
        for turn in range(300):
            span.set_attribute(f"key {number}.{turn % 10}", "x" * turn)
            contexts.append(span.get_span_context())
            with k8s_tracing.span("child"):
                pass
            if turn == 250:
                span.end()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        start = threading.Barrier(4)
        contexts: list[SpanContext] = []
        span = k8s_tracing.start_span("shared")
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len({id(found) for found in contexts}) == 1
    shared = [record for record in backend.records if record.name == "shared"]
    assert len(shared) == 1
    assert set(shared[0].attributes) <= {f"key {n}.{t}" for n in range(4) for t in range(10)}
    assert len(backend.records) == 1 + 4 * 300


def test_a_span_has_one_context_whoever_asks_first(
    tracer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faster(*args: Any) -> SpanContext:
        monkeypatch.undo()
        found.append(span.get_span_context())
        return SpanContext(*args)

    found: list[SpanContext] = []
    span = tracer.start_span("work")
    monkeypatch.setattr(trace, "SpanContext", faster)
    assert span.get_span_context() is found[0]
    assert span.get_span_context() is found[0]


def test_threads_end_one_anothers_spans(backend: MemoryBackend, tracer: Any) -> None:
    spans = [tracer.start_span(f"span {number}") for number in range(2000)]

    def end_all() -> None:
        for span in spans:
            span.end()

    threads = [threading.Thread(target=end_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.name for r in backend.records) == sorted(span.name for span in spans)
