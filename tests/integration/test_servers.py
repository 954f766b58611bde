"""Our middleware under real servers and their process models: each worker is an instance, and no span is lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import flask
import pytest
import requests
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.sync.client import connect

import k8s_tracing
from k8s_tracing import api
from k8s_tracing.agent.relay import Relay
from k8s_tracing.backends.memory import MemoryBackend
from k8s_tracing.instrument import wsgi
from k8s_tracing.instrument.asgi import TracingMiddleware
from k8s_tracing.otlp import parse_request
from k8s_tracing.provider import make_provider
from k8s_tracing.record import SpanRecord
from k8s_tracing.settings import Settings
from tests.support.lttng import Session, SessionDaemon
from tests.support.ports import free_port
from tests.support.wait import wait_for

# /task/N   two spans with a pause between them, in which other requests run
# /slow/N   makes the file N, so that one can see that it has begun
# /kill/N   kills its worker when the answer is sent
SERVICE = """
import asyncio, os, pathlib, signal, time
import k8s_tracing
from k8s_tracing.instrument import asgi as _asgi, wsgi as _wsgi

k8s_tracing.init("service", backend="lttng")
IMPORTED_BY = os.getpid()

def _before(path):
    _, action, number = path.split("/")
    with k8s_tracing.span("before " + number, {"pid": os.getpid()}):
        if action == "slow":
            pathlib.Path(number).touch()
    return action, number, 0.3 if action == "slow" else 0.01

def _after(number):
    with k8s_tracing.span("after " + number):
        return f"{os.getpid()} {IMPORTED_BY}".encode()

def _wsgi_app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    path = environ["PATH_INFO"]
    if path == "/healthz":
        return [b"%d" % os.getpid()]
    _, number, pause_s = _before(path)
    def parts():
        yield b""
        time.sleep(pause_s)
        yield _after(number)
    return parts()

class _Killing:
    def __init__(self, response):
        self.response = response
    def __iter__(self):
        return iter(self.response)
    def close(self):
        self.response.close()
        os.kill(os.getpid(), signal.SIGKILL)

_traced_wsgi = _wsgi.TracingMiddleware(_wsgi_app, excluded_paths=["/healthz"])

def wsgi(environ, start_response):
    response = _traced_wsgi(environ, start_response)
    return _Killing(response) if environ["PATH_INFO"].startswith("/kill/") else response

