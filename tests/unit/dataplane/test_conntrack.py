"""Messages of conntrack's, put together by hand -> flows."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8s_tracing.dataplane.flows import Conntrack
from k8s_tracing.libraries import load

S = 10**9
T0 = 1_795_333_000 * S
NEW, UPDATE = 0x600, 0
SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE = 1, 2, 3, 4, 8
DST_NAT = 1 << 5
ESTABLISHED_FLOW, REFUSED, UNANSWERED, CLOSED = range(4)


def attribute(kind: int, content: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(content), kind) + content + b"\0" * (-len(content) % 4)


def tuple_of(source: tuple[str, int], target: tuple[str, int], protocol: int) -> bytes:
    family = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
    first = 3 if family == socket.AF_INET6 else 1
    addresses = attribute(first, socket.inet_pton(family, source[0])) + attribute(
        first + 1, socket.inet_pton(family, target[0])
    )
    ports = (
        attribute(1, bytes([protocol]))
        + attribute(2, struct.pack(">H", source[1]))
        + attribute(3, struct.pack(">H", target[1]))
    )
    return attribute(1, addresses) + attribute(2, ports)


def message(
    state: int | None,
    *,
    flags: int = UPDATE,
    destroyed: bool = False,
    identity: int = 7,
    status: int = DST_NAT,
    time_ns: int | None = None,
    zone: int = 0,
    protocol: int = 6,
    client: tuple[str, int] = ("10.0.0.1", 40000),
    virtual: tuple[str, int] = ("10.96.0.10", 80),
    endpoint: tuple[str, int] = ("10.0.0.2", 8080),
) -> bytes:
    content = attribute(1, tuple_of(client, virtual, protocol))
    content += attribute(2, tuple_of(endpoint, client, protocol))
    content += attribute(3, struct.pack(">I", status)) + attribute(12, struct.pack(">I", identity))
    if state is not None:
        content += attribute(4, attribute(1, attribute(1, bytes([state]))))
    if time_ns is not None:
        content += attribute(27, struct.pack(">Q", time_ns))
    if zone:
        content += attribute(18, struct.pack(">H", zone))
    kind = 1 << 8 | (2 if destroyed else 0)
    return struct.pack("=IHHII", 20 + len(content), kind, flags, 0, 0) + b"\2\0\0\0" + content


@pytest.fixture
def conntrack() -> Iterator[Conntrack]:
    with Conntrack(listens=False) as made:
        yield made


def told(conntrack: Conntrack) -> list[dict[str, Any]]:
    ffi, _ = load("dataplane")
    flows = conntrack.take()
    fields = ("outcome", "new_ns", "reply_ns", "established_ns", "closed_ns", "kernel_times")
    return [
        {name: getattr(flow, name) for name in fields}
        for flow in ffi.from_buffer("struct flow[]", flows)
    ]


def test_the_kernels_times_are_taken_where_there_are_some(conntrack: Conntrack) -> None:
    conntrack.feed(message(SYN_SENT, flags=NEW, time_ns=T0 + 1), T0 + 100)
    conntrack.feed(
        message(SYN_RECV, time_ns=T0 + 2) + message(ESTABLISHED, time_ns=T0 + 3), T0 + 200
    )
    [flow] = told(conntrack)
    assert flow == {
        "outcome": ESTABLISHED_FLOW,
        "new_ns": T0 + 1,
        "reply_ns": T0 + 2,
        "established_ns": T0 + 3,
        "closed_ns": 0,
        "kernel_times": 1,
    }


def test_else_the_time_of_receipt(conntrack: Conntrack) -> None:
    for number, state in enumerate((SYN_SENT, SYN_RECV, ESTABLISHED)):
        conntrack.feed(message(state, flags=0 if number else NEW), T0 + number)
    [flow] = told(conntrack)
    assert (flow["new_ns"], flow["established_ns"], flow["kernel_times"]) == (T0, T0 + 2, 0)


def test_the_first_sign_of_an_end_is_the_end(conntrack: Conntrack) -> None:
    for number, state in enumerate((SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE)):
        conntrack.feed(message(state, flags=0 if number else NEW), T0 + number)
    conntrack.feed(message(None, destroyed=True), T0 + 9)
    assert [(flow["outcome"], flow["closed_ns"]) for flow in told(conntrack)] == [
        (ESTABLISHED_FLOW, 0),
        (CLOSED, T0 + 3),
    ]
    assert conntrack.stats.open == 0


def test_what_is_gone_before_it_was_answered_was_refused(conntrack: Conntrack) -> None:
    conntrack.feed(message(SYN_SENT, flags=NEW), T0)
    conntrack.feed(message(None, destroyed=True), T0 + 5)
    [flow] = told(conntrack)
    assert (flow["outcome"], flow["closed_ns"]) == (REFUSED, T0 + 5)


def test_what_is_not_answered_for_ten_seconds_is_told_once(conntrack: Conntrack) -> None:
    conntrack.feed(message(SYN_SENT, flags=NEW), T0)
    conntrack.feed(b"", T0 + 9 * S)
    assert told(conntrack) == []
    conntrack.feed(b"", T0 + 11 * S)
    [flow] = told(conntrack)
    assert flow["outcome"] == UNANSWERED
    conntrack.feed(message(None, destroyed=True), T0 + 120 * S)
    assert told(conntrack) == []


@pytest.mark.parametrize("other", [{"status": 0}, {"protocol": 17}])
def test_what_is_no_translated_tcp_connection_is_not_told(
    conntrack: Conntrack, other: dict[str, Any]
) -> None:
    for number, state in enumerate((SYN_SENT, SYN_RECV, ESTABLISHED)):
        conntrack.feed(message(state, flags=0 if number else NEW, **other), T0)
    assert told(conntrack) == []


def test_what_began_before_we_listened_is_counted(conntrack: Conntrack) -> None:
    conntrack.feed(message(ESTABLISHED), T0)
    assert (told(conntrack), conntrack.stats.incomplete) == ([], 1)


def test_connections_in_zones_are_counted(conntrack: Conntrack) -> None:
    conntrack.feed(message(SYN_SENT, flags=NEW) + message(SYN_SENT, flags=NEW, zone=65520), T0)
    assert conntrack.stats.in_zones == 1


def test_ipv6(conntrack: Conntrack) -> None:
    places = {
        "client": ("fd00::1", 40000),
        "virtual": ("fd00::10", 80),
        "endpoint": ("fd00::2", 8080),
    }
    for number, state in enumerate((SYN_SENT, SYN_RECV, ESTABLISHED)):
        conntrack.feed(message(state, flags=0 if number else NEW, **places), T0)  # type: ignore[arg-type]
    ffi, _ = load("dataplane")
    flows = conntrack.take()
    [flow] = ffi.from_buffer("struct flow[]", flows)
    assert socket.inet_ntop(socket.AF_INET6, bytes(flow.endpoint)) == "fd00::2"


def test_a_length_that_cannot_be_ends_the_messages(conntrack: Conntrack) -> None:
    conntrack.feed(message(SYN_SENT, flags=NEW)[:-1], T0)
    assert conntrack.stats.malformed == 1


@given(st.data())
def test_damaged_messages_do_no_harm(data: st.DataObject) -> None:
    good = bytearray(message(SYN_SENT, flags=NEW) + message(SYN_RECV) + message(ESTABLISHED))
    for _ in range(data.draw(st.integers(1, 8))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with Conntrack(listens=False) as conntrack:
        conntrack.feed(bytes(good), T0)
        told(conntrack)
