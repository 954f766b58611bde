# SPDX-License-Identifier: Apache-2.0
"""SpanRecords -> Jaeger's JSON: what `/api/traces` answers, and the file that Jaeger's page saves and opens.

A span's kind, status, scope and tracestate are tags there, and times are microseconds. The names and the order of
the tags are those of Jaeger 2.13.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from k8s_tracing.record import (
    Attributes,
    AttributeValue,
    EventRecord,
    LinkRecord,
    SpanRecord,
)

#: The attribute in which Jaeger keeps what it found wrong with a span; a list of texts.
WARNINGS = "@jaeger@warnings"

#: The attribute of a link that makes it a reference CHILD_OF.
REF_TYPE = "opentracing.ref_type"
#: The field that has the name of an event.
EVENT_NAME = "event"

#: Integers past it are texts in Jaeger's JSON, because JavaScript would round them.
_MAX_SAFE_INTEGER = 2**53 - 1


def to_json(spans: Iterable[SpanRecord]) -> dict[str, Any]:
    """Return the object that `/api/traces` answers with these spans' traces, in the order of their first spans."""
    traces: dict[str, list[SpanRecord]] = {}
    for span in spans:
        traces.setdefault(span.trace_id, []).append(span)
    return answer([to_trace(trace) for trace in traces.values()])


def answer(data: Sequence[Any] | None, total: int = 0, errors: Any = None) -> dict[str, Any]:
    """Return the envelope of every answer of Jaeger's older API."""
    return {"data": data, "total": total, "limit": 0, "offset": 0, "errors": errors}


def to_trace(spans: Sequence[SpanRecord]) -> dict[str, Any]:
    """Return the spans of one trace, at least one, as Jaeger's JSON has a trace."""
    processes: dict[str, tuple[str, dict[str, Any]]] = {}
    by_resource: dict[int, str] = {}  # of a process, by the identity of a resource: spans share it
    known = {span.span_id for span in spans}
    converted = []
    for span in spans:
        name = by_resource.get(id(span.resource))
        if name is None:
            tags = _tags(_process_tags(span.resource))
            process = {"serviceName": span.service_name, "tags": tags}
            candidate = (f"p{len(processes) + 1}", process)
            name = processes.setdefault(json.dumps(process), candidate)[0]
            by_resource[id(span.resource)] = name
        converted.append(_span(span, name, known))
    return {
        "traceID": _short(spans[0].trace_id),
        "spans": converted,
        "processes": dict(processes.values()),
        "warnings": None,
    }