async def _asgi_app(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    body = b"%d" % os.getpid()
    if scope["path"] != "/healthz":
        _, number, pause_s = _before(scope["path"])
        await asyncio.sleep(pause_s)
        body = _after(number)
    await send({"type": "http.response.body", "body": body})

_traced_asgi = _asgi.TracingMiddleware(_asgi_app, excluded_paths=["/healthz"])

async def asgi(scope, receive, send):
    await _traced_asgi(scope, receive, send)
    if scope.get("path", "").startswith("/kill/"):
        os.kill(os.getpid(), signal.SIGKILL)
"""

GUNICORN = ["gunicorn", "--workers=2", "--log-level=warning", "--no-control-socket"]
SERVERS = {
    "gunicorn sync": [*GUNICORN, "--worker-class=sync", "service:wsgi"],
    "gunicorn gthread": [*GUNICORN, "--worker-class=gthread", "--threads=4", "service:wsgi"],
    "gunicorn gevent": [*GUNICORN, "--worker-class=gevent", "service:wsgi"],
    "gunicorn uvicorn": [*GUNICORN, "--worker-class=uvicorn_worker.UvicornWorker", "service:asgi"],
    "gunicorn asgi": [*GUNICORN, "--worker-class=asgi", "service:asgi"],
    "uvicorn": ["uvicorn", "--workers=2", "--log-level=warning", "--lifespan=off", "service:asgi"],
}
PRELOADED = [
    f"{name} preload" for name in SERVERS if name != "uvicorn"
]  # it starts its workers anew


class Server:
    """A running server whose workers are recorded."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        self._url = f"http://127.0.0.1:{port}"
        #: Who answered each request: the worker's process id, and that of the process that called init.
        self.answers: dict[str, tuple[int, int]] = {}

    def wait_for_workers(self, gone: int = 0) -> None:
        """Wait until two workers answer; one that has not come so far yet may miss a signal."""
        seen: set[int] = set()

        def both() -> bool:
            assert self.process.poll() is None, "the server ended"
            with contextlib.suppress(requests.ConnectionError):
                seen.add(int(requests.get(f"{self._url}/healthz", timeout=10).text))
            return len(seen - {gone}) == 2

        wait_for("both workers to answer", both, 30)

    def get(self, path: str) -> None:
        response = requests.get(self._url + path, timeout=30)
        assert response.status_code == 200
        pid, imported_by = map(int, response.text.split())
        self.answers[path] = pid, imported_by


@contextlib.contextmanager
def running(name: str, daemon: SessionDaemon, folder: Path) -> Iterator[Server]:
    (folder / "service.py").write_text(SERVICE)
    port = free_port()
    kind = name.removesuffix(" preload")
    words: Sequence[str] = [sys.executable, "-m", *SERVERS[kind]]
    if "gunicorn" in name:
        words = [*words, f"--bind=127.0.0.1:{port}"]
        if kind != name:
            words = [*words, "--preload"]
    else:
        words = [*words, f"--port={port}"]
    with subprocess.Popen(words, cwd=folder, env=daemon.env) as process:
        server = Server(process, port)
        try:
            server.wait_for_workers()
            yield server
        finally:
            if process.poll() is None:
                process.terminate()


def spans_of(session: Session) -> list[SpanRecord]:
    session.stop()
    with Relay() as relay:
        requests = [*relay.read(session.output), *relay.finish()]
        stats = relay.stats
    assert (stats.discarded_events, stats.invalid_events, stats.ends_without_start) == (0, 0, 0)
    return [span for request in requests for span in parse_request(request.body)]


def check(server: Server, spans: list[SpanRecord], *, imported_by_worker: bool) -> None:
    """Each request that was answered has its three spans, all of the instance that answered."""
    assert not [span for span in spans if span.unfinished]
    handled = {str(span.attributes["url.path"]): span for span in spans if span.kind == "SERVER"}
    others = {span.name: span for span in spans if span.kind != "SERVER"}
    assert set(handled) == set(server.answers)
    assert len(spans) == 3 * len(handled)
    instances = set()
    for path, request in handled.items():
        number = path.split("/")[2]
        before, after = others[f"before {number}"], others[f"after {number}"]
        pid, imported_by = server.answers[path]
        assert before.attributes["pid"] == pid
        assert (imported_by == pid) == imported_by_worker
        for span in (before, after, request):
            assert span.resource["process.pid"] == pid
            assert span.resource["service.name"] == "service"
            assert span.trace_id == request.trace_id
            instances.add((pid, span.resource["service.instance.id"]))
        assert request.parent_span_id == ""
        expected = {
            "http.request.method": "GET",
            "http.response.status_code": 200,
            "url.scheme": "http",
            "network.protocol.version": "1.1",
            "client.address": "127.0.0.1",
            "server.address": "127.0.0.1",
            "server.port": server.port,
            "user_agent.original": requests.utils.default_user_agent(),
        }
        assert {key: request.attributes.get(key) for key in expected} == expected
        assert before.parent_span_id == after.parent_span_id == request.span_id
    assert len(instances) == len(dict(instances)) >= 2, "an instance is one process"


@pytest.mark.parametrize("name", [*SERVERS, *PRELOADED])
def test_every_worker_is_an_instance_and_no_span_is_lost(
    session_daemon: SessionDaemon, tmp_path: Path, name: str
) -> None:
    session = session_daemon.session("servers")
    with running(name, session_daemon, tmp_path) as server:
        with ThreadPoolExecutor(8) as clients:
            list(clients.map(server.get, [f"/task/{number}" for number in range(80)]))

        # A worker that dies right after an answer takes nothing with it; another one takes its place.
        server.get("/kill/80")
        dead = server.answers["/kill/80"][0]
        wait_for("the worker to die", lambda: not _is_alive(dead))
        server.wait_for_workers(gone=dead)
        server.get("/task/81")

        # Nor does one that is told to stop in the middle of a request: that is finished first.
        with ThreadPoolExecutor(2) as clients:
            slow = [clients.submit(server.get, f"/slow/{number}") for number in (82, 83)]
            wait_for(
                "a request to begin", lambda: any((tmp_path / n).exists() for n in ("82", "83"))
            )
            wait_for(
                "requests to begin", lambda: all((tmp_path / n).exists() for n in ("82", "83"))
            )
            server.process.send_signal(signal.SIGTERM)
            for future in slow:
                future.result()
        server.process.wait(timeout=60)
    assert server.process.pid not in {pid for pid, _ in server.answers.values()}
    check(server, spans_of(session), imported_by_worker=name not in PRELOADED)


def _is_alive(pid: int) -> bool:
    """Whether there is such a process that is no zombie."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@contextlib.contextmanager
def uvicorn_here(app: Any) -> Iterator[int]:
    """Run a Starlette application in uvicorn, in a thread; yields its port."""
    port = free_port()
    config = uvicorn.Config(
        TracingMiddleware(app), port=port, log_level="critical", ws="websockets-sansio"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for("uvicorn to listen", lambda: server.started)
        yield port
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def spans() -> Iterator[list[SpanRecord]]:
    """The spans that have ended in this process so far."""
    provider = make_provider(Settings(backend="memory"), "here")
    assert isinstance(provider.backend, MemoryBackend)
    api._use(provider)
    yield provider.backend.records
    api._use(None)


def test_a_client_that_leaves_in_the_middle_of_a_stream(spans: list[SpanRecord]) -> None:
    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield b"part"
            await asyncio.sleep(0.01)

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(parts())

    with uvicorn_here(Starlette(routes=[Route("/stream/{id}", stream)])) as port:
        with requests.get(f"http://127.0.0.1:{port}/stream/7", stream=True, timeout=10) as response:
            received = response.iter_content(4)
            assert next(received) == b"part"
            assert spans == []
        wait_for("the span to end", lambda: spans)
    [span] = spans
    assert (span.name, span.status) == ("GET /stream/{id}", "UNSET")
    assert [event.name for event in span.events] == ["client disconnected"]
    assert span.attributes["http.response.status_code"] == 200


def test_a_websocket_is_one_span(spans: list[SpanRecord]) -> None:
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            await socket.send_text(await socket.receive_text())

    with uvicorn_here(Starlette(routes=[WebSocketRoute("/room/{id}", echo)])) as port:
        with connect(f"ws://127.0.0.1:{port}/room/7") as socket:
            socket.send("hello")
            assert socket.recv() == "hello"
            assert spans == []
        wait_for("the span to end", lambda: spans)
    [span] = spans
    assert (span.name, span.kind, span.status) == ("GET /room/{id}", "SERVER", "UNSET")
    assert span.attributes["http.response.status_code"] == 101
    assert span.attributes["url.scheme"] == "ws"
    assert span.attributes["server.port"] == port


def test_flask_names_its_routes_and_streams_within_the_request(spans: list[SpanRecord]) -> None:
    app = flask.Flask("shop")

    @app.get("/customers/<int:number>")
    def customer(number: int) -> flask.Response:
        def parts() -> Iterator[str]:
            for part in range(2):
                with k8s_tracing.span(f"part {part}"):
                    yield f"{flask.request.path} "

        return flask.Response(flask.stream_with_context(parts()))

    @app.get("/fails")
    def fails() -> str:
        raise ValueError("no driver")

    traced = wsgi.TracingMiddleware(app)
    with make_server("127.0.0.1", 0, traced, handler_class=SilentHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert requests.get(f"{url}/customers/7", timeout=10).text == "/customers/7 " * 2
        assert requests.get(f"{url}/fails", timeout=10).status_code == 500
        assert requests.get(f"{url}/nowhere", timeout=10).status_code == 404
        server.shutdown()
        thread.join()
    *parts, customer_span, failed, missing = spans
    assert [span.name for span in parts] == ["part 0", "part 1"]
    assert {span.parent_span_id for span in parts} == {customer_span.span_id}
    assert customer_span.name == "GET /customers/<int:number>"
    assert (failed.name, failed.status, failed.attributes["error.type"]) == (
        "GET /fails",
        "ERROR",
        "500",
    )
    assert (missing.name, missing.status) == ("GET", "UNSET")


class SilentHandler(WSGIRequestHandler):
    def log_message(self, *arguments: object) -> None: ...
