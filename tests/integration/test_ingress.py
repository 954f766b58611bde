"""Stock HAProxy and nginx with our configuration: what they forward, and the spans that come of it."""

from __future__ import annotations

import concurrent.futures
import http.client
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from k8s_tracing.dataplane.ingress.receiver import IngressReceiver
from k8s_tracing.record import SpanRecord
from tests.support.proxies import Proxy, Seen, Upstream, running, upstream
from tests.support.wait import wait_for

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
VALID = f"00-{TRACE}-{PARENT}-01"


@dataclass
class Ingress:
    """A proxy, what is behind it, and what came out of its log."""

    proxy: Proxy
    upstream: Upstream
    receiver: IngressReceiver
    spans: list[SpanRecord] = field(default_factory=list)

    def get(self, path: str, headers: Sequence[tuple[str, str]] = ()) -> int:
        """Ask once; the status."""
        client = http.client.HTTPConnection("127.0.0.1", self.proxy.port, timeout=10)
        client.putrequest("GET", path)
        for name, value in headers:
            client.putheader(name, value)
        client.endheaders()
        status = client.getresponse().status
        client.close()
        return status

    def forwarded(self, *headers: tuple[str, str]) -> Seen:
        """What the upstream sees of a request with these headers."""
        before = len(self.upstream.seen)
        assert self.get("/", headers) == 200
        return self.upstream.seen[before]

    def exchange(self, path: str, *, attempts: int = 1, **kwargs: object) -> list[SpanRecord]:
        """Ask once; the spans of it, the SERVER span first."""
        self.get(path)
        return self.arrived(1 + attempts)

    def arrived(self, count: int) -> list[SpanRecord]:
        """Wait for that many spans, and take them."""
        wait_for(f"{count} spans", lambda: len(self.spans) >= count, timeout_s=20)
        taken, self.spans[:] = list(self.spans), []
        assert len(taken) == count
        return taken


@pytest.fixture(params=["haproxy", "nginx"])
def ingress(request: pytest.FixtureRequest) -> Iterator[Ingress]:
    spans: list[SpanRecord] = []
    with (
        upstream() as behind,
        IngressReceiver(spans.extend, udp=("127.0.0.1", 0), batch_s=0.05) as receiver,
        running(
            request.param,
            f"127.0.0.1:{behind.port}",
            receiver.addresses[0].removeprefix("udp://"),
        ) as proxy,
    ):
        receiver.start()
        yield Ingress(proxy, behind, receiver, spans)


def test_a_valid_trace_context_is_continued(ingress: Ingress) -> None:
    seen = ingress.forwarded(("traceparent", VALID), ("tracestate", "a=1"))
    version, trace_id, span_id, flags = str(seen.traceparent).split("-")
    assert (version, trace_id, flags, seen.tracestate) == ("00", TRACE, "01", "a=1")
    server, client = ingress.arrived(2)
    assert (server.trace_id, server.parent_span_id, server.kind) == (TRACE, PARENT, "SERVER")
    assert (client.span_id, client.parent_span_id, client.kind) == (
        span_id,
        server.span_id,
        "CLIENT",
    )


def test_a_later_version_is_continued(ingress: Ingress) -> None:
    seen = ingress.forwarded(("traceparent", f"cc-{TRACE}-{PARENT}-01-what-ever"))
    assert str(seen.traceparent).split("-")[1] == TRACE


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (f"00-{'0' * 32}-{PARENT}-01",),
        (f"00-{TRACE}-{'0' * 16}-01",),
        (VALID.upper(),),
        (f"ff-{TRACE}-{PARENT}-01",),
        (f"{VALID}-extra",),
        (f"00-{TRACE}-{PARENT}",),
    ],
)
def test_a_trace_begins_where_no_valid_context_comes_in(
    ingress: Ingress, headers: tuple[str, ...]
) -> None:
    seen = ingress.forwarded(
        *(("traceparent", header) for header in headers), ("tracestate", "a=1")
    )
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", str(seen.traceparent))
    assert TRACE not in str(seen.traceparent).lower()
    assert not seen.tracestate
    server, client = ingress.arrived(2)
    assert f"00-{server.trace_id}-{client.span_id}-01" == seen.traceparent
    assert server.parent_span_id == ""


