"""The viewer's store: how fast spans go in, how much room they take, how long searches last, with 1,000,000 spans.

    python -m benchmarks.viewer_store [SPANS]

Beside it Jaeger with its memory storage is sent the same requests and asked the same, over HTTP as the viewer is. Each
trace has 40 spans of 6 services, with 5 attributes each.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SERVICES = ("frontend", "customer", "mysql", "driver", "redis", "route")
SPANS_A_TRACE = 40
TRACES_A_REQUEST = 25
#: How often each search is made.
ROUNDS = 30
MS = 1_000_000


def request(first_trace: int, traces: int, now_ns: int, chance: random.Random) -> bytes:
    """Traces of SPANS_A_TRACE spans, with about six attributes each."""
    message = ExportTraceServiceRequest()
    groups = {}
    for service in SERVICES:
        resource_spans = message.resource_spans.add()
        for key, value in {
            "service.name": service,
            "service.instance.id": f"default.{service}-7d4b9-x2x.app",
            "k8s.pod.name": f"{service}-7d4b9-x2x",
            "k8s.namespace.name": "default",
            "k8s.node.name": "node-1",
            "telemetry.sdk.language": "python",
        }.items():
            resource_spans.resource.attributes.add(key=key).value.string_value = value
        scope = resource_spans.scope_spans.add()
        scope.scope.name = f"app.{service}"
        groups[service] = scope.spans
    for number in range(first_trace, first_trace + traces):
        trace_id = number.to_bytes(8, "big") + chance.randbytes(8)
        start_ns = now_ns + number * MS
        parent = b""
        for position in range(SPANS_A_TRACE):
            service = SERVICES[position % len(SERVICES)]
            span = groups[service].add(
                trace_id=trace_id,
                span_id=chance.randbytes(8),
                parent_span_id=parent,
                name=f"GET /{service}/{position % 4}",
                kind=2 + position % 2,
                flags=0x101,
                start_time_unix_nano=start_ns + position * 10_000,
            )
            span.end_time_unix_nano = span.start_time_unix_nano + int(chance.expovariate(1e-7))
            texts = {
                "http.request.method": "GET",
                "url.path": f"/{service}/{position % 4}",
                "customer.id": str(chance.randrange(1000)),
                "request.id": f"{number}-{position}",
            }
            for key, value in texts.items():
                span.attributes.add(key=key).value.string_value = value
            status = 500 if chance.random() < 0.001 else 200
            span.attributes.add(key="http.response.status_code").value.int_value = status
            if status == 500:
                span.status.code = 2
            parent = parent or span.span_id
    return message.SerializeToString()


def all_requests(spans: int, now_ns: int) -> Iterator[bytes]:
    """The same requests each time."""
    chance = random.Random(1)
    for first in range(0, spans // SPANS_A_TRACE, TRACES_A_REQUEST):
        yield request(first, TRACES_A_REQUEST, now_ns, chance)


def searches(now_ns: int) -> dict[str, dict[str, Any]]:
    """Parameters of /api/traces by what they find; the oldest is the hardest for those that look from the newest on."""
    always = {"start": now_ns // 1000, "end": now_ns // 1000 + 10**12, "limit": 20}
    oldest = {"request.id": "7-1"}
    return {
        name: {**always, **parameters}
        for name, parameters in {
            "service": {"service": "route"},
            "service, operation": {"service": "route", "operation": "GET /route/1"},
            "tag of 1 span": {"service": "customer", "tags": oldest},
            "tag of every span": {"service": "route", "tags": {"http.request.method": "GET"}},
            "tag of 1 span in 1,000": {
                "service": "mysql",
                "tags": {"http.response.status_code": "500"},
            },
            "two tags, no span has both": {
                "service": "driver",
                "tags": {"url.path": "/driver/1", "request.id": "7-1"},
            },
            "duration of 1 span in 20,000": {"service": "redis", "minDuration": "99ms"},
            "duration of no span": {"service": "redis", "minDuration": "10s"},
        }.items()
    }
