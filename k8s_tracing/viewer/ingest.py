# SPDX-License-Identifier: Apache-2.0
"""OTLP requests -> what the store keeps of them, by trace; what is wrong or too much is refused or cut, and counted.

Nothing here touches the store, so that hostile requests can be tested as values. It works on the messages and not on
SpanRecords: the store keeps what it was sent, and a message costs a third of the time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from k8s_tracing.jaeger import as_text
from k8s_tracing.otlp import plain_value
from k8s_tracing.record import UNFINISHED, UNKNOWN_SERVICE
from k8s_tracing.viewer import schema

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

#: A span that is longer has its values cut; if it still is, it is refused.
MAX_SPAN_BYTES = 64 << 10
MAX_CUT_SPAN_BYTES = 1 << 20
#: In characters, of a long span's name or value.
MAX_VALUE_LENGTH = 4096
#: Of a long span; what OpenTelemetry's SDKs have as a default.
MAX_ATTRIBUTES = 128
MAX_EVENTS = 128
#: Resources come once a request and stand with each of its traces.
MAX_RESOURCE_BYTES = 64 << 10
MAX_TIME_NS = 2**63 - 1

_KINDS = ("", "internal", "server", "client", "producer", "consumer")
_ERROR_STATUS = 2
_NO_TRACE, _NO_SPAN = bytes(16), bytes(8)


@dataclass(slots=True)
class SpanRow:
    """What searches need of a span. Its position in `Part.request` is that in `Part.rows`."""

    span_id: int
    parent: int | None
    service: str
    name: str
    kind: int
    start_ns: int
    duration_ns: int
    flags: int
    tags: list[str]


@dataclass(slots=True)
class Part:
    """The spans of one trace in one request."""

    trace_id: bytes
    request: ExportTraceServiceRequest = field(default_factory=ExportTraceServiceRequest)
    rows: list[SpanRow] = field(default_factory=list)
    source: tuple[int, int] = (-1, -1)


@dataclass(slots=True)
class Ingested:
    """A request by traces, and how many spans were refused or cut, by the reason."""

    parts: list[Part]
    refused: Counter[str]
    cut: Counter[str]


def ingest(request: ExportTraceServiceRequest) -> Ingested:
    """Sort the spans of a request by trace. The request's long spans are cut in place."""
    parts: dict[bytes, Part] = {}
    refused: Counter[str] = Counter()
    cut: Counter[str] = Counter()
    for number, resource_spans in enumerate(request.resource_spans):
        if resource_spans.resource.ByteSize() > MAX_RESOURCE_BYTES:
            _cut_attributes(resource_spans.resource, cut)
        service, resource_tags = _service(resource_spans.resource.attributes)
        for scope_number, scope_spans in enumerate(resource_spans.scope_spans):
            scope = scope_spans.scope
            if scope.ByteSize() > MAX_RESOURCE_BYTES:
                scope.name = scope.name[:MAX_VALUE_LENGTH]
                scope.version = scope.version[:MAX_VALUE_LENGTH]
                _cut_attributes(scope, cut)
            shared_tags = resource_tags + list(_scope_tags(scope))
            for span in scope_spans.spans:
                # Reading a field of a message makes an object each time, so that it is done once.
                trace_id, span_id, parent = span.trace_id, span.span_id, span.parent_span_id
                start_ns, end_ns = span.start_time_unix_nano, span.end_time_unix_nano
                reason = _wrong(trace_id, span_id, parent, start_ns, end_ns)
                if not reason and span.ByteSize() > MAX_SPAN_BYTES:
                    reason = _cut_span(span, cut)
                if reason:
                    refused[reason] += 1
                    continue
                if parent == _NO_SPAN:
                    span.parent_span_id = parent = b""
                part = parts.get(trace_id)
                if part is None:
                    part = parts[trace_id] = Part(trace_id)
                if part.source != (number, scope_number):
                    _continue(part, resource_spans, scope_spans, (number, scope_number))
                part.request.resource_spans[-1].scope_spans[-1].spans.append(span)
                kind = span.kind
                tags, flags = _tags_and_flags(span, kind, shared_tags)
                part.rows.append(
                    SpanRow(
                        signed(span_id),
                        signed(parent) if parent else None,
                        service,
                        span.name,
                        kind,
                        start_ns,
                        max(0, end_ns - start_ns),
                        flags,
                        tags,
                    )
                )
    return Ingested(list(parts.values()), refused, cut)


def tag(key: str, text: str) -> str:
    """Return what stands for this key and value in the index of tags."""
    found = _TAGS.get((key, text))
    if found is None:
        found = blake2b(f"{key}\0{text}".encode(errors="surrogatepass"), digest_size=8).hexdigest()
        if len(text) <= 256:
            if len(_TAGS) >= 100_000:
                _TAGS.clear()
            _TAGS[key, text] = found
    return found


_TAGS: dict[tuple[str, str], str] = {}
_KIND_TAGS = tuple(tag("span.kind", kind) for kind in _KINDS)


def kind_name(kind: int) -> str:
    """Return the span kind as Jaeger writes it, empty for an unspecified one."""
    return _KINDS[kind] if 0 <= kind < len(_KINDS) else ""


