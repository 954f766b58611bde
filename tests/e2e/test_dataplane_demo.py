"""`make demo-dataplane`: HotROD behind two ingresses and with Services, on a node of namespaces, in a real Jaeger."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hotrod.dataplane import PODS, SERVICES

from tests.support.hotrod import Span, kind_of, missing_parents, whole_traces
from tests.support.jaeger import Jaeger

pytestmark = pytest.mark.alone

DEMO = Path(__file__).parents[2] / "examples/hotrod/demo_dataplane.py"
MS = 1_000_000
PARTS = {"running_ns", "run_queue_ns", "throttled_ns", "blocked_ns"}
PERIOD_NS = 100 * MS  # of the quota
#: Of the kernel's clock and of LTTng's; and nginx tells milliseconds.
SLACK_NS = 2 * MS


class Shown:
    """With a driver that has too little CPU: what the demo printed, and its traces as Jaeger's query API has them."""

    def __init__(self, jaeger: Jaeger) -> None:
        env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp_http_endpoint}
        command = [sys.executable, str(DEMO), "--once", "--throttle"]
        before = namespaces()
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=150, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert namespaces() == before
        self.text = done.stdout
        self.ids = re.findall(r"customer \d+ .* trace ([0-9a-f]{32})$", done.stdout, re.MULTILINE)
        assert len(self.ids) == len(set(self.ids)) == 4, done.stdout
        self.traces = whole_traces(jaeger.query, self.ids)

    def counted(self, what: str) -> int:
        """A figure of the agent's that the demo shows."""
        [number] = re.findall(rf"^ +(\d+) {what}", self.text, re.MULTILINE)
        return int(number)


