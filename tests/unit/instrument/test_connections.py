"""Which connection a CLIENT span used, and its look-ups, below OpenTelemetry's own instrumentations."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpcore
import httpx
import pytest
import requests
import urllib3
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.trace import SpanKind

import k8s_tracing
from k8s_tracing.instrument.connections import record_connections
from k8s_tracing.instrument.requests import TracingAdapter
from k8s_tracing.record import SpanRecord


class Handler(BaseHTTPRequestHandler):
    """Remembers who asked."""

    protocol_version = "HTTP/1.1"
    peers: list[tuple[str, int]]

    def do_GET(self) -> None:
        type(self).peers.append(self.client_address)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    Handler.peers = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, args=[0.01])
        thread.start()
        yield running.server_port
        running.shutdown()
        thread.join()


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switched on for one test."""
    for owner, name in (
        (http.client.HTTPConnection, "getresponse"),
        (socket, "getaddrinfo"),
        (asyncio.BaseEventLoop, "getaddrinfo"),
        (httpcore.ConnectionPool, "handle_request"),
        (httpcore.AsyncConnectionPool, "handle_async_request"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    record_connections()
    record_connections()  # nothing is there twice


def ends(span: SpanRecord) -> tuple[object, ...]:
    names = ("local.address", "local.port", "peer.address", "peer.port")
    return tuple(span.attributes.get(f"network.{name}") for name in names)


def assert_ends(spans: list[SpanRecord], port: int) -> None:
    """Each CLIENT span names the connection over which the server was asked."""
    clients = [span for span in spans if span.kind == "CLIENT"]
    assert [ends(span) for span in clients] == [
        (*peer, "127.0.0.1", port) for peer in Handler.peers
    ]
    assert clients


def test_our_adapter_needs_no_switch(port: int, spans: list[SpanRecord]) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", TracingAdapter())
        for _ in range(3):
            session.get(f"http://127.0.0.1:{port}/")
    assert_ends(spans, port)
    assert len(set(Handler.peers)) == 1  # kept alive
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", TracingAdapter())
        session.get(f"http://127.0.0.1:{port}/")
    assert_ends(spans, port)
    assert len(set(Handler.peers)) == 2


def test_opentelemetrys_requests(port: int, spans: list[SpanRecord], recorded: None) -> None:
    RequestsInstrumentor().instrument()
    try:
        with requests.Session() as session:
            session.trust_env = False
            for _ in range(2):
                session.get(f"http://127.0.0.1:{port}/")
    finally:
        RequestsInstrumentor().uninstrument()
    assert_ends(spans, port)


def test_opentelemetrys_httpx(port: int, spans: list[SpanRecord], recorded: None) -> None:
    HTTPXClientInstrumentor().instrument()

    async def ask() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            for _ in range(2):
                await client.get(f"http://127.0.0.1:{port}/")

    try:
        with httpx.Client(trust_env=False) as client:
            for _ in range(2):
                client.get(f"http://127.0.0.1:{port}/")
        asyncio.run(ask())
    finally:
        HTTPXClientInstrumentor().uninstrument()
    assert_ends(spans, port)
    assert len(spans) == 4


def test_urllib3_and_urllib(port: int, spans: list[SpanRecord], recorded: None) -> None:
    url = f"http://127.0.0.1:{port}/"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with k8s_tracing.span("urllib3", kind=SpanKind.CLIENT), urllib3.PoolManager() as pool:
        pool.request("GET", url)
    with k8s_tracing.span("urllib", kind=SpanKind.CLIENT), opener.open(url) as answer:
        answer.read()
    assert_ends(spans, port)


def test_other_spans_stay_as_they_are(port: int, spans: list[SpanRecord], recorded: None) -> None:
    with k8s_tracing.span("serve", kind=SpanKind.SERVER), requests.Session() as session:
        session.trust_env = False
        session.get(f"http://localhost:{port}/")
    assert spans[0].attributes == {}
    assert spans[0].events == ()


def test_a_lookup_is_an_event_when_there_is_one(
    port: int, spans: list[SpanRecord], recorded: None
) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", TracingAdapter())
        for host in ("localhost", "localhost", "127.0.0.1"):
            session.get(f"http://{host}:{port}/")
    lookups = [span.events for span in spans]
    assert [len(events) for events in lookups] == [1, 0, 0]
    (event,) = lookups[0]
    assert event.name == "dns.lookup"
    assert event.attributes["dns.question.name"] == "localhost"
    assert "127.0.0.1" in event.attributes["dns.answers"]
    duration_ns = event.attributes["k8s_tracing.dns.duration_ns"]
    assert 0 < duration_ns <= spans[0].end_time_ns - spans[0].start_time_ns


def test_a_lookup_in_a_loop(port: int, spans: list[SpanRecord], recorded: None) -> None:
    async def ask() -> None:
        with k8s_tracing.span("ask", kind=SpanKind.CLIENT):
            async with httpx.AsyncClient(trust_env=False) as client:
                await client.get(f"http://localhost:{port}/")

    asyncio.run(ask())
    (span,) = spans
    assert [event.name for event in span.events] == ["dns.lookup"]
    assert_ends(spans, port)


def test_a_lookup_that_fails(spans: list[SpanRecord], recorded: None) -> None:
    with (
        k8s_tracing.span("ask", kind=SpanKind.CLIENT, record_exception=False),
        pytest.raises(socket.gaierror),
    ):
        socket.getaddrinfo("no-such-host.invalid", 80)
    (event,) = spans[0].events
    assert event.attributes["error.type"] == "gaierror"
    assert event.attributes["dns.answers"] == ()


def test_a_socket_without_ports_is_left_out(spans: list[SpanRecord], recorded: None) -> None:
    ours, theirs = socket.socketpair()
    connection = http.client.HTTPConnection("unix")
    connection.sock = ours
    with ours, theirs, k8s_tracing.span("ask", kind=SpanKind.CLIENT):
        connection.request("GET", "/")
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        connection.getresponse().read()
    assert spans[0].attributes == {}
