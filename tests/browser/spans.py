"""Spans for the page's tests, and their way into a viewer."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import requests

from k8s_tracing.otlp import to_request
from k8s_tracing.record import UNFINISHED, EventRecord, LinkRecord, SpanRecord

MS = 1_000_000
#: What a script in a span's text would leave behind if it ever ran.
HACKED = "window.hacked=1"


def trace_id(number: int) -> str:
    return f"{number:032x}".replace("0" * 16, "a" * 16, 1)


def span(
    trace: str, number: int, start_ms: float, end_ms: float, parent: int = 0, **more: Any
) -> SpanRecord:
    """A span some seconds ago; `number` makes its id, `parent` is another's number."""
    resource = {"service.name": more.pop("service", "shop"), "host.name": more.pop("node", "n1")}
    return SpanRecord(
        trace_id=trace,
        span_id=f"{number:016x}",
        name=more.pop("name", f"step {number}"),
        start_time_ns=ORIGIN_NS + round(start_ms * MS),
        end_time_ns=ORIGIN_NS + round(end_ms * MS),
        parent_span_id=f"{parent:016x}" if parent else "",
        resource=resource,
        **more,
    )


ORIGIN_NS = time.time_ns() - 60_000 * MS


def checkout(trace: str, *, charge_ms: float = 90, coupon: bool = False) -> list[SpanRecord]:
    """A small request of three services with everything that the page has a mark for."""
    cpu = {"running": 100, "run_queue": 20, "throttled": 120, "blocked": 10}
    end = 230 + charge_ms
    spans = [
        span(trace, 1, 0, end + 30, service="ingress", name="GET /checkout", kind="SERVER"),
        span(trace, 2, 40, end + 10, 1, service="ingress", name="forward", kind="CLIENT"),
        span(
            trace,
            3,
            50,
            end,
            2,
            name="checkout",
            kind="SERVER",
            attributes={f"k8s_tracing.cpu.{part}_ns": ms * MS for part, ms in cpu.items()}
            | {"http.route": "/checkout", "url.full": "https://shop.example/checkout?a=1"},
            events=(EventRecord("cart loaded", ORIGIN_NS + 60 * MS, {"items": 3}),),
        ),
        span(
            trace,
            4,
            60,
            60 + charge_ms,
            3,
            service="bank",
            name="charge",
            status="ERROR",
            status_message="card declined",
        ),
        span(trace, 5, end - 60, end - 10, 3, name="reserve", attributes={UNFINISHED: True}),
        span(
            trace,
            6,
            70,
            71,
            3,
            name="audit",
            links=(LinkRecord(trace_id(999), "00f067aa0ba902b7"),),
        ),
    ]
    return [*spans, span(trace, 7, 80, 100, 3, name="coupon")] if coupon else spans


def hostile(trace: str) -> list[SpanRecord]:
    """Every text of a span is a script, a link that runs one, or breaks out of where it stands."""
    markup = f'"><img src=x onerror={HACKED}><svg onload={HACKED}><script>{HACKED}</script>'
    attributes = {
        markup: markup,
        "link": f"javascript:{HACKED}",
        "data": f"data:text/html,<script>{HACKED}</script>",
        "json": json.dumps({"a": markup}),
        "__proto__": "x",
        "constructor": "y",
    }
    resource = {"service.name": markup, "host.name": markup, **attributes}
    origin = span(trace, 1, 0, 100, name=markup, attributes=attributes, status="ERROR")
    return [
        SpanRecord(
            **{name: getattr(origin, name) for name in ("trace_id", "span_id", "name", "status")},
            start_time_ns=origin.start_time_ns,
            end_time_ns=origin.end_time_ns,
            attributes=attributes,
            status_message=markup,
            resource=resource,
            scope_name=markup,
            events=(EventRecord(markup, origin.start_time_ns, attributes),),
            links=(LinkRecord(trace_id(999), "00f067aa0ba902b7", attributes),),
        )
    ]


def many(trace: str, count: int) -> list[SpanRecord]:
    """A trace of this many spans, ten children each, with an error here and there."""
    spans = []
    for number in range(1, count + 1):
        parent = (number - 2) // 10 + 1 if number > 1 else 0
        status = "ERROR" if number % 1000 == 500 else "UNSET"
        start_ms = number / 100
        spans.append(
            span(
                trace,
                number,
                start_ms,
                start_ms + 200,
                parent,
                status=status,
                service=f"worker-{number % 5}",
            )
        )
    return spans


def send(endpoint: str, spans: Sequence[SpanRecord]) -> None:
    """Hand spans to a viewer, as an exporter does."""
    answer = requests.post(
        f"{endpoint}/v1/traces",
        data=to_request(spans),
        headers={"content-type": "application/x-protobuf"},
        timeout=60,
    )
    answer.raise_for_status()
