# SPDX-License-Identifier: Apache-2.0
"""Jaeger's JSON -> SpanRecords.

It takes what Jaeger 2 writes, and what its older clients and storages left behind: a parent in `parentSpanID`, a
process within the span, short ids, types that the values do not have.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k8s_tracing.errors import JaegerJsonError
from k8s_tracing.jaeger import EVENT_NAME, REF_TYPE, WARNINGS, as_text
from k8s_tracing.record import (
    UNKNOWN_SERVICE,
    AttributeValue,
    EventRecord,
    LinkRecord,
    SpanRecord,
)

_KINDS = frozenset({"INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"})
_MAX_TIME_NS = 2**63 - 1
_HEX = re.compile(r"[0-9a-fA-F]+\Z")


def from_json(content: Any) -> list[SpanRecord]:
    """Decode what `/api/traces` answers, a list of traces, or one trace.

    Raises:
        JaegerJsonError: It is none of them; the text says which span is wrong and why.
    """
    if isinstance(content, Mapping) and "data" in content:
        content = content["data"]
    traces = content if isinstance(content, list) else [content]
    return [span for trace in traces for span in _trace_records(trace)]


def read_json(path: str | Path) -> list[SpanRecord]:
    """Read a file of Jaeger's JSON.

    Raises:
        JaegerJsonError: It is no such file.
        OSError: The file cannot be read.
    """
    try:
        return from_json(json.loads(Path(path).read_bytes()))
    except (ValueError, RecursionError, JaegerJsonError) as error:
        raise JaegerJsonError(f"{path} is not Jaeger's JSON: {error}") from error


def _trace_records(trace: Any) -> list[SpanRecord]:
    spans = trace.get("spans") if isinstance(trace, Mapping) else None
    if not isinstance(spans, list):
        raise JaegerJsonError("a trace is an object that has a list `spans`")
    records = []
    for number, span in enumerate(spans):
        try:
            records.append(_record(span, trace.get("processes") or {}))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            why = f"{error} is missing" if isinstance(error, KeyError) else error
            raise JaegerJsonError(
                f"span {number} of trace {trace.get('traceID')}: {why}"
            ) from error
    return records


def _record(span: Mapping[str, Any], processes: Mapping[str, Any]) -> SpanRecord:
    trace_id = _id(span["traceID"], 32)
    parent, links = _parent_and_links(span, trace_id)
    process = span.get("process") or processes.get(span.get("processID", "")) or {}
    attributes = _read_tags(span.get("tags"))
    status, message = _take_status(attributes)
    name, version = _take_scope(attributes)
    kind = attributes.pop("span.kind", "")
    if warnings := span.get("warnings"):
        attributes[WARNINGS] = tuple(map(str, warnings))
    start_ns = _time_ns(span["startTime"])
    return SpanRecord(
        trace_id=trace_id,
        span_id=_id(span["spanID"], 16),
        parent_span_id=parent,
        name=str(span.get("operationName", "")),
        kind=str(kind).upper() if str(kind).upper() in _KINDS else "INTERNAL",
        start_time_ns=start_ns,
        end_time_ns=min(start_ns + _time_ns(span.get("duration", 0)), _MAX_TIME_NS),
        trace_state=str(attributes.pop("w3c.tracestate", "")),
        attributes=attributes,
        status=status,
        status_message=message,
        events=tuple(map(_event, span.get("logs") or ())),
        links=links,
        resource={
            "service.name": str(process.get("serviceName") or UNKNOWN_SERVICE),
            **_read_tags(process.get("tags")),
        },
        scope_name=name,
        scope_version=version,
    )


def _id(text: Any, digits: int) -> str:
    if not isinstance(text, str) or not _HEX.match(text) or len(text) > digits:
        raise ValueError(f"{text!r:.80} is not an id of up to {digits} hexadecimal digits")
    return text.lower().zfill(digits)


def _time_ns(microseconds: Any) -> int:
    """Some tools write them with a fraction."""
    if isinstance(microseconds, bool) or not isinstance(microseconds, (int, float)):
        raise ValueError(f"{microseconds!r:.80} is not a time in microseconds")
    if not 0 <= microseconds <= _MAX_TIME_NS // 1000:
        raise ValueError(f"{microseconds} us is out of range")
    return int(microseconds * 1000)


def _parent_and_links(span: Mapping[str, Any], trace_id: str) -> tuple[str, tuple[LinkRecord, ...]]:
    """The parent is the first CHILD_OF of the same trace, or else its first FOLLOWS_FROM; all others are links."""
    references = [
        (str(each.get("refType")), _id(each["traceID"], 32), _id(each["spanID"], 16))
        for each in span.get("references") or ()
    ]
    same_trace = [each for each in references if each[1] == trace_id]
    same_trace.sort(key=lambda each: each[0] != "CHILD_OF")
    if same_trace:
        references.remove(same_trace[0])
        parent = same_trace[0][2]
    else:  # older than references
        parent = _id(span["parentSpanID"], 16) if span.get("parentSpanID") else ""
    links = tuple(
        LinkRecord(linked, span_id, {REF_TYPE: "child_of"} if kind == "CHILD_OF" else {})
        for kind, linked, span_id in references
    )
    return parent if parent.strip("0") else "", links


def _take_status(attributes: dict[str, AttributeValue]) -> tuple[str, str]:
    code = attributes.pop("otel.status_code", "UNSET")
    failed = attributes.get("error") in (True, "true")
    if failed:
        del attributes["error"]
    status = "ERROR" if failed else code if code in ("OK", "ERROR") else "UNSET"
    return str(status), str(attributes.pop("otel.status_description", ""))


def _take_scope(attributes: dict[str, AttributeValue]) -> tuple[str, str]:
    """`otel.library` is the scope's older name."""
    taken = {
        name: attributes.pop(name, "")
        for name in (
            "otel.library.name",
            "otel.scope.name",
            "otel.library.version",
            "otel.scope.version",
        )
    }
    old_name, name, old_version, version = map(str, taken.values())
    return name or old_name, version or old_version


def _event(log: Mapping[str, Any]) -> EventRecord:
    attributes = _read_tags(log.get("fields"))
    name = attributes.pop(EVENT_NAME, "")
    return EventRecord(as_text(name), _time_ns(log["timestamp"]), attributes)


def _read_tags(tags: Any) -> dict[str, AttributeValue]:
    """A key that comes twice keeps its first value, but an `error` that is a truth goes before a text."""
    attributes: dict[str, AttributeValue] = {}
    for tag in tags or ():
        key, value = str(tag["key"]), _tag_value(tag)
        if key not in attributes or (key == "error" and isinstance(value, bool)):
            attributes[key] = value
    return attributes


def _tag_value(tag: Mapping[str, Any]) -> AttributeValue:
    """A type that the value does not have, or none, leaves what JSON says."""
    kind, value = str(tag.get("type", "")).lower(), tag.get("value")
    if isinstance(value, str):
        try:
            if kind == "int64":
                return _int64(int(value))
            if kind == "float64":
                return float(value)
            if kind == "binary":
                return base64.b64decode(value, validate=True)
            if kind == "bool" and value in ("true", "false"):
                return value == "true"
        except (ValueError, binascii.Error):
            pass
        return value
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return float(value) if kind == "float64" else _int64(value)
    if isinstance(value, float):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _int64(number: int) -> int | str:
    return number if -(2**63) <= number < 2**63 else str(number)
