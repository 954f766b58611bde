# SPDX-License-Identifier: Apache-2.0
"""OTLP requests and OTLP JSON lines <-> SpanRecords.

OTLP JSON differs from protobuf's own JSON: ids are hexadecimal, not base64, and enumerations are numbers. A file of
JSON lines has one request a line, as the OpenTelemetry Collector's file exporter writes it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k8s_tracing.errors import K8sTracingError, OtlpError
from k8s_tracing.record import (
    Attributes,
    AttributeValue,
    EventRecord,
    LinkRecord,
    SpanRecord,
)

try:
    from google.protobuf import json_format
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource
    from opentelemetry.proto.trace.v1.trace_pb2 import Span
except ImportError as error:  # pragma: no cover
    raise K8sTracingError(
        f"{error}: OTLP is read with opentelemetry-proto; pip install 'k8s-tracing[agent]'"
    ) from error

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

_KINDS = ("INTERNAL", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")  # 0: unspecified
_STATUSES = ("UNSET", "OK", "ERROR")

_ID_KEYS = frozenset({"traceId", "spanId", "parentSpanId"})


def parse_request(body: bytes) -> list[SpanRecord]:
    """Decode an `ExportTraceServiceRequest`.

    Raises:
        OtlpError: The bytes are none.
    """
    return list(records(_decode(body)))


def to_request(spans: Iterable[SpanRecord]) -> bytes:
    """Encode spans as one `ExportTraceServiceRequest`, grouped by resource and scope."""
    request = ExportTraceServiceRequest()
    groups: dict[str, Any] = {}
    for span in spans:
        resource_key = repr(sorted(span.resource.items()))
        if resource_key not in groups:
            groups[resource_key] = request.resource_spans.add()
            _put_attributes(groups[resource_key].resource.attributes, span.resource)
        scope_key = f"{span.scope_name}\0{span.scope_version}\0{resource_key}"
        if scope_key not in groups:
            groups[scope_key] = groups[resource_key].scope_spans.add()
            groups[scope_key].scope.name = span.scope_name
            groups[scope_key].scope.version = span.scope_version
        _put_span(groups[scope_key].spans.add(), span)
    return request.SerializeToString()


def span_fields(name: str, attributes: Attributes) -> bytes:
    """Encode a name and attributes as fields of OTLP's `Span`, to be put into one."""
    span = Span(name=name)
    _put_attributes(span.attributes, attributes)
    return span.SerializeToString()


def resource_fields(attributes: Attributes) -> bytes:
    """Encode attributes as fields of OTLP's `Resource`."""
    resource = Resource()
    _put_attributes(resource.attributes, attributes)
    return resource.SerializeToString()


def to_json_line(body: bytes) -> str:
    """Turn an encoded `ExportTraceServiceRequest` into OTLP JSON, without a newline.

    Raises:
        OtlpError: The bytes are none.
    """
    content = json_format.MessageToDict(_decode(body), use_integers_for_enums=True)
    _convert_ids(content, lambda text: base64.b64decode(text).hex())
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


def read_json_lines(path: str | Path) -> list[SpanRecord]:
    """Read a file of OTLP JSON lines.

    Raises:
        OtlpError: A line is not OTLP JSON.
        OSError: The file cannot be read.
    """
    return list(iter_json_lines(path))


def iter_json_lines(path: str | Path) -> Iterator[SpanRecord]:
    """The same, with one line in memory at a time."""
    with Path(path).open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                spans = list(records(parse_json(line)))
            except (ValueError, TypeError, AttributeError, json_format.ParseError) as error:
                raise OtlpError(f"{path}:{number} is not OTLP JSON: {error}") from error
            yield from spans


def _decode(body: bytes) -> ExportTraceServiceRequest:
    try:
        return ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise OtlpError(f"not an OTLP request: {error}") from error


def parse_json(line: bytes) -> ExportTraceServiceRequest:
    """Decode one request in OTLP JSON.

    Raises:
        ValueError, TypeError, AttributeError, json_format.ParseError: It is none.
    """
    content = json.loads(line)
    _convert_ids(content, lambda text: base64.b64encode(binascii.unhexlify(text)).decode())
    return json_format.ParseDict(content, ExportTraceServiceRequest(), ignore_unknown_fields=True)


def _convert_ids(content: Mapping[str, Any], convert: Any) -> None:
    """Rewrite the ids of all spans and links of a request; attributes may have keys of any name."""
    for resource_spans in content.get("resourceSpans", ()):
        for scope_spans in resource_spans.get("scopeSpans", ()):
            for span in scope_spans.get("spans", ()):
                for message in (span, *span.get("links", ())):
                    for key in _ID_KEYS & message.keys():
                        message[key] = convert(message[key])


