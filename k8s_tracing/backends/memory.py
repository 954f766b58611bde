# SPDX-License-Identifier: Apache-2.0
"""Keeps finished spans in a list: for tests of an application's own tracing."""

from __future__ import annotations

from collections.abc import Mapping, MutableSequence

from opentelemetry.trace import SpanContext, StatusCode
from opentelemetry.util import types

from k8s_tracing import _core
from k8s_tracing.backends.native import NativeTracers
from k8s_tracing.record import Attributes, EventRecord, LinkRecord, SpanRecord
from k8s_tracing.sampling import Sampling
from k8s_tracing.settings import Limits


class MemoryBackend(NativeTracers):
    """Native spans whose records are `records`, in the order in which they ended."""

    name = "memory"

    def __init__(
        self,
        resource: Mapping[str, types.AttributeValue],
        limits: Limits,
        sampling: Sampling,
    ) -> None:
        self.records: MutableSequence[SpanRecord] = []
        super().__init__(resource, limits, sampling, emit=False)

    def _listen(self, tracer: _core.Tracer) -> None:
        tracer.listen(self._processors.on_start, self._end)

    def _end(self, span: _core.Span) -> None:
        self.records.append(_to_record(span))
        self._processors.on_end(span)


def _to_record(span: _core.Span) -> SpanRecord:
    context = span.get_span_context()
    parent = span.parent
    status, status_message = span._raw_status
    attributes, events, links = span._dropped
    scope = span._tracer.scope
    return SpanRecord(
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        parent_span_id=f"{parent.span_id:016x}" if parent else "",
        name=span.name,
        kind=span.kind.name,
        start_time_ns=span.start_time or 0,
        end_time_ns=span.end_time or 0,
        attributes=span.attributes,
        status=StatusCode(status).name,
        status_message=status_message or "",
        events=tuple(EventRecord(*event) for event in span._raw_events),
        links=tuple(_to_link(*link) for link in span._raw_links),
        resource=span._tracer.resource,
        scope_name=scope.name,
        scope_version=scope.version or "",
        trace_state=context.trace_state.to_header(),
        flags=context.trace_flags,
        dropped_attributes=attributes,
        dropped_events=events,
        dropped_links=links,
    )


def _to_link(context: SpanContext, attributes: Attributes) -> LinkRecord:
    return LinkRecord(
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        attributes=attributes,
        trace_state=context.trace_state.to_header(),
        flags=context.trace_flags,
    )