def test_two_headers_are_none(ingress: Ingress) -> None:
    seen = ingress.forwarded(("traceparent", VALID), ("traceparent", VALID))
    first = str(seen.traceparent).split("-")[1]
    # nginx up to 1.22 hands its configuration the first of several headers, and nothing there can tell.
    assert (first == TRACE) == (ingress.proxy.kind == "nginx" and _nginx_version() < (1, 23))


def test_what_nobody_samples_is_forwarded_and_makes_no_span(ingress: Ingress) -> None:
    seen = ingress.forwarded(("traceparent", f"00-{TRACE}-{PARENT}-00"))
    assert str(seen.traceparent).endswith("-00")
    wait_for("the line is counted", lambda: ingress.receiver.counts.unsampled == 1)
    assert ingress.spans == []


def test_spans_enclose_what_the_upstream_did_and_name_both_connections(ingress: Ingress) -> None:
    before_ns = time.time_ns()
    server, client = ingress.exchange("/slow?a=1&sig=secret")
    [seen] = ingress.upstream.seen
    millisecond = 1_000_000  # what nginx tells its times in
    assert before_ns - millisecond <= server.start_time_ns <= client.start_time_ns
    assert client.start_time_ns <= seen.start_ns
    assert client.end_time_ns <= server.end_time_ns
    assert client.duration_ns >= 45 * millisecond
    if ingress.proxy.kind == "nginx":
        assert seen.end_ns <= client.end_time_ns
    assert server.name == client.name == "GET"
    assert server.service_name == "ingress"
    assert server.attributes["url.path"] == "/slow"
    assert server.attributes["url.query"] == "a=1&sig=REDACTED"
    assert "secret" not in str(client.attributes)
    assert server.attributes["http.response.status_code"] == 200
    assert server.attributes["network.local.port"] == ingress.proxy.port
    assert client.attributes["network.peer.port"] == ingress.upstream.port
    assert client.attributes["k8s_tracing.ingress.first_byte_ns"] >= 45 * millisecond  # type: ignore[operator]
    if ingress.proxy.kind == "haproxy":
        local = client.attributes["network.local.address"], client.attributes["network.local.port"]
        assert local == seen.peer


def test_an_error_of_the_upstream_is_one_of_both_spans(ingress: Ingress) -> None:
    server, client = ingress.exchange("/status/503")
    assert (server.status, server.attributes["error.type"]) == ("ERROR", "503")
    assert (client.status, client.attributes["http.response.status_code"]) == ("ERROR", 503)


def test_an_error_of_the_client_is_none_of_the_server(ingress: Ingress) -> None:
    server, client = ingress.exchange("/status/404")
    assert (server.status, client.status) == ("UNSET", "ERROR")


def test_a_refused_connection_is_an_attempt_that_failed(ingress: Ingress) -> None:
    server, client = ingress.exchange("/dead")
    assert server.status == client.status == "ERROR"
    assert server.attributes["http.response.status_code"] in (502, 503)
    assert client.attributes["error.type"] == "connect"
    assert "http.response.status_code" not in client.attributes


def test_a_time_out_is_told_from_a_refusal(ingress: Ingress) -> None:
    server, client = ingress.exchange("/hang")
    assert server.attributes["http.response.status_code"] == 504
    assert client.attributes["error.type"] == "upstream_timeout"
    assert client.duration_ns >= 900_000_000


def test_a_retry_is_seen(ingress: Ingress) -> None:
    attempts = 2 if ingress.proxy.kind == "nginx" else 1  # HAProxy logs the last one and a number
    server, *clients = ingress.exchange("/retried", attempts=attempts)
    assert server.status == "UNSET"
    assert clients[-1].attributes["http.response.status_code"] == 200
    assert clients[-1].attributes["http.request.resend_count"] == 1
    [seen] = ingress.upstream.seen
    assert clients[-1].span_id == str(seen.traceparent).split("-")[2]
    if attempts == 2:
        assert clients[0].attributes["error.type"] == "connect"
        assert clients[0].span_id != clients[1].span_id


