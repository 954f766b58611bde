"""The adapter for requests, against a real HTTP server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from opentelemetry import baggage, context

import k8s_tracing
from k8s_tracing.instrument.requests import TracingAdapter, _attributes
from k8s_tracing.record import SpanRecord


class Handler(BaseHTTPRequestHandler):
    """Answers with the status in the path; remembers the headers it got."""

    protocol_version = "HTTP/1.1"
    headers_seen: list[dict[str, str]]

    def do_GET(self) -> None:
        type(self).headers_seen.append(dict(self.headers.items()))
        status = int(self.path.partition("?")[0].strip("/"))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/200")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.headers_seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", TracingAdapter())
        yield session


def test_a_request_is_a_client_span_and_carries_the_trace(
    server: str, session: requests.Session, spans: list[SpanRecord]
) -> None:
    token = context.attach(baggage.set_baggage("customer", "Trom"))
    with k8s_tracing.span("outer"):
        assert session.get(f"{server}/200", params={"q": "1", "sig": "x"}, timeout=10).ok
    context.detach(token)
    [span, outer] = spans
    assert (span.name, span.kind, span.status) == ("GET", "CLIENT", "UNSET")
    assert span.parent_span_id == outer.span_id
    assert span.attributes == {
        "http.request.method": "GET",
        "url.full": f"{server}/200?q=1&sig=REDACTED",
        "server.address": "127.0.0.1",
        "server.port": int(server.rpartition(":")[2]),
        "http.response.status_code": 200,
        "network.protocol.version": "1.1",
        "network.local.address": "127.0.0.1",
        "network.local.port": span.attributes["network.local.port"],
        "network.peer.address": "127.0.0.1",
        "network.peer.port": int(server.rpartition(":")[2]),
    }
    [seen] = Handler.headers_seen
    assert seen["traceparent"] == f"00-{span.trace_id}-{span.span_id}-{span.flags:02x}"
    assert seen["baggage"] == "customer=Trom"


@pytest.mark.parametrize(("status", "is_error"), [(204, False), (404, True), (503, True)])
def test_an_answer_of_400_or_more_is_an_error_of_the_call(
    server: str, session: requests.Session, spans: list[SpanRecord], status: int, is_error: bool
) -> None:
    session.get(f"{server}/{status}", timeout=10)
    [span] = spans
    assert span.status == ("ERROR" if is_error else "UNSET")
    assert span.attributes.get("error.type") == (str(status) if is_error else None)


def test_a_redirect_is_two_requests(
    server: str, session: requests.Session, spans: list[SpanRecord]
) -> None:
    session.get(f"{server}/302", timeout=10)
    assert [span.attributes["http.response.status_code"] for span in spans] == [302, 200]
    sent = {seen["traceparent"].split("-")[2] for seen in Handler.headers_seen}
    assert sent == {span.span_id for span in spans}


def test_a_server_that_is_not_there_is_an_exception_in_the_span(
    session: requests.Session, spans: list[SpanRecord]
) -> None:
    with pytest.raises(requests.ConnectionError):
        session.get("http://127.0.0.1:1/", timeout=10)
    [span] = spans
    assert span.status == "ERROR"
    assert span.attributes["error.type"] == "requests.exceptions.ConnectionError"
    assert [event.name for event in span.events] == ["exception"]


@pytest.mark.parametrize(
    ("url", "shown", "address", "port"),
    [
        ("http://u:p@host/a", "http://REDACTED:REDACTED@host/a", "host", 80),
        ("https://host?x=1", "https://host?x=1", "host", 443),
        ("http://[::1]:8080/", "http://[::1]:8080/", "::1", 8080),
        ("http://[::1]/", "http://[::1]/", "::1", 80),
    ],
)
def test_where_a_request_goes(url: str, shown: str, address: str, port: int) -> None:
    attributes = _attributes("GET", url)
    assert attributes["url.full"] == shown
    assert (attributes["server.address"], attributes["server.port"]) == (address, port)


def test_a_method_that_nobody_knows_is_other() -> None:
    attributes = _attributes("BREW", "http://host/")
    assert attributes["http.request.method"] == "_OTHER"
    assert attributes["http.request.method_original"] == "BREW"


def test_without_tracing_the_context_still_passes_through(
    server: str, session: requests.Session
) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with k8s_tracing.extracted({"traceparent": parent}):
        session.get(f"{server}/200", timeout=10)
    assert Handler.headers_seen[0]["traceparent"] == parent
