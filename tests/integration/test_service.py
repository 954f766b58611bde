"""Connections through a Service, in network namespaces with kube-proxy's rules, as real conntrack tells them."""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from k8s_tracing.dataplane.flows import Conntrack, ConntrackStats, Join
from k8s_tracing.dataplane.names import StaticNames
from k8s_tracing.dataplane.netfilter import Questions, switch_on
from k8s_tracing.libraries import load
from k8s_tracing.otlp import parse_request, to_request
from k8s_tracing.record import SpanRecord
from tests.support import service_net
from tests.support.service_net import ENDPOINTS, NAMES, PORT, TARGET_PORT, VIRTUAL_IP, ServiceNet
from tests.support.wait import wait_for

pytestmark = pytest.mark.alone

PEER = str(Path(__file__).with_name("service_peer.py"))
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module", params=["iptables", "nftables"])
def net(request: pytest.FixtureRequest) -> Iterator[ServiceNet]:
    with service_net.service_net(request.param) as made:
        yield made


@pytest.fixture
def conntrack(net: ServiceNet) -> Iterator[Conntrack]:
    assert net.inside("node", switch_on) == []
    with net.inside("node", Conntrack) as listening:
        yield listening


@pytest.fixture
def served(net: ServiceNet) -> Iterator[None]:
    """Both endpoints answer."""
    pods = {"one": ENDPOINTS[0], "two": ENDPOINTS[1]}
    with ExitStack() as stack:
        commands = [
            net.command(pod, sys.executable, PEER, "serve", address, str(TARGET_PORT))
            for pod, address in pods.items()
        ]
        stack.enter_context(service_net.processes(commands))
        for address in pods.values():
            wait_for(f"{address} answers", lambda address=address: _answers(net, address), 20)
        yield


def _answers(net: ServiceNet, address: str) -> bool:
    said = net.run("client", sys.executable, PEER, "ask", address, str(TARGET_PORT), "1", "1")
    return "error" not in json.loads(said)


def ask(net: ServiceNet, connections: int, requests: int = 1, pod: str = "client") -> list[Any]:
    said = net.run(
        pod, sys.executable, PEER, "ask", VIRTUAL_IP, str(PORT), str(connections), str(requests)
    )
    return [json.loads(line) for line in said.splitlines()]


def heard(conntrack: Conntrack, flows: int) -> tuple[bytes, Any]:
    """Read until that many flows were told; their bytes, and what is in them."""

    def enough() -> bool:
        conntrack.read()
        return conntrack.stats.flows >= flows

    wait_for(f"{flows} flows", enough)
    block = conntrack.take()
    ffi, _ = load("dataplane")
    # The array and not a list: it keeps the memory that its elements lie in.
    return block, ffi.from_buffer("struct flow[]", block)


def text(address: Any) -> str:
    return str(ipaddress.IPv6Address(bytes(address)).ipv4_mapped)


def test_each_connection_is_one_flow_between_its_two_ends(
    net: ServiceNet, conntrack: Conntrack, served: None
) -> None:
    asked = ask(net, 20)
    _, flows = heard(conntrack, 20)
    established = {flow.client_port: flow for flow in flows if flow.outcome == 0}
    assert len(asked) == len(established) == 20
    for request in asked:
        flow = established[request["local"][1]]
        assert [text(flow.source), flow.source_port] == request["peer"]
        assert [text(flow.endpoint), flow.endpoint_port] == request["own"]
        assert (text(flow.virtual_ip), flow.virtual_port) == (VIRTUAL_IP, PORT)
        assert flow.kernel_times == _kernel_stamps()
        assert request["before_ns"] <= flow.new_ns <= flow.reply_ns <= flow.established_ns
        if flow.kernel_times:
            assert flow.established_ns <= request["time_ns"]
    assert {text(flow.endpoint) for flow in flows} == set(ENDPOINTS)


def test_a_kept_connection_is_one_flow(net: ServiceNet, conntrack: Conntrack, served: None) -> None:
    asked = ask(net, 1, requests=5)
    block, flows = heard(conntrack, 1)
    assert len({flow.client_port for flow in flows}) == 1
    out = joined(block, asked)
    [service] = [span for span in out if span.scope_name == "k8s_tracing.service"]
    callers = [span for span in out if span.kind == "CLIENT"]
    assert service.parent_span_id == callers[0].span_id
    assert [len(caller.links) for caller in callers] == [0, 1, 1, 1, 1]


