# SPDX-License-Identifier: Apache-2.0
"""The viewer's store: how fast spans go in, how much room they take, how long searches last, with 1,000,000 spans.

    python -m benchmarks.viewer_store [SPANS]

Beside it Jaeger with its memory storage is sent the same requests and asked the same, over HTTP as the viewer is. Each
trace has 40 spans of 6 services, with 5 attributes each.
"""

from __future__ import annotations

import json
import os
import platform
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from k8s_tracing.viewer.store import Limits, Store
from tests.support.jaeger import Jaeger
from tests.support.viewer import Viewer

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


def searches(now_ns: int) -> dict[str, dict[str, str]]:
    """Parameters of /api/traces by what they find. All traces are within the time, the newest are looked at first."""
    always = {"start": now_ns // 1000, "end": now_ns // 1000 + 10**12, "limit": 20}
    parameters = {
        "service": {"service": "route"},
        "service and operation": {"service": "route", "operation": "GET /route/1"},
        "tag of every span": {"service": "route", "tags": {"http.request.method": "GET"}},
        "tag of 1 span in 1,000": {
            "service": "mysql",
            "tags": {"http.response.status_code": "500"},
        },
        "tag of 1 span, the oldest trace's": {
            "service": "customer",
            "tags": {"request.id": "0-1"},
        },
        "two tags that no span has both": {
            "service": "driver",
            "tags": {"url.path": "/driver/1", "request.id": "7-1"},
        },
        "duration of 1 span in 20,000": {"service": "redis", "minDuration": "99ms"},
        "duration of no span": {"service": "redis", "minDuration": "10s"},
    }
    return {
        name: {
            key: json.dumps(value) if isinstance(value, dict) else str(value)
            for key, value in {**always, **chosen}.items()
        }
        for name, chosen in parameters.items()
    }


class Peer:
    """One of the two servers, with what it took to fill it."""

    def __init__(self, name: str, url: str, otlp_url: str, pid: int) -> None:
        self.name, self._url, self._otlp_url, self._pid = name, url, otlp_url, pid
        self._session = requests.Session()

    def fill(self, bodies: list[bytes]) -> tuple[float, float]:
        """Send all requests one after the other; return the s that it took, and the server's CPU s."""
        before, start = self.cpu_s(), time.perf_counter()
        for body in bodies:
            answer = self._session.post(
                f"{self._otlp_url}/v1/traces",
                body,
                headers={"Content-Type": "application/x-protobuf"},
                timeout=60,
            )
            assert answer.status_code == 200, answer.text
        return time.perf_counter() - start, self.cpu_s() - before

    def ask(self, path: str, parameters: dict[str, str], rounds: int) -> tuple[int, list[float]]:
        """Return how many traces were found, and the ms of each round, after one that warms up."""
        took = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            answer = self._session.get(f"{self._url}{path}", params=parameters, timeout=120)
            took.append((time.perf_counter() - start) * 1000)
            assert answer.status_code == 200, answer.text
        return len(answer.json()["data"]), took[1:]

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self._pid}/statm").read_text().split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )


def in_process(bodies: list[bytes], spans: int) -> None:
    """The store alone, without HTTP, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        with Store(Path(folder) / "store", Limits(size_bytes=8 << 30)) as store:
            before, start = time.process_time(), time.perf_counter()
            for body in bodies:
                store.add(ExportTraceServiceRequest.FromString(body))
            cpu_s, took_s = time.process_time() - before, time.perf_counter() - start
        size = (Path(folder) / "store").stat().st_size
    print("\nThe store alone, on a disk:")
    print(f"  in    {spans / took_s:10,.0f} spans/s, {cpu_s / spans * 1e6:.1f} us of CPU a span")
    print(
        f"  size  {size / spans:10.0f} bytes a span, of {sum(map(len, bodies)) / spans:.0f} that were sent"
    )


def main() -> None:
    spans = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}; {spans:,} spans")
    now_ns, chance = time.time_ns(), random.Random(1)
    bodies = [
        request(first, TRACES_A_REQUEST, now_ns, chance)
        for first in range(0, spans // SPANS_A_TRACE, TRACES_A_REQUEST)
    ]
    in_process(bodies, spans)
    with Viewer("--max-bytes", "8G") as viewer, Jaeger() as jaeger:
        assert viewer.process is not None
        assert jaeger._process is not None
        ours = Peer("viewer", viewer.url, viewer.otlp_http_endpoint, viewer.process.pid)
        theirs = Peer(
            "Jaeger", jaeger.query.base_url, jaeger.otlp_http_endpoint, jaeger._process.pid
        )
        print("\nBoth over HTTP:")
        for peer in (ours, theirs):
            took_s, cpu_s = peer.fill(bodies)
            print(
                f"  {peer.name:7} in {spans / took_s:9,.0f} spans/s, {cpu_s / spans * 1e6:5.1f} us of CPU a span, "
                f"{peer.resident_bytes() / spans:6.0f} resident bytes a span"
            )
        print(
            "\nSearches, limit 20, ms:     found   viewer's list p50/p99   traces p50/p99   Jaeger's traces p50/p99"
        )
        for name, parameters in searches(now_ns).items():
            found, summaries = ours.ask("/api/trace-summaries", parameters, ROUNDS)
            found_too, traces = ours.ask("/api/traces", parameters, ROUNDS)
            their_rounds = ROUNDS if theirs.ask("/api/traces", parameters, 1)[1][0] < 500 else 3
            found_there, jaegers = theirs.ask("/api/traces", parameters, their_rounds)
            assert found == found_too == found_there, (name, found, found_too, found_there)
            columns = "   ".join(quantiles(each) for each in (summaries, traces, jaegers))
            print(f"  {name:34} {found:3}   {columns}")


def quantiles(took_ms: list[float]) -> str:
    ordered = sorted(took_ms)
    return f"{statistics.median(ordered):8.1f} /{ordered[int(len(ordered) * 0.99)]:8.1f}"


if __name__ == "__main__":
    main()