def signed(identifier: bytes) -> int:
    """Return eight bytes as SQLite's integer."""
    return int.from_bytes(identifier, "big", signed=True)


def _continue(part: Part, resource_spans: Any, scope_spans: Any, source: tuple[int, int]) -> None:
    """Add the resource and scope of the span that comes next."""
    if part.source[0] != source[0]:
        into = part.request.resource_spans.add(schema_url=resource_spans.schema_url)
        into.resource.CopyFrom(resource_spans.resource)
    scope = part.request.resource_spans[-1].scope_spans.add(schema_url=scope_spans.schema_url)
    scope.scope.CopyFrom(scope_spans.scope)
    part.source = source


def _service(attributes: Iterable[KeyValue]) -> tuple[str, list[str]]:
    name, tags = UNKNOWN_SERVICE, []
    for attribute in attributes:
        text = _text(attribute.value)
        if attribute.key == "service.name" and text:
            name = text
        tags.append(tag(attribute.key, text))
    return name, tags


def _scope_tags(scope: Any) -> Iterator[str]:
    if scope.name:
        yield tag("otel.scope.name", scope.name)
    if scope.version:
        yield tag("otel.scope.version", scope.version)
    for attribute in scope.attributes:
        yield tag(attribute.key, _text(attribute.value))


def _tags_and_flags(span: Span, kind: int, shared_tags: list[str]) -> tuple[list[str], int]:
    flags = 0
    tags = [*shared_tags, _KIND_TAGS[kind if 0 <= kind < len(_KIND_TAGS) else 0]]
    known = _TAGS.get
    for attribute in span.attributes:
        key, value = attribute.key, attribute.value
        text = _text(value)
        tags.append(known((key, text)) or tag(key, text))
        if key == UNFINISHED and value.bool_value:
            flags |= schema.UNFINISHED
    for event in span.events:
        for attribute in event.attributes:
            tags.append(tag(attribute.key, _text(attribute.value)))
    if span.HasField("status"):
        flags |= _status(span, tags)
    if trace_state := span.trace_state:
        tags.append(tag("w3c.tracestate", trace_state))
    return tags, flags


def _status(span: Span, tags: list[str]) -> int:
    status = span.status
    if status.message:
        tags.append(tag("otel.status_description", status.message))
    if status.code == _ERROR_STATUS:
        tags += (tag("error", "true"), tag("otel.status_code", "ERROR"))
        return schema.ERROR
    if status.code:
        tags.append(tag("otel.status_code", "OK"))
    return 0


def _text(value: AnyValue) -> str:
    # Most are texts, and asking which it is would take as long again.
    return value.string_value or as_text(plain_value(value))


def _wrong(trace_id: bytes, span_id: bytes, parent: bytes, start_ns: int, end_ns: int) -> str:
    """Say why a span is refused, nothing if it is not."""
    if len(trace_id) != 16 or trace_id == _NO_TRACE:
        return "trace id"
    if len(span_id) != 8 or span_id == _NO_SPAN:
        return "span id"
    if len(parent) not in (0, 8):
        return "parent span id"
    if start_ns > MAX_TIME_NS or end_ns > MAX_TIME_NS:
        return "time"
    return ""


def _cut_span(span: Span, cut: Counter[str]) -> str:
    """Cut a long span; if that is not enough, say why it is refused."""
    _cut_attributes(span, cut)
    span.name = span.name[:MAX_VALUE_LENGTH]
    span.trace_state = span.trace_state[:512]  # W3C's limit
    span.status.message = span.status.message[:MAX_VALUE_LENGTH]
    for field_name in ("events", "links"):
        items = getattr(span, field_name)
        dropped = len(items) - MAX_EVENTS
        if dropped > 0:
            del items[MAX_EVENTS:]
            _dropped(span, f"dropped_{field_name}_count", dropped)
            cut[field_name] += dropped
        for item in items:
            _cut_attributes(item, cut)
    for event in span.events:
        event.name = event.name[:MAX_VALUE_LENGTH]
    return "size" if span.ByteSize() > MAX_CUT_SPAN_BYTES else ""


def _cut_attributes(owner: Any, cut: Counter[str]) -> None:
    attributes = owner.attributes
    dropped = len(attributes) - MAX_ATTRIBUTES
    if dropped > 0:
        del attributes[MAX_ATTRIBUTES:]
        _dropped(owner, "dropped_attributes_count", dropped)
        cut["attributes"] += dropped
    for attribute in attributes:
        attribute.key = attribute.key[:MAX_VALUE_LENGTH]
        _cut_value(attribute.value, cut)


def _cut_value(value: AnyValue, cut: Counter[str]) -> None:
    kind = value.WhichOneof("value")
    if kind in ("string_value", "bytes_value"):
        content = getattr(value, kind)
        if len(content) > MAX_VALUE_LENGTH:
            setattr(value, kind, content[:MAX_VALUE_LENGTH])
            cut["values"] += 1
    elif kind in ("array_value", "kvlist_value") and value.ByteSize() > MAX_VALUE_LENGTH:
        value.string_value = as_text(plain_value(value))[:MAX_VALUE_LENGTH]
        cut["values"] += 1


def _dropped(owner: Any, counter: str, number: int) -> None:
    setattr(owner, counter, min(getattr(owner, counter) + number, 2**32 - 1))