def test_an_endpoint_that_calls_its_own_service_is_masqueraded_and_found(
    net: ServiceNet, conntrack: Conntrack, served: None, request: pytest.FixtureRequest
) -> None:
    asked = ask(net, 12, pod="one")
    block, _ = heard(conntrack, 12)
    out = joined(block, asked)
    services = [span for span in out if span.scope_name == "k8s_tracing.service"]
    assert len(services) == 12
    chosen = {span.parent_span_id: span.attributes["network.peer.address"] for span in services}
    for number, said in enumerate(asked, 1):
        assert chosen[f"{number:016x}"] == said["own"][0]


def test_a_refused_connection_is_told(net: ServiceNet, conntrack: Conntrack) -> None:
    asked = ask(net, 3)
    assert all("error" in request for request in asked)
    block, flows = heard(conntrack, 3)
    assert [flow.outcome for flow in flows] == [1, 1, 1]
    with Join(StaticNames(NAMES)) as join:
        join.add(block)
        body, count = join.flush()
    spans = parse_request(body)
    assert count == 3
    for span, request in zip(spans, asked, strict=True):
        assert span.attributes["error.type"] == "connection_refused"
        assert span.name == "service default/web:http"
        assert request["before_ns"] <= span.start_time_ns <= span.end_time_ns
        assert span.start_time_ns <= request["after_ns"]


def test_nothing_is_lost_and_nobody_joined_wrong_at_thousands_of_connections(
    net: ServiceNet, conntrack: Conntrack, served: None
) -> None:
    connections = 2_500 if net.mode == "iptables" else 250
    asked = ask(net, connections, requests=2)
    block, _ = heard(conntrack, connections)
    assert conntrack.stats.overflows == conntrack.stats.incomplete == 0
    out = joined(block, asked)
    services = [span for span in out if span.scope_name == "k8s_tracing.service"]
    assert len(asked) == 2 * connections
    assert len(services) == connections
    truth = {
        f"{number:016x}": (said["local"][1], said["own"][0])
        for number, said in enumerate(asked, 1)
        if said["number"] == 0
    }
    assert truth == {
        span.parent_span_id: (
            span.attributes["source.port"],
            span.attributes["network.peer.address"],
        )
        for span in services
    }


def joined(block: bytes, asked: list[Any]) -> list[SpanRecord]:
    """Pass the spans that both ends would have made."""
    spans = []
    for number, said in enumerate(asked, 1):
        begin_ns = said["before_ns"] if said["number"] == 0 else said["time_ns"] - 1000
        caller = SpanRecord(
            trace_id=TRACE,
            span_id=f"{number:016x}",
            name="ask",
            kind="CLIENT",
            start_time_ns=begin_ns,
            end_time_ns=said["after_ns"],
            attributes={
                "network.local.address": said["local"][0],
                "network.local.port": said["local"][1],
                "network.peer.address": VIRTUAL_IP,
                "network.peer.port": PORT,
            },
        )
        callee = SpanRecord(
            trace_id=TRACE,
            span_id=f"{number + 1_000_000:016x}",
            parent_span_id=caller.span_id,
            name="answer",
            kind="SERVER",
            start_time_ns=said["time_ns"],
            end_time_ns=said["time_ns"],
            attributes={
                "network.peer.address": said["peer"][0],
                "network.peer.port": said["peer"][1],
                "network.local.port": TARGET_PORT,
            },
        )
        spans += [callee, caller]
    out = []
    with Join(StaticNames(NAMES)) as join:
        join.add(block)
        for at in range(0, len(spans), 512):
            body, _ = join.pass_on(to_request(spans[at : at + 512]))
            out += parse_request(body)
        assert (join.stats.ambiguous, join.stats.unverified) == (0, 0)
    return out


