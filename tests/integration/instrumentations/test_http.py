"""OpenTelemetry's instrumentations of HTTP, unchanged, between real clients and real servers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx
import pytest
import requests
import uvicorn
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as AsgiMiddleware
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware as WsgiMiddleware
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

import k8s_tracing
from tests.support.ports import free_port
from tests.support.recorded import Recorded, attributes_of, instrumented
from tests.support.wait import wait_for


async def hello(request: Request) -> PlainTextResponse:
    with k8s_tracing.span("inside"):
        return PlainTextResponse("hello")


async def streamed(request: Request) -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d" % number
            await asyncio.sleep(0)

    return StreamingResponse(parts())


async def fails(request: Request) -> PlainTextResponse:
    raise ValueError("no driver")


ROUTES = [Route("/hello", hello), Route("/streamed", streamed), Route("/fails", fails)]


@contextlib.contextmanager
def asgi_server(**options: Any) -> Iterator[str]:
    """Starlette behind OpenTelemetry's middleware in a real uvicorn; all requests are done when it ends."""
    app = AsgiMiddleware(Starlette(routes=ROUTES), **options)
    config = uvicorn.Config(app, port=free_port(), log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for("uvicorn to listen", lambda: server.started)
        yield f"http://127.0.0.1:{config.port}"
    finally:
        server.should_exit = True
        thread.join()


def get(client: str, url: str) -> int:
    """GET with one of the three clients; returns the status."""
    if client == "requests":
        return requests.get(url, timeout=10).status_code
    if client == "httpx":
        return httpx.get(url).status_code

    async def main() -> int:
        async with httpx.AsyncClient() as session:
            return (await session.get(url)).status_code

    return asyncio.run(main())


CLIENTS = {
    "requests": RequestsInstrumentor,
    "httpx": HTTPXClientInstrumentor,
    "httpx async": HTTPXClientInstrumentor,
}


@pytest.mark.parametrize("client", CLIENTS)
def test_http_client_and_asgi_server_are_one_trace(recorded: Recorded, client: str) -> None:
    with (
        asgi_server(exclude_spans=["receive", "send"]) as url,
        instrumented(CLIENTS[client]()),
        k8s_tracing.span("caller"),
    ):
        assert get(client, f"{url}/hello?q=1") == 200
    caller, called, server, inside = recorded.spans()
    assert len({span.trace_id for span in (caller, called, server, inside)}) == 1
    assert called.parent_span_id == caller.span_id
    assert server.parent_span_id == called.span_id
    assert inside.parent_span_id == server.span_id
    port = int(url.rpartition(":")[2])
    expected = {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.full": f"{url}/hello?q=1",
        "server.address": "127.0.0.1",
        "server.port": port,
    }
    assert (called.name, called.kind, called.status) == ("GET", "CLIENT", "UNSET")
    assert attributes_of(called, expected) == expected
    expected = {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.path": "/hello",
        "url.query": "q=1",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "client.address": "127.0.0.1",
        "server.port": port,
    }
    assert (server.name, server.kind, server.status) == ("GET /hello", "SERVER", "UNSET")
    assert attributes_of(server, expected) == expected
    assert server.scope_name == "opentelemetry.instrumentation.asgi"


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("path", "status"), [("/fails", 500), ("/nowhere", 404)])
def test_an_http_error_is_the_clients_and_a_fault_the_servers_too(
    recorded: Recorded, client: str, path: str, status: int
) -> None:
    with (
        asgi_server(exclude_spans=["receive", "send"]) as url,
        instrumented(CLIENTS[client]()),
    ):
        assert get(client, url + path) == status
    called, server = recorded.pair()
    assert called.attributes["http.response.status_code"] == status
    assert server.attributes["http.response.status_code"] == status
    assert called.attributes["error.type"] == str(status)
    assert (called.status, server.status) == ("ERROR", "ERROR" if status == 500 else "UNSET")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_is_not_there_is_an_error_of_the_client(
    recorded: Recorded, client: str
) -> None:
    with (
        instrumented(CLIENTS[client]()),
        pytest.raises((requests.ConnectionError, httpx.ConnectError)) as raised,
    ):
        get(client, f"http://127.0.0.1:{free_port()}/")
    [span] = recorded.spans()
    assert (span.status, span.attributes["error.type"]) == ("ERROR", raised.type.__qualname__)
    assert "http.response.status_code" not in span.attributes


def test_the_spans_of_single_asgi_messages(recorded: Recorded) -> None:
    with asgi_server() as url:
        assert requests.get(f"{url}/streamed", timeout=10).text == "012"
    spans = recorded.spans()
    [server] = [span for span in spans if span.kind == "SERVER"]
    messages = [span for span in spans if span is not server]
    assert {span.name for span in messages} >= {"GET /streamed http send"}
    assert {span.parent_span_id for span in messages} == {server.span_id}


def test_requests_in_parallel_do_not_mix(recorded: Recorded) -> None:
    def one(url: str, number: int) -> None:
        with k8s_tracing.span(f"caller {number}"):
            assert get("requests", f"{url}/hello?n={number}") == 200

    with (
        asgi_server(exclude_spans=["receive", "send"]) as url,
        instrumented(RequestsInstrumentor()),
        ThreadPoolExecutor(10) as pool,
    ):
        list(pool.map(one, [url] * 50, range(50)))
    spans = recorded.spans()
    assert len(spans) == 200
    by_id = {span.span_id: span for span in spans}
    for server in (span for span in spans if span.kind == "SERVER"):
        caller = by_id[by_id[server.parent_span_id].parent_span_id]
        assert server.attributes["url.query"] == f"n={caller.name.split()[1]}"
        assert caller.trace_id == server.trace_id


class SilentHandler(WSGIRequestHandler):
    def log_message(self, *arguments: object) -> None: ...


@pytest.mark.parametrize(("path", "status"), [("/hello", 200), ("/fails", 500)])
def test_http_client_and_wsgi_server_are_one_trace(
    recorded: Recorded, path: str, status: int
) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response(f"{status} whatever", [("Content-Type", "text/plain")])
        yield b"hello"

    traced = WsgiMiddleware(app)
    with make_server("127.0.0.1", 0, traced, handler_class=SilentHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with instrumented(RequestsInstrumentor()):
            url = f"http://127.0.0.1:{server.server_port}{path}"
            assert get("requests", url) == status
        server.shutdown()
        thread.join()
    called, handled = recorded.pair()
    assert handled.name == f"GET {path}"
    expected = {
        "http.request.method": "GET",
        "http.response.status_code": status,
        "url.scheme": "http",
        "server.port": server.server_port,
    }
    assert attributes_of(handled, expected) == expected
    assert {called.status, handled.status} == {"ERROR" if status == 500 else "UNSET"}
