"""Every field of every event, written by a Python program and read back by babeltrace2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.bt2text import Event
from tests.support.lttng import SessionDaemon

PROGRAM = """
import json, os, threading
import k8s_tracing
from opentelemetry import trace
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

k8s_tracing.init("shop", backend="lttng", resource={"deployment.environment.name": "test"})
tracer = trace.get_tracer("scope.name", "4.5.6")
remote = SpanContext(0xA1 << 64 | 0xB2, 0xC3, True, TraceFlags(1), TraceState([("k", "v")]))
with k8s_tracing.extracted({
    "traceparent": "00-0123456789abcdef1123456789abcdef-00000000000000fe-01",
    "tracestate": "vendor=x",
}):
    span = tracer.start_span(
        "before",
        kind=SpanKind.CONSUMER,
        attributes={"text": "é", "number": -1, "real": 0.5, "truth": True, "list": [1, 2]},
        links=[Link(remote, {"link": "attribute"})],
        start_time=1_700_000_000_000_000_000,
    )
span.add_event("moment", {"event": "attribute"}, 1_700_000_000_000_000_100)
span.add_event("now", {"again": True})
span.set_status(StatusCode.ERROR, "it broke")
span.update_name("after")
for number in range(130):
    span.set_attribute(f"many.{number}", number)
for number in range(130):
    span.add_event("more")
span.end(1_700_000_000_000_000_200)
context = span.get_span_context()
print(json.dumps({
    "span_id": context.span_id, "pid": os.getpid(), "tid": threading.get_native_id(),
}))
"""


@pytest.fixture(scope="module")
def recorded() -> tuple[dict[str, int], list[Event]]:
    with SessionDaemon() as daemon:
        session = daemon.session("events")
        said = json.loads(run_python(PROGRAM, daemon.env))
        session.stop()
        return said, session.read()


def run_python(program: str, env: Mapping[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def only(events: list[Event], name: str) -> Event:
    [event] = [event for event in events if event.name == f"k8s_tracing:{name}"]
    return event


def attributes(pairs: list[KeyValue]) -> dict[str, KeyValue]:
    return {pair.key: pair.value for pair in pairs}


Recorded = tuple[dict[str, int], list[Event]]


def test_process(recorded: Recorded) -> None:
    said, events = recorded
    event = only(events, "process")
    assert event["pid"] == said["pid"]
    assert event["instance_id"] == only(events, "start_span")["instance_id"] != 0
    resource = attributes(list(Resource.FromString(event.otlp_bytes("resource")).attributes))
    assert resource["service.name"].string_value == "shop"
    assert resource["deployment.environment.name"].string_value == "test"
    assert resource["process.pid"].int_value == said["pid"]
    assert resource["host.name"].string_value == os.uname().nodename


def test_scope(recorded: Recorded) -> None:
    _, events = recorded
    scopes = {event["name"]: event for event in events if event.name == "k8s_tracing:scope"}
    start = only(events, "start_span")
    assert scopes["scope.name"]["scope_id"] == start["scope_id"] != 0
    assert scopes["scope.name"]["version"] == "4.5.6"
    assert {scope["instance_id"] for scope in scopes.values()} == {start["instance_id"]}
    assert "k8s_tracing" in scopes


def test_start_span(recorded: Recorded) -> None:
    said, events = recorded
    start = only(events, "start_span")
    assert start["trace_id_high"] == 0x0123456789ABCDEF
    assert start["trace_id_low"] == 0x1123456789ABCDEF
    assert start["span_id"] == said["span_id"]
    assert start["parent_span_id"] == 0xFE
    assert start["start_time"] == 1_700_000_000_000_000_000
    assert start["kind"] == Span.SPAN_KIND_CONSUMER
    assert start["flags"] == 1
    assert start["op_name"] == "before"


def test_end_span(recorded: Recorded) -> None:
    said, events = recorded
    end = only(events, "end_span")
    assert end["trace_id_low"] == 0x1123456789ABCDEF
    assert end["span_id"] == said["span_id"]
    assert end["end_time"] == 1_700_000_000_000_000_200
    assert end["status"] == 2
    assert end["status_message"] == "it broke"
    assert end["op_name"] == "after"
    assert end["dropped_attributes"] == 5 + 130 - 128
    assert end["dropped_events"] == 2 + 130 - 128
    assert end["dropped_links"] == 0
    span = Span.FromString(end.otlp_bytes("attributes"))
    assert span.trace_state == "vendor=x"
    values = attributes(list(span.attributes))
    assert len(values) == 128
    assert values["text"].string_value == "é"
    assert values["number"].int_value == -1
    assert values["real"].double_value == 0.5
    assert values["truth"].bool_value is True
    assert [item.int_value for item in values["list"].array_value.values] == [1, 2]


def test_span_event(recorded: Recorded) -> None:
    said, events = recorded
    moments = [event for event in events if event.name == "k8s_tracing:span_event"]
    assert len(moments) == 128
    assert {event["span_id"] for event in moments} == {said["span_id"]}
    first, second = moments[:2]
    assert (first["name"], second["name"]) == ("moment", "now")
    assert first["time"] == 1_700_000_000_000_000_100
    assert second["time"] == 0
    assert second.timestamp_ns >= first.timestamp_ns > 1_700_000_000_000_000_000
    assert first["dropped_attributes"] == 0
    decoded = Span.Event.FromString(first.otlp_bytes("attributes"))
    assert attributes(list(decoded.attributes))["event"].string_value == "attribute"


def test_span_link(recorded: Recorded) -> None:
    said, events = recorded
    link = only(events, "span_link")
    assert link["span_id"] == said["span_id"]
    assert (link["linked_trace_id_high"], link["linked_trace_id_low"]) == (0xA1, 0xB2)
    assert link["linked_span_id"] == 0xC3
    assert link["flags"] == 1
    assert link["dropped_attributes"] == 0
    decoded = Span.Link.FromString(link.otlp_bytes("attributes"))
    assert attributes(list(decoded.attributes))["link"].string_value == "attribute"
    assert decoded.trace_state == "k=v"


def test_every_event_says_which_thread_in_which_container(recorded: Recorded) -> None:
    said, events = recorded
    namespaces = {name: Path(f"/proc/self/ns/{name}").stat().st_ino for name in ("pid", "cgroup")}
    for event in events:
        assert event.context == {
            "vpid": said["pid"],
            "vtid": said["tid"],
            "pid_ns": namespaces["pid"],
            "cgroup_ns": namespaces["cgroup"],
        }
