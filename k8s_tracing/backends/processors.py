# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry's SpanProcessors, and through them its exporters, on native spans.

A slower path, for who has a processor: each span that ends is copied into the SDK's ReadableSpan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context

from k8s_tracing import _core

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor


class Processors:
    """The processors of one provider, called in the order in which they were added."""

    def __init__(self) -> None:
        self._processors: tuple[SpanProcessor, ...] = ()
        self._readable: Callable[[_core.Span], ReadableSpan] | None = None

    def add(self, processor: SpanProcessor) -> None:
        """Call `processor` with every span from now on."""
        if self._readable is None:
            self._readable = _reader()
        self._processors = (*self._processors, processor)

    def __bool__(self) -> bool:
        return bool(self._processors)

    def on_start(self, span: _core.Span, parent_context: Context | None) -> None:
        """A span has started; it can still be written to."""
        for processor in self._processors:
            processor.on_start(span, parent_context)  # type: ignore[arg-type]

    def on_end(self, span: _core.Span) -> None:
        """A span has ended."""
        if self._readable is not None:
            readable = self._readable(span)
            for processor in self._processors:
                processor.on_end(readable)

    def flush(self, timeout_ms: int) -> bool:
        """Let every processor hand on what it holds."""
        flushed = [processor.force_flush(timeout_ms) for processor in self._processors]
        return all(flushed)

    def shutdown(self) -> None:
        """Let every processor hand on what it holds, and end."""
        for processor in self._processors:
            processor.shutdown()


def _reader() -> Callable[[_core.Span], ReadableSpan]:
    """Return what copies a native span into the SDK's class."""
    from opentelemetry.attributes import BoundedAttributes
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util import BoundedList
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    resources: dict[int, tuple[Any, Resource]] = {}

    def resource_of(attributes: Any) -> Resource:
        known = resources.get(id(attributes))
        if known is None or known[0] is not attributes:
            known = resources[id(attributes)] = (attributes, Resource(attributes))
        return known[1]

    def counted(items: Any, dropped: int) -> Any:
        """A sequence that knows how many more there were, as the SDK's exporters ask it."""
        bounded = BoundedList.from_seq(max(len(items), 1), items)
        bounded.dropped = dropped
        return bounded

    def read(span: _core.Span) -> ReadableSpan:
        native: Any = span
        scope = span._tracer.scope
        dropped_attributes, dropped_events, dropped_links = span._dropped
        attributes = BoundedAttributes(attributes=span.attributes)
        attributes.dropped = dropped_attributes
        events = [Event(event.name, event.attributes, event.timestamp) for event in native.events]
        return ReadableSpan(
            name=span.name,
            context=span.get_span_context(),
            parent=span.parent,
            resource=resource_of(span._tracer.resource),
            attributes=attributes,
            events=counted(events, dropped_events),
            links=counted(native.links, dropped_links),
            kind=span.kind,
            status=native.status,
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=InstrumentationScope(
                scope.name, scope.version, scope.schema_url, scope.attributes
            ),
        )

    return read
