# SPDX-License-Identifier: Apache-2.0
"""The one description of a finished span that every producer and reader shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

AttributeValue: TypeAlias = (
    "str | bool | int | float | bytes | Sequence[AttributeValue] | Attributes | None"
)
Attributes: TypeAlias = "Mapping[str, AttributeValue]"

#: Set by the relay on a span whose end was never recorded; its end is then that of its process.
UNFINISHED = "k8s_tracing.unfinished"

#: OpenTelemetry's name for a service that gives none.
UNKNOWN_SERVICE = "unknown_service"


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Something that happened at a moment of a span.

    Attributes:
        time_ns: When, in ns since the Unix epoch.
        dropped_attributes: How many more attributes it had.
    """

    name: str
    time_ns: int
    attributes: Attributes = field(default_factory=dict)
    dropped_attributes: int = 0


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """A span of any trace that a span points to.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.
        trace_state: The other span's W3C tracestate.
        flags: W3C trace flags in the low 8 bits.
        dropped_attributes: How many more attributes it had.
    """

    trace_id: str
    span_id: str
    attributes: Attributes = field(default_factory=dict)
    trace_state: str = ""
    flags: int = 0
    dropped_attributes: int = 0


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """A finished span.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.
        parent_span_id: 16 hexadecimal digits; empty for a root.
        kind: OpenTelemetry's SpanKind by name: INTERNAL, SERVER, CLIENT, PRODUCER or CONSUMER.
        start_time_ns: In ns since the Unix epoch, as is `end_time_ns`.
        status: OpenTelemetry's StatusCode by name: UNSET, OK or ERROR.
        resource: The attributes of what recorded the span.
        flags: W3C trace flags in the low 8 bits.
        dropped_attributes: How many more attributes it had; likewise events and links.
    """

    trace_id: str
    span_id: str
    name: str
    start_time_ns: int
    end_time_ns: int
    parent_span_id: str = ""
    kind: str = "INTERNAL"
    attributes: Attributes = field(default_factory=dict)
    status: str = "UNSET"
    status_message: str = ""
    events: tuple[EventRecord, ...] = ()
    links: tuple[LinkRecord, ...] = ()
    resource: Attributes = field(default_factory=dict)
    scope_name: str = ""
    scope_version: str = ""
    trace_state: str = ""
    flags: int = 1
    dropped_attributes: int = 0
    dropped_events: int = 0
    dropped_links: int = 0

    @property
    def service_name(self) -> str:
        """The service that recorded it, or OpenTelemetry's name for an unknown one."""
        return str(self.resource.get("service.name", UNKNOWN_SERVICE))

    @property
    def duration_ns(self) -> int:
        """From start to end, in ns."""
        return self.end_time_ns - self.start_time_ns

    @property
    def unfinished(self) -> bool:
        """Was its end never recorded, because its process died or has not come to it yet?"""
        return self.attributes.get(UNFINISHED) is True
