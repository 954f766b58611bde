"""Flows and spans of both ends -> spans of the Service: who is joined with whom, and who is not."""

from __future__ import annotations

import ipaddress
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8s_tracing.dataplane.flows import Join
from k8s_tracing.dataplane.names import StaticNames
from k8s_tracing.libraries import load
from k8s_tracing.otlp import parse_request, to_request
from k8s_tracing.record import SpanRecord

MS = 1_000_000
T0 = 1_795_333_000_000_000_000
VIP, CLIENT, ENDPOINT, NODE = "10.96.0.10", "10.244.0.10", "10.244.0.11", "10.244.0.1"
TRACE = "0af7651916cd43dd8448eb211c80319c"
NAMES = StaticNames(
    [
        {
            "namespace": "default",
            "name": "web",
            "addresses": [VIP],
            "ports": [
                {
                    "name": "http",
                    "port": 80,
                    "endpoints": [{"address": ENDPOINT, "port": 8080, "pod": "web-1", "node": "n"}],
                }
            ],
        }
    ]
)


def packed(address: str) -> bytes:
    return ipaddress.IPv6Address(f"::ffff:{address}").packed


def flow(
    port: int = 40000,
    new_ms: float = 0,
    *,
    outcome: int = 0,
    closed_ms: float | None = None,
    source: tuple[str, int] | None = None,
    identity: int = 1,
) -> dict[str, Any]:
    new_ns = T0 + int(new_ms * MS)
    source = source or (CLIENT, port)
    return {
        "client": packed(CLIENT),
        "virtual_ip": packed(VIP),
        "endpoint": packed(ENDPOINT),
        "source": packed(source[0]),
        "client_port": port,
        "virtual_port": 80,
        "endpoint_port": 8080,
        "source_port": source[1],
        "id": identity,
        "outcome": outcome,
        "kernel_times": 1,
        "new_ns": new_ns,
        "reply_ns": new_ns + MS // 10 if outcome in (0, 3) else 0,
        "established_ns": new_ns + MS // 5 if outcome in (0, 3) else 0,
        "closed_ns": 0 if closed_ms is None else T0 + int(closed_ms * MS),
    }


def block(*flows: dict[str, Any]) -> bytes:
    ffi, _ = load("dataplane")
    return bytes(ffi.buffer(ffi.new("struct flow[]", list(flows))))


def span(
    kind: str,
    start_ms: float,
    end_ms: float,
    span_id: str,
    parent: str = "",
    trace: str = TRACE,
    **attributes: Any,
) -> SpanRecord:
    return SpanRecord(
        trace_id=trace,
        span_id=span_id,
        parent_span_id=parent,
        name=kind,
        kind=kind,
        start_time_ns=T0 + int(start_ms * MS),
        end_time_ns=T0 + int(end_ms * MS),
        attributes={key.replace("__", "."): value for key, value in attributes.items()},
        resource={"service.name": "shop"},
    )


def client(
    start_ms: float, end_ms: float, port: int = 40000, n: int = 1, **kwargs: Any
) -> SpanRecord:
    return span(
        "CLIENT",
        start_ms,
        end_ms,
        f"{n:016x}",
        network__local__address=CLIENT,
        network__local__port=port,
        network__peer__address=VIP,
        network__peer__port=80,
        **kwargs,
    )


def server(
    start_ms: float, end_ms: float, parent: int = 1, port: int = 40000, n: int = 100, **kwargs: Any
) -> SpanRecord:
    return span(
        "SERVER",
        start_ms,
        end_ms,
        f"{n:016x}",
        f"{parent:016x}",
        net__peer__ip=CLIENT,
        net__peer__port=port,
        **kwargs,
    )


def passed(join: Join, *spans: SpanRecord) -> list[SpanRecord]:
    body, _ = join.pass_on(to_request(spans))
    return parse_request(body)


def services(spans: list[SpanRecord]) -> list[SpanRecord]:
    return [span for span in spans if span.scope_name == "k8s_tracing.service"]


