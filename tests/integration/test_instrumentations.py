"""OpenTelemetry's own instrumentations on our provider, unchanged, between real clients and real servers."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import grpc
import httpx
import pytest
import redis
import redis.asyncio
import requests
import uvicorn
from opentelemetry.instrumentation import grpc as grpc_instrumentation
from opentelemetry.instrumentation._semconv import _OpenTelemetrySemanticConventionStability
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as AsgiMiddleware
from opentelemetry.instrumentation.dbapi import trace_integration, unwrap_connect
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware as WsgiMiddleware
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

import k8s_tracing
from k8s_tracing.record import SpanRecord
from k8s_tracing.testing import using
from tests.contract.conftest import InMemory, Lttng, Recording, Sdk
from tests.support.lttng import require
from tests.support.ports import free_port
from tests.support.wait import wait_for


class Recorded:
    """What a backend recorded, oldest first."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def spans(self) -> list[SpanRecord]:
        """Return the spans; ends the recording."""
        spans = self._recording.spans()
        assert not any(span.unfinished for span in spans)
        return sorted(spans, key=lambda span: span.start_time_ns)

    def pair(self) -> tuple[SpanRecord, SpanRecord]:
        """Return the only two spans: a client's, and the server's that is its child."""
        client, server = self.spans()
        assert (client.kind, server.kind) == ("CLIENT", "SERVER")
        assert server.trace_id == client.trace_id
        assert server.parent_span_id == client.span_id
        return client, server


# OpenTelemetry's SDK is here to say what is expected: these tests may ask of ours what the SDK does, no less.
@pytest.fixture(params=["memory", "lttng", "otel"])
def recorded(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Recorded]:
    """A backend behind OpenTelemetry's global provider, which `init` can set once in a process."""
    if request.param == "memory":
        recording: Recording = InMemory()
    elif request.param == "otel":
        recording = Sdk()
    else:
        daemon = request.getfixturevalue("registered_daemon")
        recording = Lttng(daemon, f"instrumented-{tmp_path.name}")
    with using(recording.provider):
        yield Recorded(recording)


@pytest.fixture(autouse=True)
def _stable_conventions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The attribute names that are stable; the instrumentations read the variable once in a process."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")
    monkeypatch.setattr(_OpenTelemetrySemanticConventionStability, "_initialized", False)
    yield
    _OpenTelemetrySemanticConventionStability._initialized = False


@contextlib.contextmanager
def instrumented(*instrumentors: Any) -> Iterator[None]:
    for instrumentor in instrumentors:
        instrumentor.instrument()
    try:
        yield
    finally:
        for instrumentor in instrumentors:
            instrumentor.uninstrument()


def attributes_of(span: SpanRecord, expected: Iterable[str]) -> dict[str, object]:
    return {key: span.attributes.get(key) for key in expected}


# ---- HTTP


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


# ---- gRPC: a service without generated code, its messages are bytes

UNARY, STREAM = ["unary_unary", "stream_unary"], ["unary_stream", "stream_stream"]


def answer(request: bytes, context: Any) -> bytes:
    with k8s_tracing.span("inside"):
        if request == b"abort":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such driver")
        if request == b"fail":
            raise ValueError("no driver")
        return request.upper()


def answer_all(request: bytes, context: Any) -> Iterator[bytes]:
    yield answer(request, context)
    yield b"!"


async def answer_aio(request: bytes, context: Any) -> bytes:
    with k8s_tracing.span("inside"):
        if request == b"abort":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such driver")
        await asyncio.sleep(0)
        return request.upper()


