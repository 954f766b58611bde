"""Log lines of proxies -> spans, without a proxy: what the real ones wrote once, and what nobody would write."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8s_tracing.dataplane.ingress import exchange, haproxy, line, nginx
from k8s_tracing.dataplane.ingress.template import template
from k8s_tracing.errors import K8sTracingError

START_US = 1_795_333_054_294_186
HAPROXY: dict[str, Any] = {
    "proxy": "haproxy",
    "service": "ingress",
    "trace": "78cdd66e6c0c442a8c46f8132e9303ab",
    "server": "e5369a6206e74ae2",
    "client": "b4aea19cfdfe7da3",
    "parent": "-",
    "flags": "01",
    "start_us": str(START_US),
    "head_us": str(START_US + 60_000),
    "log_us": str(START_US + 65_000),
    "TR": "2",
    "Tw": "10",
    "Tc": "1",
    "Tr": "49",
    "scheme": "-",
    "method": "GET",
    "host": "shop.example:8080",
    "target": "/slow?a=1",
    "version": "HTTP/1.1",
    "status": "200",
    "bytes": "191",
    "frontend": "ingress",
    "backend": "svc",
    "upstream": "a",
    "from": "127.0.0.1:41828",
    "at": "127.0.0.1:18080",
    "local": "127.0.0.1:59644",
    "peer": "127.0.0.1:18081",
    "end": "--",
    "retries": "+1",
}
NGINX: dict[str, Any] = {
    "proxy": "nginx",
    "service": "ingress",
    "trace": "60138be5217642fd27fa8af18412aaee",
    "server": "60138be5217642fd",
    "client": "27fa8af18412aaee",
    "parent": "",
    "flags": "01",
    "log_s": "1795333121.471",
    "took_s": "0.021",
    "scheme": "https",
    "method": "GET",
    "host": "[2001:db8::1]:8443",
    "target": "/down",
    "version": "HTTP/2.0",
    "status": "200",
    "bytes": "198",
    "from": "2001:db8::2:48850",
    "at": "2001:db8::1:8443",
    "completed": "OK",
    "peer": "10.0.0.1:80, 10.0.0.2:80 : 10.0.0.3:80",
    "connect_s": "-, 0.001 : 0.000",
    "head_s": "-, 0.005 : 0.003",
    "answer_s": "0.010, 0.006 : 0.004",
    "upstream_status": "502, 302 : 200",
}
LOGGED_NS = 1_795_333_121_471_000_000
MS = 1_000_000


def test_haproxys_timers_divide_the_request() -> None:
    server, client = exchange.spans(haproxy.parse(HAPROXY))
    start_ns = START_US * 1000
    assert (server.start_time_ns, server.end_time_ns) == (start_ns - 2 * MS, start_ns + 65 * MS)
    assert (client.start_time_ns, client.end_time_ns) == (start_ns + 10 * MS, start_ns + 65 * MS)
    phases = {
        name.rpartition(".")[2]: value
        for span in (server, client)
        for name, value in span.attributes.items()
        if name.startswith("k8s_tracing.ingress.")
    }
    assert phases == {
        "receive_ns": 2 * MS,
        "queue_ns": 10 * MS,
        "connect_ns": 1 * MS,
        "first_byte_ns": 49 * MS,
        "transfer_ns": 5 * MS,
    }
    assert client.attributes["http.request.resend_count"] == 1
    assert client.attributes["url.full"] == "http://shop.example:8080/slow?a=1"
    assert (server.attributes["server.address"], server.attributes["server.port"]) == (
        "shop.example",
        8080,
    )


@pytest.mark.parametrize(
    ("state", "failure"),
    [
        ("sH", "upstream_timeout"),
        ("SC", "connect"),
        ("sC", "connect_timeout"),
        ("CD", "client_abort"),
    ],
)
def test_haproxys_termination_state_is_the_failure(state: str, failure: str) -> None:
    seen = haproxy.parse(HAPROXY | {"end": state, "Tr": "-1", "head_us": "-", "status": "504"})
    _, client = exchange.spans(seen)
    assert (client.status, client.attributes["error.type"]) == ("ERROR", failure)


def test_what_haproxy_answers_itself_has_no_attempt() -> None:
    seen = haproxy.parse(HAPROXY | {"upstream": "<NOSRV>", "Tw": "-1", "Tc": "-1", "Tr": "-1"})
    assert [span.kind for span in exchange.spans(seen)] == ["SERVER"]


def test_nginx_tries_one_upstream_after_the_other() -> None:
    server, *clients = exchange.spans(nginx.parse(NGINX, LOGGED_NS + 5 * MS))
    assert (server.start_time_ns, server.end_time_ns) == (LOGGED_NS - 21 * MS, LOGGED_NS + MS)
    assert [span.attributes["network.peer.address"] for span in clients] == [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
    ]
    assert [span.end_time_ns for span in clients[:2]] == [
        span.start_time_ns for span in clients[1:]
    ]
    assert clients[-1].span_id == NGINX["client"]
    assert len({span.span_id for span in clients}) == 3
    assert [span.attributes.get("error.type") for span in clients] == ["connect", None, None]
    assert server.attributes["network.peer.address"] == "2001:db8::2"
    assert server.attributes["server.address"] == "2001:db8::1"
    assert all(server.start_time_ns <= span.start_time_ns for span in clients)


def test_nginx_ended_before_its_line_arrived() -> None:
    server, *_ = exchange.spans(nginx.parse(NGINX, LOGGED_NS + MS // 2))
    assert server.end_time_ns == LOGGED_NS + MS // 2


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(line.LineError, match="lists"):
        nginx.parse(NGINX | {"head_s": "0.001"}, LOGGED_NS)


@pytest.mark.parametrize(
    ("start_s", "end_s"), [(10, 0), (0, 86_400), (-30 * 86_400, 0), (-(2**40), -(2**40))]
)
def test_times_that_cannot_be_are_refused(start_s: int, end_s: int) -> None:
    now_ns = time.time_ns()
    with pytest.raises(line.LineError):
        line.check_times(now_ns + start_s * 10**9, now_ns + end_s * 10**9, now_ns)


@given(
    st.sampled_from([HAPROXY, NGINX]),
    st.data(),
    st.one_of(
        st.none(),
        st.text(max_size=40),
        st.integers(),
        st.lists(st.text(max_size=3), max_size=2),
        st.sampled_from(["-", "", "-1", "1e9", "٣", "00", "9" * 400, "1.5", "a, b", "::1", "\0"]),
    ),
)
def test_a_wrong_field_is_refused_or_harmless(
    good: dict[str, Any], data: st.DataObject, value: object
) -> None:
    key = data.draw(st.sampled_from(sorted(good)))
    fields = json.loads(json.dumps(good | {key: value}))
    try:
        seen = haproxy.parse(fields) if good is HAPROXY else nginx.parse(fields, LOGGED_NS)
        line.check_times(seen.start_ns, seen.end_ns, LOGGED_NS)
    except line.LineError:
        return
    for span in exchange.spans(seen):
        assert len(span.trace_id) == 32
        assert len(span.span_id) == 16
        assert span.start_time_ns <= span.end_time_ns


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_an_object(text: bytes) -> None:
    with contextlib.suppress(line.LineError):
        assert isinstance(line.parse(text), dict)


@given(st.lists(st.binary(min_size=1, max_size=40).filter(lambda text: b"\n" not in text)))
def test_frames_come_out_of_any_pieces(texts: list[bytes]) -> None:
    counted = b"".join(b"%d %s" % (len(text), text) for text in texts)
    buffer, frames = bytearray(), []
    for at in range(0, len(counted), 7):
        buffer += counted[at : at + 7]
        frames += line.take_frames(buffer)
    assert frames == texts
    assert not buffer


def test_a_name_that_would_break_out_of_the_configuration_is_refused() -> None:
    for service, target in (
        ("a'b", "127.0.0.1:1"),
        ('a"', "x"),
        ("a", "x;y"),
        ("a b", "x"),
        ("", "x"),
    ):
        with pytest.raises(K8sTracingError):
            template("haproxy.cfg", {}, service, target)