@pytest.mark.parametrize("place", ["client", "one", "node"])
def test_conntrack_is_asked_for_a_connection_that_nobody_listened_to(
    net: ServiceNet, served: None, place: str
) -> None:
    """Of a pod, of one that may be sent to itself, of a process on the node: each knows its own address."""

    def opened() -> socket.socket:
        return socket.create_connection((VIRTUAL_IP, PORT), timeout=5)

    assert net.inside("node", switch_on) == []
    net.run("node", "ip", "route", "replace", f"{VIRTUAL_IP}/32", "dev", "br0")  # as any node has
    with (
        net.inside("node", Questions) as questions,
        Join(StaticNames(NAMES)) as join,
        ExitStack() as stack,
    ):
        join.pass_on(b"")
        join.ask(questions.fileno(), 5 * 10**9, is_stamped=True)
        for _ in range(8):
            connection = stack.enter_context(net.inside(place, opened))
            connection.sendall(b"?\n")
            said = json.loads(connection.makefile().readline())
            pod = {ENDPOINTS[0]: "one", ENDPOINTS[1]: "two"}[said["own"][0]]
            local = connection.getsockname()
            assert _said_of(join, local) == {
                "k8s_tracing.service.name": "default/web:http",
                "k8s_tracing.service.pod.name": pod,
                "k8s_tracing.service.node.name": "node-1",
            }
            connection.close()
            # From a port that is not its own there is no connection.
            assert _said_of(join, (local[0], 1)) == {
                "k8s_tracing.service.name": "default/web:http",
                "k8s_tracing.service.decision": "not observed",
            }
        assert (join.stats.questions, join.stats.untold, join.stats.unobserved) == (9, 8, 8)


def test_a_connection_that_was_closed_is_known_for_longer_than_it_is_asked_for(
    net: ServiceNet, served: None
) -> None:
    def opened() -> socket.socket:
        return socket.create_connection((VIRTUAL_IP, PORT), timeout=5)

    net.sysctl("net/netfilter/nf_conntrack_tcp_timeout_close", 2)
    with net.inside("node", Questions) as questions, Join(StaticNames(NAMES)) as join:
        join.pass_on(b"")
        terms = net.inside("node", lambda: questions.terms(ConntrackStats(*[0] * 8)))
        assert terms is not None
        ended = []
        for reset in (False, True):
            connection = net.inside("client", opened)
            local = connection.getsockname()
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            ended.append((time.monotonic(), local))
        closed_s, _ = ended[-1]
        assert terms.kept_ns == 10**9
        time.sleep(max(0, closed_s + terms.kept_ns / 1e9 - time.monotonic()))
        join.ask(questions.fileno(), terms.kept_ns, is_stamped=terms.is_stamped)
        for _, local in ended:
            assert "k8s_tracing.service.pod.name" in _said_of(join, local)


def test_of_ipv6_it_is_asked_as_well(net: ServiceNet) -> None:
    six = StaticNames([NAMES[0] | {"addresses": ["fd00:96::10"]}])
    with net.inside("node", Questions) as questions, Join(six) as join:
        join.pass_on(b"")
        join.ask(questions.fileno(), 5 * 10**9, is_stamped=True)
        assert _said_of(join, ("fd00::1", 40000), "fd00:96::10") == {
            "k8s_tracing.service.name": "default/web:http",
            "k8s_tracing.service.decision": "not observed",
        }


def _said_of(join: Join, local: tuple[str, int], peer: str = VIRTUAL_IP) -> dict[str, Any]:
    """What is said of a request that used that socket a moment ago."""
    now_ns = time.time_ns()
    span = SpanRecord(
        trace_id=TRACE,
        span_id=f"{1:016x}",
        name="ask",
        kind="CLIENT",
        start_time_ns=now_ns - 2000,
        end_time_ns=now_ns - 1000,
        attributes={
            "network.local.address": local[0],
            "network.local.port": local[1],
            "network.peer.address": peer,
            "network.peer.port": PORT,
        },
    )
    [out] = parse_request(join.pass_on(to_request([span]), now_ns)[0])
    return {key: value for key, value in out.attributes.items() if key not in span.attributes}


def _kernel_stamps() -> bool:
    """Linux 6.14 and newer stamp conntrack's events."""
    release = Path("/proc/sys/kernel/osrelease").read_text().split(".")
    return (int(release[0]), int(release[1])) >= (6, 14)


def test_what_is_heard_is_of_the_namespace_of_the_thread_that_asked(net: ServiceNet) -> None:
    with net.inside("client", Conntrack) as elsewhere:
        ask(net, 2)
        time.sleep(0.2)
        elsewhere.read()
        assert elsewhere.stats.flows == 0