def records(request: ExportTraceServiceRequest) -> Iterator[SpanRecord]:
    """Yield the spans of a decoded request."""
    for resource_spans in request.resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            scope = scope_spans.scope
            for span in scope_spans.spans:
                yield _record(span, resource, scope.name, scope.version)


def _record(span: Span, resource: Attributes, scope_name: str, scope_version: str) -> SpanRecord:
    return SpanRecord(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        name=span.name,
        kind=_name(_KINDS, span.kind),
        start_time_ns=span.start_time_unix_nano,
        end_time_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        status=_name(_STATUSES, span.status.code),
        status_message=span.status.message,
        events=tuple(
            EventRecord(
                name=event.name,
                time_ns=event.time_unix_nano,
                attributes=_attributes(event.attributes),
                dropped_attributes=event.dropped_attributes_count,
            )
            for event in span.events
        ),
        links=tuple(
            LinkRecord(
                trace_id=link.trace_id.hex(),
                span_id=link.span_id.hex(),
                attributes=_attributes(link.attributes),
                trace_state=link.trace_state,
                flags=link.flags,
                dropped_attributes=link.dropped_attributes_count,
            )
            for link in span.links
        ),
        resource=resource,
        scope_name=scope_name,
        scope_version=scope_version,
        trace_state=span.trace_state,
        flags=span.flags,
        dropped_attributes=span.dropped_attributes_count,
        dropped_events=span.dropped_events_count,
        dropped_links=span.dropped_links_count,
    )


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else names[0]


def _attributes(fields: Iterable[KeyValue]) -> Attributes:
    return {field.key: plain_value(field.value) for field in fields}


def plain_value(value: AnyValue) -> AttributeValue:
    """A value as Python has it: a tuple for an array, a dict for a list of keys and values; None if it is empty."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return tuple(plain_value(element) for element in value.array_value.values)
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    plain: AttributeValue = getattr(value, kind)
    return plain


def _put_span(to: Span, span: SpanRecord) -> None:
    to.trace_id = bytes.fromhex(span.trace_id)
    to.span_id = bytes.fromhex(span.span_id)
    to.parent_span_id = bytes.fromhex(span.parent_span_id)
    to.trace_state = span.trace_state
    to.flags = span.flags
    to.name = span.name
    to.kind = _KINDS.index(span.kind, 1)  # type: ignore[assignment]
    to.start_time_unix_nano = span.start_time_ns
    to.end_time_unix_nano = span.end_time_ns
    _put_attributes(to.attributes, span.attributes)
    to.dropped_attributes_count = span.dropped_attributes
    for event in span.events:
        new_event = to.events.add(name=event.name, time_unix_nano=event.time_ns)
        _put_attributes(new_event.attributes, event.attributes)
        new_event.dropped_attributes_count = event.dropped_attributes
    to.dropped_events_count = span.dropped_events
    for link in span.links:
        new_link = to.links.add(
            trace_id=bytes.fromhex(link.trace_id), span_id=bytes.fromhex(link.span_id)
        )
        new_link.trace_state = link.trace_state
        new_link.flags = link.flags
        _put_attributes(new_link.attributes, link.attributes)
        new_link.dropped_attributes_count = link.dropped_attributes
    to.dropped_links_count = span.dropped_links
    if span.status != "UNSET":
        to.status.code = _STATUSES.index(span.status)  # type: ignore[assignment]
        to.status.message = span.status_message


def _put_attributes(to: Any, attributes: Attributes) -> None:
    for key, value in attributes.items():
        _put_value(to.add(key=key).value, value)


def _put_value(to: AnyValue, value: AttributeValue) -> None:
    if type(value) is str:  # nearly all of them
        to.string_value = value
    elif isinstance(value, bool):  # before int: it is one, too
        to.bool_value = value
    elif isinstance(value, int):
        to.int_value = value
    elif isinstance(value, float):
        to.double_value = value
    elif isinstance(value, str):
        to.string_value = value
    elif isinstance(value, bytes):
        to.bytes_value = value
    elif isinstance(value, Mapping):
        to.kvlist_value.SetInParent()
        _put_attributes(to.kvlist_value.values, value)
    elif value is not None:
        to.array_value.SetInParent()
        for element in value:
            _put_value(to.array_value.values.add(), element)