def test_the_request_that_opened_a_connection_is_the_services_parent() -> None:
    with Join(NAMES) as join:
        join.add(block(flow(new_ms=2)))
        caller, service = passed(join, client(1, 9))
    assert caller.attributes["k8s_tracing.service.name"] == "default/web:http"
    assert caller.links == ()
    assert service.name == "service default/web:http"
    assert (service.trace_id, service.parent_span_id) == (TRACE, f"{1:016x}")
    assert service.service_name == "default/web"
    assert (service.start_time_ns, service.end_time_ns) == (T0 + 2 * MS, T0 + 2 * MS + MS // 5)
    assert service.attributes == {
        "k8s_tracing.service.endpoints": 1,
        "k8s.pod.name": "web-1",
        "k8s.node.name": "n",
        "network.transport": "tcp",
        "source.address": CLIENT,
        "source.port": 40000,
        "destination.address": VIP,
        "destination.port": 80,
        "network.peer.address": ENDPOINT,
        "network.peer.port": 8080,
        "k8s_tracing.service.syn_ack_ns": MS // 10,
        "k8s_tracing.service.ack_ns": MS // 5 - MS // 10,
        "k8s_tracing.service.clock": "kernel",
    }


@pytest.mark.parametrize("server_first", [True, False])
def test_a_server_span_shows_whose_connection_it_is(server_first: bool) -> None:
    caller = span("CLIENT", 1, 9, f"{1:016x}")  # gRPC's clients do not know their address
    callee = server(4, 8)
    with Join(NAMES) as join:
        join.add(block(flow(new_ms=2)))
        first, second = (callee, caller) if server_first else (caller, callee)
        out = passed(join, first) + passed(join, second)
    [service] = services(out)
    assert service.parent_span_id == caller.span_id


@pytest.mark.parametrize(
    ("port", "services_made"), [("40000", 1), ("40001", 0), ("4000x", 0), ("", 0), ("105536", 0)]
)
def test_a_port_may_be_text_as_grpcs_instrumentation_writes_it(
    port: Any, services_made: int
) -> None:
    caller = span("CLIENT", 1, 9, f"{1:016x}")
    with Join(NAMES) as join:
        join.add(block(flow(new_ms=2)))
        assert len(services(passed(join, caller, server(3, 8, port=port)))) == services_made


def test_masquerade_is_followed() -> None:
    callee = span(
        "SERVER",
        4,
        8,
        f"{9:016x}",
        f"{1:016x}",
        network__peer__address=NODE,
        network__peer__port=3564,
        network__local__port=8080,
    )
    with Join(NAMES) as join:
        join.add(block(flow(new_ms=2, source=(NODE, 3564))))
        out = passed(join, span("CLIENT", 1, 9, f"{1:016x}"), callee)
    assert len(services(out)) == 1


def test_later_requests_get_a_link_to_the_services_span() -> None:
    with Join(NAMES) as join:
        join.add(block(flow(new_ms=2)))
        [service] = services(passed(join, client(1, 9)))
        [second] = passed(join, client(20, 29, n=2))
        [third] = passed(join, server(21, 28, parent=2))
        assert join.stats.reused == 2
    for later in (second, third):
        [link] = later.links
        assert (link.trace_id, link.span_id) == (TRACE, service.span_id)
        assert later.attributes["k8s_tracing.service.name"] == "default/web:http"


def test_a_request_that_found_the_connection_open_did_not_open_it() -> None:
    with Join(NAMES) as join:
        join.add(block(flow(new_ms=2)))
        out = passed(join, client(5, 9)) + passed(join, server(6, 8, parent=1))
        assert services(out) == []
        assert (join.stats.joined, join.stats.reused) == (0, 0)


def test_a_server_span_alone_opens_nothing() -> None:
    with Join(NAMES) as join:
        join.add(block(flow(new_ms=2)))
        assert services(passed(join, server(4, 8, parent=77))) == []
        join.add(block(flow(new_ms=2, outcome=3, closed_ms=9)))
        join.add(block(flow(port=1, new_ms=400_000, identity=5)))
        assert join.stats.unverified == 1


def test_a_parent_of_another_trace_is_none() -> None:
    with Join(NAMES) as join:
        join.add(block(flow(new_ms=2)))
        out = passed(join, server(4, 8, trace="f" * 32)) + passed(
            join, span("CLIENT", 1, 9, f"{1:016x}")
        )
    assert services(out) == []


def test_a_port_that_is_used_again_is_told_apart_by_time() -> None:
    with Join(NAMES) as join:
        join.add(
            block(
                flow(new_ms=2, outcome=3, closed_ms=10),
                flow(new_ms=50, identity=2),
            )
        )
        first = services(passed(join, client(1, 9)))
        second = services(passed(join, client(49, 60, n=2)))
        assert join.stats.ambiguous == 0
    assert [s.start_time_ns - T0 for s in first + second] == [2 * MS, 50 * MS]


def test_two_connections_that_fit_are_joined_with_none() -> None:
    with Join(NAMES) as join:
        join.add(block(flow(new_ms=2), flow(new_ms=3, identity=2)))
        out = passed(join, client(1, 9))
        assert (len(out), join.stats.ambiguous, out[0].links) == (1, 1, ())
        assert "k8s_tracing.service.name" not in out[0].attributes


@pytest.mark.parametrize(
    ("outcome", "after_ms", "error", "again"),
    [(1, 1, "connection_refused", None), (2, 10_000, "timeout", 3)],
)
def test_a_connection_that_failed_is_told_as_a_trace_of_its_own(
    outcome: int, after_ms: int, error: str, again: int | None
) -> None:
    with Join(NAMES) as join:
        join.add(block(flow(new_ms=0, outcome=outcome, closed_ms=after_ms)))
        body, count = join.flush()
        [service] = parse_request(body)
        assert (count, join.stats.failed, join.flush()) == (1, 1, (b"", 0))
    assert (service.status, service.attributes["error.type"]) == ("ERROR", error)
    assert service.parent_span_id == ""
    assert int(service.trace_id, 16)
    assert service.duration_ns == after_ms * MS
    assert service.attributes.get("k8s_tracing.service.syn_retransmissions") == again


def test_a_flow_without_a_name_is_told_by_its_addresses() -> None:
    with Join(StaticNames([])) as join:
        join.add(block(flow(new_ms=2)))
        caller, service = passed(join, client(1, 9))
    assert caller.attributes == client(1, 9).attributes
    assert (service.name, service.service_name) == ("service", "kubernetes-service")
    assert service.attributes["destination.address"] == VIP


def test_ipv6() -> None:
    v6 = flow(new_ms=2) | {"client": ipaddress.IPv6Address("fd00::1").packed}
    caller = span(
        "CLIENT", 1, 9, f"{1:016x}", network__local__address="fd00::1", network__local__port=40000
    )
    with Join(NAMES) as join:
        join.add(block(v6))
        _, service = passed(join, caller)
    assert service.attributes["source.address"] == "fd00::1"


def test_nothing_of_a_request_is_lost_or_changed() -> None:
    """Spans of many resources and scopes pass through; only what was joined is longer."""
    spans = [
        SpanRecord(
            trace_id=TRACE,
            span_id=f"{n:016x}",
            name="x" * (n % 300),
            start_time_ns=T0,
            end_time_ns=T0 + n,
            resource={"service.name": f"s{n % 7}"},
            scope_name=f"scope{n % 3}",
            attributes={"n": n, "list": (1, "a", None), "bytes": b"\0\xff"},
        )
        for n in range(1, 500)
    ]
    joined = [client(1, 9, n=1000), client(20, 30, n=1001), server(21, 29, parent=1001, n=1002)]
    given_spans = spans[:250] + joined + spans[250:]
    with Join(NAMES) as join:
        join.add(block(flow(new_ms=2)))
        out = passed(join, *given_spans)
    added = {"k8s_tracing.service.name"}
    plain = [
        {
            **{name: getattr(s, name) for name in SpanRecord.__slots__ if name != "links"},
            "attributes": {k: v for k, v in s.attributes.items() if k not in added},
        }
        for s in sorted(out, key=lambda s: s.span_id)
        if s.scope_name != "k8s_tracing.service"
    ]
    expected = [
        {name: getattr(s, name) for name in SpanRecord.__slots__ if name != "links"}
        for s in sorted(given_spans, key=lambda s: s.span_id)
    ]
    assert plain == expected


@given(st.binary(max_size=200))
def test_what_is_no_request_passes_through(body: bytes) -> None:
    with Join(NAMES) as join:
        join.add(block(flow(new_ms=2)))
        assert join.pass_on(body)[0] == body


@given(st.data())
def test_a_damaged_request_does_no_harm(data: st.DataObject) -> None:
    body = bytearray(to_request([client(1, 9), server(2, 3)]))
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with Join(NAMES) as join:
        join.add(block(flow(new_ms=2)))
        join.pass_on(bytes(body))


def test_flows_are_bounded() -> None:
    with Join(NAMES, max_flows=100) as join:
        for n in range(1000):
            join.add(block(flow(port=1000 + n, new_ms=n, identity=n)))
        assert (join.stats.open, join.stats.evicted) == (100, 900)
        assert services(passed(join, client(998, 1005, port=1999))) != []


def test_no_join_is_ever_wrong() -> None:
    """Random connections with reused ports, requests one after the other on each, seen in any order."""
    rng = random.Random(20)
    truth: dict[int, str] = {}  # the beginning of a connection -> its opener
    flows, spans, now_ms, number = [], [], 0.0, 0
    busy_until = dict.fromkeys(range(5), 0.0)
    for identity in range(300):
        port = rng.choice(range(5))
        now_ms = max(now_ms + rng.random() * 5, busy_until[port] + 2.5)
        new_ms, at_ms = now_ms, now_ms + 0.5
        for request in range(rng.randint(1, 3)):
            number += 1
            begin_ms = new_ms - rng.random() if request == 0 else at_ms
            end_ms = at_ms + 1 + rng.random()
            spans.append(client(begin_ms, end_ms, port=40000 + port, n=number))
            spans.append(
                server(at_ms + 0.1, end_ms - 0.1, number, 40000 + port, n=100_000 + number)
            )
            if request == 0:
                truth[T0 + int(new_ms * MS)] = f"{number:016x}"
            at_ms = end_ms + 1.5
        busy_until[port] = at_ms
        flows.append(flow(40000 + port, new_ms, outcome=3, closed_ms=at_ms, identity=identity))
    out = []
    with Join(NAMES) as join:
        for each in flows:
            join.add(block(each))
        rng.shuffle(spans)
        for at in range(0, len(spans), 50):
            out += passed(join, *spans[at : at + 50])
        assert join.stats.ambiguous == 0
    found = {s.start_time_ns: s.parent_span_id for s in services(out)}
    assert found == truth
