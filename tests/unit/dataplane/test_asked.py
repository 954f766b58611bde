"""Requests to a virtual IP on connections that no flow tells of: conntrack is asked, and its answer is said or not."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8s_tracing.dataplane.flows import Join
from k8s_tracing.dataplane.names import StaticNames, backend, describe
from k8s_tracing.libraries import load
from k8s_tracing.otlp import parse_request, to_request
from k8s_tracing.record import SpanRecord

S = 10**9
CLIENT, VIP, ENDPOINT = "10.244.0.10", "10.96.0.10", "10.244.0.11"
PORT = 38106

#: Linux 6.18 on a node with kube-proxy's rules: the connection from CLIENT:PORT to VIP:80, so to ENDPOINT:8080;
KNOWN = bytes.fromhex(
    "d4000000000102000100000091450000020000003400018014000180080001000af4000a080002000a60000a1c00028005000100060000000600"
    "020094da000006000300005000003400028014000180080001000af4000b080002000af4000a1c0002800500010006000000060002001f900000"
    "0600030094da000008000300000001ae080008000000000008000c00ec59d73e08000b00000000020800070000069780300004802c0001800500"
    "010003000000050002000a000000050003000a00000006000400230000000600050023000000"
)
#: one that began while nf_conntrack_timestamp was on, and had another port;
STAMPED = bytes.fromhex(
    "e4000000000102000300000091450000020000003400018014000180080001000af4000a080002000a60000a1c00028005000100060000000600"
    "020094e2000006000300005000003400028014000180080001000af4000b080002000af4000a1c0002800500010006000000060002001f900000"
    "0600030094e2000008000300000001ae080008000000000008000c00dca2aeed08000b00000000020800070000069780300004802c0001800500"
    "010003000000050002000a000000050003000a00000006000400230000000600050023000000100014800c00010018ea5af6807e12a0"
)
BEGAN_NS = 0x18EA5AF6807E12A0
#: one that is not there; and what was asked for that.
NONE = bytes.fromhex(
    "5c000000020000000200000091450000feffffff48000000010101000200000000000000020000003400018014000180080001000af4000a0800"
    "02000a60000a1c000280050001000600000006000200000100000600030000500000"
)
QUESTION = NONE[20:]

NOW = BEGAN_NS + 60 * S

ENDPOINTS = [{"address": ENDPOINT, "port": 8080, "pod": "web-1", "node": "n"}]
WEB = {
    "namespace": "shop",
    "name": "web",
    "addresses": [VIP, "fd00:96::10"],
    "ports": [{"name": "http", "port": 80, "endpoints": ENDPOINTS}],
}
OF_WEB = {"k8s_tracing.service.name": "shop/web:http"}
NOT_OBSERVED = OF_WEB | {"k8s_tracing.service.decision": "not observed"}
NAMED = OF_WEB | {"k8s_tracing.service.pod.name": "web-1", "k8s_tracing.service.node.name": "n"}


def refused(error: int) -> bytes:
    return NONE[:16] + struct.pack("=i", -error) + NONE[20:]


class Asked:
    """A join, and the other end of its questions: what the kernel will say is put there before it is asked."""

    def __init__(self, *services: dict[str, Any]) -> None:
        ours, self.kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.setblocking(False)
        self._ours = ours
        self.names = StaticNames(list(services) or [WEB])
        self.join = Join(self.names)
        self.ask()
        self._number = 0

    def ask(self, kept_ns: int = 5 * S, *, is_stamped: bool = True) -> None:
        self.join.ask(self._ours.fileno(), kept_ns, is_stamped=is_stamped)

    def says(self, *answers: bytes) -> None:
        """The answers to the next questions."""
        for answer in answers:
            self._number += 1
            self.kernel.send(answer[:8] + struct.pack("=I", self._number) + answer[12:])

    def passed(self, *spans: SpanRecord, now_ns: int = NOW) -> dict[str, Any]:
        """What was added to the last span's attributes."""
        out = parse_request(self.join.pass_on(to_request(spans), now_ns)[0])
        assert len(out) == len(spans)
        return {
            key: value
            for key, value in out[-1].attributes.items()
            if key not in spans[-1].attributes
        }

    def question(self) -> bytes:
        """The next one that was asked."""
        return self.kernel.recv(4096)

    @property
    def counted(self) -> tuple[int, int, int, int]:
        stats = self.join.stats
        return stats.questions, stats.unobserved, stats.untold, stats.unanswered

    def close(self) -> None:
        self.join.close()
        self.kernel.close()
        self._ours.close()