def namespaces() -> list[str]:
    """Of this machine."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return sorted(line.split()[0] for line in listed.stdout.splitlines())


@pytest.fixture(scope="module")
def shown(jaeger: Jaeger) -> Shown:
    return Shown(jaeger)


def of_service(spans: list[Span]) -> list[Span]:
    """The spans that tell of connections to Services."""
    return [span for span in spans if span["name"].startswith("service default/")]


def start_ns(span: Span) -> int:
    return int(span["startTimeUnixNano"])


def end_ns(span: Span) -> int:
    return int(span["endTimeUnixNano"])


def test_a_dispatch_is_one_trace_from_the_ingress_to_the_last_service(shown: Shown) -> None:
    for spans in shown.traces:
        assert missing_parents(spans) == set()
        [root] = [span for span in spans if not span.get("parentSpanId")]
        kind = root["service"]
        assert kind in ("haproxy", "nginx")
        [attempt] = [span for span in spans if span["service"] == kind and span is not root]
        [frontend] = [
            span for span in spans if span["service"] == "frontend" and kind_of(span) == "SERVER"
        ]
        assert (kind_of(root), kind_of(attempt)) == ("SERVER", "CLIENT")
        assert attempt["parentSpanId"] == root["spanId"]
        assert frontend["parentSpanId"] == attempt["spanId"]
        assert start_ns(root) <= start_ns(attempt) <= start_ns(frontend) + SLACK_NS
        # Not the frontend's end: its thread may have to wait for its turn when the answer has long arrived.
        assert start_ns(frontend) - SLACK_NS <= end_ns(attempt) <= end_ns(root)
        served = Counter(span["service"] for span in spans if kind_of(span) == "SERVER")
        assert served == {kind: 1, "frontend": 1, "customer": 1, "driver": 1, "route": 10}


def test_both_ways_were_used_at_the_same_time(shown: Shown) -> None:
    roots = [next(span for span in spans if not span.get("parentSpanId")) for spans in shown.traces]
    assert [root["service"] for root in roots] == ["haproxy", "nginx", "haproxy", "nginx"]
    at_once = roots[1:]
    assert max(map(start_ns, at_once)) < min(map(end_ns, at_once))


def test_each_connection_is_a_span_below_the_request_that_opened_it(shown: Shown) -> None:
    """And the endpoint that it names is the one that answered this very request."""
    everywhere = [span for spans in shown.traces for span in spans]
    by_parent = {
        span["parentSpanId"]: span
        for span in everywhere
        if kind_of(span) == "SERVER" and span.get("parentSpanId")
    }
    services = of_service(everywhere)
    for span in services:
        name = span["name"].removeprefix("service default/").partition(":")[0]
        service, attributes = SERVICES[name], span["attributes"]
        answered = by_parent[span["parentSpanId"]]
        pod = "frontend" if name == "frontend" else answered["resource"]["k8s.pod.name"]
        assert answered["service"] == name
        assert attributes["k8s.pod.name"] == answered["resource"]["k8s.pod.name"] == pod
        assert attributes["network.peer.address"] == PODS[pod]
        assert attributes["destination.address"] == service.virtual_ip
        assert attributes["k8s_tracing.service.endpoints"] == len(service.pods)
        assert attributes["source.port"] == peer_port(answered)
        assert start_ns(span) <= end_ns(span) <= start_ns(answered) + SLACK_NS
    opened = {(span["resource"]["k8s.pod.name"], peer_port(span)) for span in by_parent.values()}
    told = {
        (span["attributes"]["k8s.pod.name"], span["attributes"]["source.port"]) for span in services
    }
    assert told == opened
    assert len(services) == len(opened)


def test_a_request_to_the_throttled_pod_says_so(shown: Shown) -> None:
    everywhere = [span for spans in shown.traces for span in spans]
    drivers = [
        span for span in everywhere if span["service"] == "driver" and kind_of(span) == "SERVER"
    ]
    splits = [
        {
            key.removeprefix("k8s_tracing.cpu."): value
            for key, value in span["attributes"].items()
            if key.startswith("k8s_tracing.cpu.") and key.endswith("_ns")
        }
        for span in drivers
    ]
    # What the kernel recorded can have a gap: then nothing is said, and it is counted.
    assert len(splits) - splits.count({}) >= 3
    for span, split in zip(drivers, splits, strict=True):
        if not split:
            continue
        # The first may be over before the quota's timer is told from others.
        assert split.keys() | {"throttled_ns"} == PARTS
        # It may be throttled between the reading of its time and of its end.
        took_ns = end_ns(span) - start_ns(span)
        assert abs(sum(split.values()) - took_ns) <= 2 * PERIOD_NS
        assert split["running_ns"] > 0
    # Not only requests: also what they ask of Redis meanwhile.
    told = {
        span["name"] for span in everywhere if "k8s_tracing.cpu.running_ns" in span["attributes"]
    }
    assert "HGETALL" in told
    # Three that come at once need far more than 4 ms of each 100.
    throttled = [span for span in drivers if "k8s_tracing.cpu.summary" in span["attributes"]]
    assert throttled
    for span in throttled:
        summary = span["attributes"]["k8s_tracing.cpu.summary"]
        assert re.fullmatch(r"needed \S+ \S+ of CPU, was throttled \S+ \S+", summary)
        assert summary in shown.text


def peer_port(span: Span) -> int:
    """The client's, as the server saw it; OpenTelemetry's gRPC instrumentation has its own name for it."""
    attributes = span["attributes"]
    return int(attributes.get("network.peer.port") or attributes["net.peer.port"])


def test_the_first_dispatch_opens_a_connection_to_every_service(shown: Shown) -> None:
    names = Counter(span["service"] for span in of_service(shown.traces[0]))
    assert names.keys() == {f"default/{name}" for name in SERVICES}
    # The frontend's pool for the three routes at a time; what is done may leave its connection to the next.
    assert names.pop("default/route") in (1, 2, 3)
    assert set(names.values()) == {1}


def test_nothing_was_ambiguous_and_the_demo_says_so(shown: Shown) -> None:
    services = sum(len(of_service(spans)) for spans in shown.traces)
    assert shown.counted("opened") == services
    assert shown.counted("joined with the request that opened them") == services
    assert shown.counted("requests that more than one would have fit") == 0
    assert "default/route service default/route:http" in shown.text