def as_text(value: AttributeValue) -> str:
    """Write a value as Jaeger does where it needs a text: in a search for a tag, and for a list or map as a tag."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return _json_text(value)


def _json_text(value: AttributeValue) -> str:
    # Go's encoding: sorted keys, numbers as in JavaScript, and nothing that a browser takes for markup.
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number_text(value)
    if isinstance(value, (str, bytes)):
        text = json.dumps(as_text(value), ensure_ascii=False)
        for character in "<>&\u2028\u2029":
            text = text.replace(character, f"\\u{ord(character):04x}")
        return text
    if isinstance(value, Mapping):
        fields = (f"{_json_text(key)}:{_json_text(value[key])}" for key in sorted(value))
        return "{" + ",".join(fields) + "}"
    return "[" + ",".join(map(_json_text, value)) + "]"


def _number_text(value: float) -> str:
    if not math.isfinite(value):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[repr(value)]
    if value and not 1e-6 <= abs(value) < 1e21:
        return re.sub(r"e([+-])0?", r"e\1", repr(value).replace(".0e", "e"))
    if value.is_integer():
        return "-0" if math.copysign(1, value) < 0 and not value else str(int(value))
    text = repr(value)
    if "e" not in text:
        return text
    digits, exponent = text.lstrip("-").split("e")  # down to 1e-06
    return f"{'-' * (value < 0)}0.{'0' * (-int(exponent) - 1)}{digits.replace('.', '')}"


def _span(span: SpanRecord, process: str, known: set[str]) -> dict[str, Any]:
    warnings = _warnings(span.attributes)
    if span.end_time_ns < span.start_time_ns:
        warnings.append(
            f"the span ends {span.start_time_ns - span.end_time_ns} ns before its start"
        )
    if span.parent_span_id and span.parent_span_id not in known:
        warnings.append(f"the parent span {span.parent_span_id} is not in the trace")
    references = list(_references(span))
    valid = [reference for reference in references if int(reference["traceID"], 16)]
    if len(valid) < len(references):
        warnings.append(f"links without a trace id, left out: {len(references) - len(valid)}")
    return {
        "traceID": _short(span.trace_id),
        "spanID": span.span_id,
        "operationName": span.name,
        "references": valid,
        "startTime": span.start_time_ns // 1000,
        "duration": max(0, span.duration_ns) // 1000,
        "tags": _tags(_span_tags(span)),
        "logs": [_log(event) for event in span.events],
        "processID": process,
        "warnings": list(dict.fromkeys(warnings)) or None,
    }


def _short(trace_id: str) -> str:
    """Jaeger writes an id whose upper half is zero without it."""
    return trace_id[16:] if trace_id.startswith("0" * 16) else trace_id


def _warnings(attributes: Attributes) -> list[str]:
    value = attributes.get(WARNINGS, ())
    return [as_text(each) for each in value] if isinstance(value, (list, tuple)) else []


def _references(span: SpanRecord) -> Iterator[dict[str, str]]:
    """The parent, then the links. A link to the parent says how the span refers to it."""
    parent = (span.trace_id, span.parent_span_id)
    to_parent = [link for link in span.links if (link.trace_id, link.span_id) == parent]
    if span.parent_span_id:
        kind = _ref_type(to_parent[-1]) if to_parent else "CHILD_OF"
        yield _reference(kind, *parent)
    for link in span.links:
        if not span.parent_span_id or (link.trace_id, link.span_id) != parent:
            yield _reference(_ref_type(link), link.trace_id, link.span_id)


def _ref_type(link: LinkRecord) -> str:
    return "CHILD_OF" if link.attributes.get(REF_TYPE) == "child_of" else "FOLLOWS_FROM"


def _reference(kind: str, trace_id: str, span_id: str) -> dict[str, str]:
    return {
        "refType": kind,
        "traceID": _short(trace_id.zfill(32)),
        "spanID": span_id.zfill(16),
    }


def _process_tags(resource: Attributes) -> Iterator[tuple[str, AttributeValue]]:
    return ((key, value) for key, value in resource.items() if key != "service.name")


def _span_tags(span: SpanRecord) -> Iterator[tuple[str, AttributeValue]]:
    if span.scope_name:
        yield "otel.scope.name", span.scope_name
    if span.scope_version:
        yield "otel.scope.version", span.scope_version
    yield from ((key, value) for key, value in span.attributes.items() if key != WARNINGS)
    yield "span.kind", span.kind.lower()
    if span.status != "UNSET":
        yield "otel.status_code", span.status
    if span.status == "ERROR":
        yield "error", True
    if span.status_message:
        yield "otel.status_description", span.status_message
    if span.trace_state:
        yield "w3c.tracestate", span.trace_state


def _tags(attributes: Iterable[tuple[str, AttributeValue]]) -> list[dict[str, Any]]:
    return [_tag(key, value) for key, value in sorted(attributes, key=lambda each: each[0])]


def _tag(key: str, value: AttributeValue) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"key": key, "type": "bool", "value": value}
    if isinstance(value, int):
        safe = abs(value) <= _MAX_SAFE_INTEGER
        return {"key": key, "type": "int64", "value": value if safe else str(value)}
    if isinstance(value, float):
        # JSON has no NaN, and Jaeger then answers with an error.
        number = value if math.isfinite(value) else _number_text(value)
        return {"key": key, "type": "float64", "value": number}
    kind = "binary" if isinstance(value, bytes) else "string"
    return {"key": key, "type": kind, "value": as_text(value)}


def _log(event: EventRecord) -> dict[str, Any]:
    fields = dict(event.attributes)
    if event.name and EVENT_NAME not in fields:
        fields[EVENT_NAME] = event.name
    tags = _tags(fields.items())
    tags.sort(key=lambda tag: tag["key"] != EVENT_NAME)  # the others stay in order
    return {"timestamp": event.time_ns // 1000, "fields": tags}