@pytest.fixture
def asked() -> Iterator[Asked]:
    made = Asked()
    yield made
    made.close()


def client(
    port: int = PORT,
    ago_s: float = 1.0,
    *,
    kind: str = "CLIENT",
    local: str | None = CLIENT,
    peer: tuple[str, int] = (VIP, 80),
    took_s: float = 0.5,
    now_ns: int = NOW,
) -> SpanRecord:
    end_ns = now_ns - int(ago_s * S)
    attributes = {
        "network.local.address": local,
        "network.local.port": port or None,
        "network.peer.address": peer[0],
        "network.peer.port": peer[1],
    }
    return SpanRecord(
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id=f"{1:016x}",
        name="GET",
        kind=kind,
        start_time_ns=end_ns - int(took_s * S),
        end_time_ns=end_ns,
        attributes={key: value for key, value in attributes.items() if value is not None},
        resource={"service.name": "shop"},
    )


def test_what_conntrack_does_not_know_was_decided_by_somebody_else(asked: Asked) -> None:
    asked.says(NONE)
    assert asked.passed(client()) == NOT_OBSERVED
    assert asked.counted == (1, 1, 0, 0)


def test_what_it_knows_and_told_nothing_of_gets_its_service_and_endpoint(asked: Asked) -> None:
    asked.says(KNOWN)
    assert asked.passed(client()) == NAMED
    assert asked.counted == (1, 0, 1, 0)
    assert asked.join.flush() == (b"", 0)


def test_the_question_is_one_that_the_kernel_has_answered(asked: Asked) -> None:
    asked.passed(client(port=1))
    assert asked.question() == QUESTION[:8] + struct.pack("=I", 1) + QUESTION[12:]


def test_ipv6(asked: Asked) -> None:
    asked.says(NONE)
    assert asked.passed(client(local="fd00::1", peer=("fd00:96::10", 80))) == NOT_OBSERVED
    question = asked.question()
    assert question[16] == socket.AF_INET6
    for address in ("fd00::1", "fd00:96::10"):
        assert socket.inet_pton(socket.AF_INET6, address) in question
    assert struct.unpack("=I", question[:4]) == (len(question),)


@pytest.mark.parametrize(
    "answer",
    [
        refused(errno.EPERM),
        refused(errno.EINVAL),
        refused(0),
        NONE[:16],
        KNOWN[:4] + b"\0\0" + KNOWN[6:],
        KNOWN[:100],
        KNOWN[:20],
        b"\xff\xff\0\0" + KNOWN[4:],
        b"\0\0\0\0" + KNOWN[4:],
    ],
)
def test_of_another_answer_nothing_is_concluded(asked: Asked, answer: bytes) -> None:
    asked.says(answer)
    assert asked.passed(client()) == {}
    assert asked.counted == (1, 0, 0, 1)


def test_of_no_answer_nothing_is_concluded_and_one_that_comes_later_is_not_taken_for_the_next(
    asked: Asked,
) -> None:
    assert asked.passed(client()) == {}
    asked.says(NONE, KNOWN)
    assert asked.passed(client()) == NAMED
    assert asked.counted == (2, 0, 1, 1)


def test_where_the_question_cannot_be_asked_nothing_is_concluded(asked: Asked) -> None:
    asked.kernel.close()
    assert asked.passed(client()) == {}
    asked.join.ask(-1, 5 * S, is_stamped=True)
    assert asked.passed(client()) == {}
    assert asked.counted == (1, 0, 0, 2)