async def answer_all_aio(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield await answer_aio(request, context)
    yield b"!"


async def _first(requests: AsyncIterator[bytes]) -> bytes:
    async for request in requests:
        return request
    raise AssertionError("no request")


async def _answer_requests_aio(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return await answer_aio(await _first(requests), context)


async def _answer_all_requests_aio(
    requests: AsyncIterator[bytes], context: Any
) -> AsyncIterator[bytes]:
    async for part in answer_all_aio(await _first(requests), context):
        yield part


def service(*, aio: bool) -> grpc.GenericRpcHandler:
    methods = {
        "unary_unary": answer_aio if aio else answer,
        "unary_stream": answer_all_aio if aio else answer_all,
        "stream_unary": _answer_requests_aio
        if aio
        else lambda requests, context: answer(next(requests), context),
        "stream_stream": _answer_all_requests_aio
        if aio
        else lambda requests, context: answer_all(next(requests), context),
    }
    handlers = {
        name: getattr(grpc, f"{name}_rpc_method_handler")(method)
        for name, method in methods.items()
    }
    return grpc.method_handlers_generic_handler("shop.Drivers", handlers)


def call(channel: grpc.Channel, method: str, request: bytes) -> bytes:
    """Call one of the four methods of a synchronous channel; returns all it answered."""
    stub = getattr(channel, method)(f"/shop.Drivers/{method}")
    given = iter([request, b"more"]) if method.startswith("stream") else request
    answered = stub(given, timeout=10)
    return answered if method in UNARY else b"".join(answered)


def check_grpc(recorded: Recorded, method: str, status: grpc.StatusCode) -> None:
    """Caller, client, server and what is inside are one trace with the attributes of gRPC."""
    caller, client, server, inside = recorded.spans()
    assert client.parent_span_id == caller.span_id
    assert server.parent_span_id == client.span_id
    assert inside.parent_span_id == server.span_id
    assert (client.kind, server.kind) == ("CLIENT", "SERVER")
    for span in (client, server):
        assert span.name == f"/shop.Drivers/{method}"
        expected = {
            "rpc.system": "grpc",
            "rpc.service": "shop.Drivers",
            "rpc.method": method,
            "rpc.grpc.status_code": status.value[0],
        }
        assert attributes_of(span, expected) == expected
    assert client.status == ("UNSET" if status is grpc.StatusCode.OK else "ERROR")
    # A not-found is no fault of the server, as OpenTelemetry has it.
    assert server.status == "UNSET"


@pytest.mark.parametrize("method", [*UNARY, *STREAM])
def test_grpc_client_and_server_are_one_trace(recorded: Recorded, method: str) -> None:
    with (
        instrumented(
            grpc_instrumentation.GrpcInstrumentorServer(),
            grpc_instrumentation.GrpcInstrumentorClient(),
        ),
    ):
        server = grpc.server(ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers((service(aio=False),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, k8s_tracing.span("caller"):
            expected = b"HELLO" if method in UNARY else b"HELLO!"
            assert call(channel, method, b"hello") == expected
        server.stop(10).wait()
    check_grpc(recorded, method, grpc.StatusCode.OK)


@pytest.mark.parametrize("request_", [b"abort", b"fail"])
def test_a_grpc_call_that_fails(recorded: Recorded, request_: bytes) -> None:
    with (
        instrumented(
            grpc_instrumentation.GrpcInstrumentorServer(),
            grpc_instrumentation.GrpcInstrumentorClient(),
        ),
    ):
        server = grpc.server(ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers((service(aio=False),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with (
            grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
            k8s_tracing.span("caller"),
            pytest.raises(grpc.RpcError) as raised,
        ):
            call(channel, "unary_unary", request_)
        server.stop(10).wait()
    if request_ == b"abort":
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        check_grpc(recorded, "unary_unary", grpc.StatusCode.NOT_FOUND)
    else:
        assert raised.value.code() is grpc.StatusCode.UNKNOWN
        _, client, handled, inside = recorded.spans()
        assert client.status == "ERROR"
        for span in (handled, inside):
            assert {event.attributes["exception.type"] for event in span.events} == {"ValueError"}


@pytest.mark.parametrize("method", [*UNARY, *STREAM])
def test_grpc_aio_client_and_server_are_one_trace(recorded: Recorded, method: str) -> None:
    async def main() -> bytes:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((service(aio=True),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with k8s_tracing.span("caller"):
                stub = getattr(channel, method)(f"/shop.Drivers/{method}")

                async def several() -> AsyncIterator[bytes]:
                    yield b"hello"
                    yield b"more"

                called = stub(several() if method.startswith("stream") else b"hello")
                if method in UNARY:
                    answered = await called
                else:
                    answered = b"".join([part async for part in called])
        await server.stop(10)
        return answered

    with (
        instrumented(
            grpc_instrumentation.GrpcAioInstrumentorServer(),
            grpc_instrumentation.GrpcAioInstrumentorClient(),
        ),
    ):
        assert asyncio.run(main()) == (b"HELLO" if method in UNARY else b"HELLO!")
    check_grpc(recorded, method, grpc.StatusCode.OK)


def test_a_grpc_aio_call_that_is_aborted(recorded: Recorded) -> None:
    async def main() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((service(aio=True),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with k8s_tracing.span("caller"), pytest.raises(grpc.aio.AioRpcError) as raised:
                await channel.unary_unary("/shop.Drivers/unary_unary")(b"abort")
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        await server.stop(10)

    with (
        instrumented(
            grpc_instrumentation.GrpcAioInstrumentorServer(),
            grpc_instrumentation.GrpcAioInstrumentorClient(),
        ),
    ):
        asyncio.run(main())
    check_grpc(recorded, "unary_unary", grpc.StatusCode.NOT_FOUND)


# ---- databases


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real Redis that keeps nothing."""
    port = free_port()
    words = [require("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    folder = tmp_path_factory.mktemp("redis")
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=folder) as process:
        try:
            with redis.Redis(port=port) as client:
                wait_for("Redis to listen", lambda: _answers(client))
            yield port
        finally:
            process.terminate()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def redis_commands(port: int) -> None:
    with redis.Redis(port=port) as client:
        client.set("driver", "T1")
        with client.pipeline(transaction=False) as pipeline:
            pipeline.get("driver").get("nobody").execute()
        with pytest.raises(redis.ResponseError):
            client.lpush("driver", "T2")


async def redis_commands_aio(port: int) -> None:
    async with redis.asyncio.Redis(port=port) as client:
        await client.set("driver", "T1")
        async with client.pipeline(transaction=False) as pipeline:
            await pipeline.get("driver").get("nobody").execute()
        with pytest.raises(redis.ResponseError):
            await client.lpush("driver", "T2")


@pytest.mark.parametrize("aio", [False, True], ids=["sync", "aio"])
def test_redis_commands(recorded: Recorded, redis_port: int, aio: bool) -> None:
    with instrumented(RedisInstrumentor()), k8s_tracing.span("caller"):
        if aio:
            asyncio.run(redis_commands_aio(redis_port))
        else:
            redis_commands(redis_port)
    caller, *commands = recorded.spans()
    assert {span.parent_span_id for span in commands} == {caller.span_id}
    commands = [
        span for span in commands if not span.name.startswith("CLIENT")
    ]  # a new connection's
    assert [span.name for span in commands] == ["SET", "GET GET", "LPUSH"]
    assert [span.status for span in commands] == ["UNSET", "UNSET", "ERROR"]
    assert [event.attributes["exception.type"] for event in commands[2].events] == [
        "redis.exceptions.ResponseError"
    ]
    for span in commands:
        expected = {"server.port": redis_port, "db.system.name": "redis"}
        assert attributes_of(span, expected) == expected
        assert span.kind == "CLIENT"
    assert commands[0].attributes["db.query.text"] == "SET ? ?"


def queries(connection: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE drivers (id TEXT)")
    cursor.executemany("INSERT INTO drivers VALUES (?)", [("T1",), ("T2",)])
    assert cursor.execute("SELECT count(*) FROM drivers").fetchone() == (2,)
    with pytest.raises(sqlite3.OperationalError):
        cursor.execute("SELECT nothing FROM nowhere")
    connection.close()


def check_queries(recorded: Recorded) -> None:
    caller, *spans = recorded.spans()
    assert {span.parent_span_id for span in spans} == {caller.span_id}
    assert [span.name.split()[0] for span in spans] == ["CREATE", "INSERT", "SELECT", "SELECT"]
    assert [span.status for span in spans] == ["UNSET", "UNSET", "UNSET", "ERROR"]
    assert {span.kind for span in spans} == {"CLIENT"}
    assert spans[2].attributes["db.query.text"] == "SELECT count(*) FROM drivers"
    assert {span.attributes["db.system.name"] for span in spans} == {"sqlite"}
    assert [event.name for event in spans[3].events] == ["exception"]


def test_sqlite3_queries(recorded: Recorded) -> None:
    with instrumented(SQLite3Instrumentor()), k8s_tracing.span("caller"):
        queries(sqlite3.connect(":memory:"))
    check_queries(recorded)


def test_any_driver_of_the_database_api(recorded: Recorded) -> None:
    trace_integration(sqlite3, "connect", "sqlite")
    try:
        with k8s_tracing.span("caller"):
            queries(sqlite3.connect(":memory:"))
    finally:
        unwrap_connect(sqlite3, "connect")
    check_queries(recorded)