def test_requests_that_queue_say_so() -> None:
    spans: list[SpanRecord] = []
    with (
        upstream() as behind,
        IngressReceiver(spans.extend, udp=("127.0.0.1", 0), batch_s=0.05) as receiver,
        running(
            "haproxy",
            f"127.0.0.1:{behind.port}",
            receiver.addresses[0].removeprefix("udp://"),
        ) as proxy,
        concurrent.futures.ThreadPoolExecutor(3) as pool,
    ):
        receiver.start()
        ingress = Ingress(proxy, behind, receiver, spans)
        assert list(pool.map(ingress.get, ["/slow"] * 3)) == [200] * 3
        servers = [span for span in ingress.arrived(6) if span.kind == "SERVER"]
    queued = sorted(int(str(s.attributes["k8s_tracing.ingress.queue_ns"])) for s in servers)
    assert queued[0] < queued[1] < queued[2]
    assert queued[2] >= 80_000_000


@pytest.mark.alone
def test_no_line_is_lost_and_no_parent_wrong_under_load(ingress: Ingress) -> None:
    requests, threads = 1_000, 8

    def ask(_: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", ingress.proxy.port, timeout=30)
        for _ in range(requests // threads):
            client.request("GET", "/")
            assert client.getresponse().read() == b"ok"
        client.close()

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(ask, range(threads)))
    spans = ingress.arrived(2 * requests)
    assert ingress.receiver.counts.overflowed == 0
    servers = {span.span_id: span for span in spans if span.kind == "SERVER"}
    clients = {span.span_id: span for span in spans if span.kind == "CLIENT"}
    assert len(servers) == len(clients) == len(ingress.upstream.seen) == requests
    early = 0
    for seen in ingress.upstream.seen:
        _, trace_id, span_id, _ = str(seen.traceparent).split("-")
        client = clients[span_id]
        server = servers[client.parent_span_id]
        assert client.trace_id == server.trace_id == trace_id
        assert server.start_time_ns <= client.start_time_ns <= seen.start_ns
        early += server.end_time_ns < client.end_time_ns
    assert early == 0


def test_hostile_lines_are_counted_and_do_no_harm() -> None:
    spans: list[SpanRecord] = []
    with IngressReceiver(
        spans.extend, udp=("127.0.0.1", 0), tcp=("127.0.0.1", 0), batch_s=0.05
    ) as receiver:
        receiver.start()
        udp, tcp = (_address(name) for name in receiver.addresses)
        lines = [
            b"",
            b"\xff\xfe{",
            b"{" * 60_000,
            b'<134>Nov 22 07:38:41 k8st: {"proxy":"nginx"}',
            b'{"proxy":"haproxy","trace":7}',
            b'{"proxy":"other"}',
            b"[1,2,3]",
        ]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for text in lines:
                sender.sendto(text, udp)
        with socket.create_connection(tcp) as sender:
            sender.sendall(b"\n".join(lines[3:]) + b"\n17 {not a whole line\n9999999 x")
        with socket.create_connection(tcp) as sender:
            sender.sendall(b"x" * 100_000)
        wait_for(
            "all are counted",
            lambda: sum(receiver.counts.refused.values()) >= len(lines) + 4 + 2,
        )
    assert spans == []
    assert receiver.counts.exchanges == 0


def test_the_command_prints_what_it_accepts(ingress: Ingress) -> None:
    log_to = ingress.receiver.addresses[0].removeprefix("udp://")
    command = [sys.executable, "-m", "k8s_tracing", "ingress", "config", ingress.proxy.kind]
    command += ["--service-name", "ingress", "--log-to", log_to]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "traceparent" in printed
    config = ingress.proxy.config
    check = [*command, "--check", str(config)]
    good = subprocess.run(check, capture_output=True, text=True, check=False)
    assert good.stdout == f"{config}: all there\n"
    place = config if ingress.proxy.kind == "haproxy" else config.with_name("k8st-location.conf")
    place.write_text(
        "\n".join(
            line for line in place.read_text().splitlines() if "header traceparent" not in line
        )
        + "\n"
    )
    bad = subprocess.run(check, capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    assert "header traceparent" in bad.stdout


def _address(name: str) -> tuple[str, int]:
    host, _, port = name.partition("://")[2].rpartition(":")
    return host, int(port)


def _nginx_version() -> tuple[int, int]:
    said = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
    match = re.search(r"(\d+)\.(\d+)", said)
    assert match
    return int(match[1]), int(match[2])