def test_connections_of_other_nodes_are_not_asked_for(asked: Asked) -> None:
    assert asked.passed(client(), now_ns=0) == {}
    assert asked.counted == (0, 0, 0, 0)


@pytest.mark.parametrize("ago_s", [5.1, 1000, -1.1])
def test_what_ended_too_long_ago_or_has_not_is_not_asked_for(asked: Asked, ago_s: float) -> None:
    assert asked.passed(client(ago_s=ago_s)) == {}
    assert asked.counted == (0, 0, 0, 1)


def test_nothing_is_asked_while_silence_means_nothing(asked: Asked) -> None:
    asked.ask(kept_ns=0)
    assert asked.passed(client()) == {}
    assert asked.counted == (0, 0, 0, 1)


def test_a_connection_is_asked_for_once_in_ten_seconds(asked: Asked) -> None:
    asked.says(NONE, KNOWN)
    assert asked.passed(client(), client(), client(ago_s=0.1)) == NOT_OBSERVED
    for later_s in (2, 9):
        now_ns = NOW + later_s * S
        assert asked.passed(client(now_ns=now_ns), now_ns=now_ns) == NOT_OBSERVED
    assert asked.join.stats.questions == 1
    now_ns = NOW + 10 * S
    assert asked.passed(client(now_ns=now_ns), now_ns=now_ns) == NAMED
    assert asked.counted == (2, 5, 1, 0)


def test_what_was_answered_is_forgotten_when_it_cannot_be_trusted_any_more(asked: Asked) -> None:
    asked.says(KNOWN, NONE)
    assert asked.passed(client()) == NAMED
    asked.ask()
    assert asked.passed(client()) == NOT_OBSERVED


def test_another_connection_is_asked_for_itself(asked: Asked) -> None:
    asked.says(KNOWN, NONE, NONE)
    assert asked.passed(client()) == NAMED
    assert asked.passed(client(port=PORT + 1)) == NOT_OBSERVED
    assert asked.passed(client(local="10.244.0.12")) == NOT_OBSERVED


def test_a_connection_that_began_after_the_request_ended_is_another_one(asked: Asked) -> None:
    asked.says(STAMPED)
    now_ns = BEGAN_NS + 2 * S
    span = client(port=38114, ago_s=2.1, now_ns=now_ns)
    assert asked.passed(span, now_ns=now_ns) == {}
    assert asked.counted == (1, 0, 0, 1)
    assert asked.passed(client(port=38114, ago_s=1.9, now_ns=now_ns), now_ns=now_ns) == NAMED


def test_without_stamps_it_may_be_another_one_to_another_endpoint(asked: Asked) -> None:
    asked.ask(is_stamped=False)
    asked.says(KNOWN, STAMPED)
    assert asked.passed(client()) == OF_WEB
    assert asked.passed(client(port=38114)) == NAMED


def test_a_connection_that_was_not_translated_proves_nothing(asked: Asked) -> None:
    asked.says(
        KNOWN.replace(socket.inet_aton(ENDPOINT), socket.inet_aton(VIP)).replace(
            b"\x1f\x90", b"\0P"
        )
    )
    assert asked.passed(client()) == {}
    assert asked.passed(client()) == {}
    assert asked.counted == (1, 0, 0, 2)


def test_an_endpoint_of_another_service_is_not_named() -> None:
    other = WEB | {"name": "api", "addresses": ["10.96.0.11"]}
    alone = WEB | {
        "ports": [{"name": "http", "port": 80, "endpoints": [ENDPOINTS[0] | {"port": 1}]}]
    }
    asked = Asked(other, alone)
    asked.says(KNOWN)
    assert asked.passed(client()) == OF_WEB
    asked.close()


def test_each_of_many_connections_gets_its_own_answer(asked: Asked) -> None:
    for port in range(1, 2000):
        answer, said = (KNOWN, NAMED) if port % 2 else (NONE, NOT_OBSERVED)
        asked.says(answer)
        assert asked.passed(client(port=port)) == said
        assert struct.pack(">H", port) in asked.question()
    assert asked.join.stats.questions == 1999


def test_a_service_that_has_left_is_not_asked_for() -> None:
    asked = Asked(WEB, WEB | {"name": "api", "addresses": ["10.96.0.11"]})
    asked.says(NONE)
    assert asked.passed(client()) == NOT_OBSERVED
    asked.names.backends.put("shop", "web")
    assert asked.passed(client()) == {}
    assert asked.join.stats.unanswered == 0
    asked.close()


def test_a_service_is_asked_for_until_its_last_endpoint_has_left() -> None:
    asked = Asked(WEB | {"addresses": [VIP]}, WEB | {"name": "api", "addresses": ["10.96.0.11"]})
    said = describe("shop", "web", "http", 2)
    for number, endpoints in enumerate((["10.244.0.11", "10.244.0.12"], ["10.244.0.12"], [])):
        places = [(address, 8080, dict[str, Any]()) for address in endpoints]
        asked.names.backends.put("shop", "web", [(backend("shop", "web", [VIP], 80, said), places)])
        if endpoints:
            asked.says(NONE)
        assert asked.passed(client(port=1 + number)) == (NOT_OBSERVED if endpoints else {})
    asked.close()


@pytest.mark.parametrize(
    "span",
    [
        client(kind="SERVER"),
        client(kind="INTERNAL"),
        client(peer=(VIP, 443)),
        client(peer=("10.96.0.11", 80)),
        client(peer=(ENDPOINT, 8080)),
    ],
)
def test_what_else_passes_is_not_asked_for(asked: Asked, span: SpanRecord) -> None:
    assert asked.passed(span) == {}
    assert asked.counted == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "own", [{"port": 0}, {"local": None}, {"local": "::"}, {"local": "0.0.0.0"}]
)
def test_a_client_that_does_not_tell_its_address_cannot_be_asked_for(
    asked: Asked, own: dict[str, Any]
) -> None:
    assert asked.passed(client(**own)) == {}
    assert asked.counted == (0, 0, 0, 1)


def test_a_connection_that_a_flow_tells_of_is_not_asked_for(asked: Asked) -> None:
    ffi, _ = load("dataplane")
    places = {
        name: bytes(10) + b"\xff\xff" + socket.inet_aton(address)
        for name, address in (
            ("client", CLIENT),
            ("source", CLIENT),
            ("virtual_ip", VIP),
            ("endpoint", ENDPOINT),
        )
    }
    ports = {"client_port": PORT, "source_port": PORT, "virtual_port": 80, "endpoint_port": 8080}
    flow = {**places, **ports, "new_ns": NOW - 10 * S, "established_ns": NOW - 10 * S}
    asked.join.add(bytes(ffi.buffer(ffi.new("struct flow[]", [flow]))))
    assert asked.passed(client()) == OF_WEB
    assert asked.counted == (0, 0, 0, 0)


def test_so_many_are_asked_for_in_a_second_and_no_more(asked: Asked) -> None:
    asked.kernel.close()
    spans = [client(port=1 + number) for number in range(6000)]
    asked.passed(*spans)
    assert asked.counted == (5000, 0, 0, 6000)
    now_ns = NOW + S
    asked.passed(*(client(port=1, now_ns=now_ns) for _ in range(10)), now_ns=now_ns)
    assert asked.counted == (5010, 0, 0, 6010)


@given(st.data())
def test_damaged_answers_do_no_harm(data: st.DataObject) -> None:
    answer = bytearray(data.draw(st.sampled_from([KNOWN, STAMPED, NONE])))
    for _ in range(data.draw(st.integers(1, 5))):
        answer[data.draw(st.integers(12, len(answer) - 1))] = data.draw(st.integers(0, 255))
    asked = Asked()
    asked.says(bytes(answer[: data.draw(st.integers(12, len(answer)))]))
    asked.passed(client())
    asked.close()
