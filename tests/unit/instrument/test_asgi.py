"""The ASGI middleware, driven message by message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry.propagators.b3 import B3MultiFormat
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router

import k8s_tracing
from k8s_tracing.instrument.asgi import TracingMiddleware
from k8s_tracing.record import SpanRecord
from tests.unit.instrument.conftest import SPAN_ID, TRACE_ID, TRACEPARENT

Message = dict[str, Any]

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"hello"}


def scope(path: str = "/", **fields: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"shop.example:8080")],
        "client": ("10.0.0.7", 40000),
        "server": ("10.0.0.1", 8080),
        **fields,
    }


def run(
    app: Callable[..., Awaitable[None]],
    request: dict[str, Any],
    messages: tuple[Message, ...] = ({"type": "http.request"},),
) -> list[Message]:
    """Handle one request; returns what the application sent."""
    incoming, sent = iter(messages), []

    async def receive() -> Message:
        return next(incoming, {"type": "http.disconnect"})

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(request, receive, send))  # type: ignore[arg-type]
    return sent


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    await send(BODY)


def test_a_request_is_a_server_span_with_the_attributes_of_http(spans: list[SpanRecord]) -> None:
    headers = [
        (b"host", b"shop.example:8080"),
        (b"user-agent", b"curl/8"),
        (b"traceparent", TRACEPARENT.encode()),
        (b"tracestate", b"vendor=1"),
        (b"tracestate", b"other=2"),
    ]
    run(TracingMiddleware(hello), scope("/a", query_string=b"b=1&sig=x", headers=headers))
    [span] = spans
    assert (span.name, span.kind, span.status) == ("GET", "SERVER", "UNSET")
    assert (span.trace_id, span.parent_span_id) == (TRACE_ID, SPAN_ID)
    assert span.trace_state == "vendor=1,other=2"
    assert span.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.path": "/a",
        "url.query": "b=1&sig=REDACTED",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "client.address": "10.0.0.7",
        "network.peer.address": "10.0.0.7",
        "network.peer.port": 40000,
        "network.local.address": "10.0.0.1",
        "network.local.port": 8080,
        "server.address": "shop.example",
        "server.port": 8080,
        "user_agent.original": "curl/8",
    }


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, ("10.0.0.7", "10.0.0.1", 8080, "http")),
        ({"host": "shop.example"}, ("10.0.0.7", "shop.example", 80, "http")),
        ({"host": "[2001:db8::1]:81"}, ("10.0.0.7", "2001:db8::1", 81, "http")),
        ({"host": "2001:db8::1"}, ("10.0.0.7", "2001:db8::1", 80, "http")),
        ({"host": "a:b:c"}, ("10.0.0.7", "a:b:c", 80, "http")),
        ({"host": "shop:99999999999"}, ("10.0.0.7", "shop", 80, "http")),
        (
            {
                "host": "pod",
                "x-forwarded-for": "1.2.3.4, 10.1.1.1",
                "x-forwarded-host": "shop.example",
                "x-forwarded-proto": "https",
            },
            ("1.2.3.4", "shop.example", 443, "https"),
        ),
        (
            {"forwarded": 'for="[2001:db8::2]:47";Proto=https;host=shop.example, for=10.1.1.1'},
            ("2001:db8::2", "shop.example", 443, "https"),
        ),
        ({"forwarded": "nonsense", "host": "h:1"}, ("10.0.0.7", "h", 1, "http")),
    ],
)
def test_client_and_server_are_those_that_the_client_means(
    spans: list[SpanRecord], headers: dict[str, str], expected: tuple[object, ...]
) -> None:
    raw = [(key.encode(), value.encode()) for key, value in headers.items()]
    run(TracingMiddleware(hello), scope(headers=raw))
    names = ("client.address", "server.address", "server.port", "url.scheme")
    assert tuple(spans[0].attributes[name] for name in names) == expected


def test_any_propagator_finds_its_headers(
    spans: list[SpanRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", B3MultiFormat())
    headers = {"x-b3-traceid": TRACE_ID, "x-b3-spanid": SPAN_ID, "x-b3-sampled": "1"}
    raw = [(key.encode(), value.encode()) for key, value in headers.items()]
    run(TracingMiddleware(hello), scope(headers=raw))
    assert (spans[0].trace_id, spans[0].parent_span_id) == (TRACE_ID, SPAN_ID)


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("design=1&sig=", "design=1&sig=REDACTED"),
        ("Signature=a%20b&AWSAccessKeyId=c", "Signature=REDACTED&AWSAccessKeyId=REDACTED"),
        ("a&X-Goog-Signature=x&b", "a&X-Goog-Signature=REDACTED&b"),
    ],
)
def test_credentials_in_a_query_are_not_shown(
    spans: list[SpanRecord], query: str, shown: str
) -> None:
    run(TracingMiddleware(hello), scope(query_string=query.encode()))
    assert spans[0].attributes["url.query"] == shown


def test_a_response_names_its_span_when_asked_to(spans: list[SpanRecord]) -> None:
    [start, _] = run(TracingMiddleware(hello, trace_response=True), scope())
    [span] = spans
    expected = f"00-{span.trace_id}-{span.span_id}-{span.flags:02x}".encode()
    assert start["headers"] == [(b"traceresponse", expected)]
    assert START["headers"] == []


def test_a_response_names_no_span_unless_asked_to(spans: list[SpanRecord]) -> None:
    [start, _] = run(TracingMiddleware(hello), scope())
    assert start["headers"] == []


def test_the_baggage_of_a_request_is_there_for_who_handles_it(spans: list[SpanRecord]) -> None:
    seen: dict[str, object] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(baggage.get_all())
        await hello(scope, receive, send)

    headers = [(b"traceparent", TRACEPARENT.encode()), (b"baggage", b"session=s1,customer=Trom")]
    run(TracingMiddleware(app), scope(headers=headers))
    assert seen == {"session": "s1", "customer": "Trom"}
    assert spans[0].parent_span_id == SPAN_ID
    assert not baggage.get_all()


def test_a_scope_with_hardly_anything_in_it(spans: list[SpanRecord]) -> None:
    run(TracingMiddleware(hello), {"type": "http", "path": "/", "method": "GET"})
    assert spans[0].attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.path": "/",
        "url.scheme": "http",
    }


def test_a_unix_socket_has_a_path_and_no_port(spans: list[SpanRecord]) -> None:
    run(TracingMiddleware(hello), scope(headers=[], client=None, server=("/run/app.sock", None)))
    attributes = spans[0].attributes
    assert attributes["server.address"] == "/run/app.sock"
    assert not {"server.port", "client.address", "network.peer.address"} & set(attributes)


def test_a_method_that_nobody_knows_is_other(spans: list[SpanRecord]) -> None:
    run(TracingMiddleware(hello), scope(method="BREW"))
    assert spans[0].name == "HTTP"
    assert spans[0].attributes["http.request.method"] == "_OTHER"
    assert spans[0].attributes["http.request.method_original"] == "BREW"


async def endpoint(request: Request) -> PlainTextResponse:
    with k8s_tracing.span("inside"):
        return PlainTextResponse("ok")


class Endpoint:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)


def shop() -> Starlette:
    nested = Router([Route("/{item:int}", endpoint), Route("/twice", endpoint)])
    return Starlette(
        routes=[
            Route("/customers/{id}", endpoint),
            Mount("/items", nested),
            Mount("/files", Endpoint()),
        ]
    )


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/customers/7", "/customers/{id}"),
        ("/items/7", "/items/{item}"),
        ("/files/a/b", "/files/{path}"),
        ("/nowhere", None),
    ],
)
def test_starlettes_route_is_in_the_name(
    spans: list[SpanRecord], path: str, route: str | None
) -> None:
    run(TracingMiddleware(shop()), scope(path))
    span = spans[-1]
    assert span.name == (f"GET {route}" if route else "GET")
    assert span.attributes.get("http.route") == route
    assert span.attributes["http.response.status_code"] == (200 if route else 404)
    for inner in spans[:-1]:
        assert inner.parent_span_id == span.span_id


def test_an_older_starlette_tells_only_the_endpoint(spans: list[SpanRecord]) -> None:
    async def unique(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    router = Router([Mount("/items", Router([Route("/{item}", unique)])), Route("/a", endpoint)])
    router.routes.append(Route("/b", endpoint))

    async def old(scope: Any, receive: Any, send: Any) -> None:
        await router(scope, receive, send)
        del scope["route"]

    async def late(scope: Any, receive: Any, send: Any) -> None:
        async def hold(message: Message) -> None:
            held.append(message)

        held: list[Message] = []
        await old(scope, receive, hold)
        for message in held:
            await send(message)

    app = TracingMiddleware(late)
    for _ in range(2):
        run(app, scope("/items/7"))
        run(app, scope("/a"))  # /a or /b: both have that endpoint
    names = [span.name for span in spans if span.kind == "SERVER"]
    assert names == ["GET /items/{item}", "GET"] * 2


def test_a_route_function_of_ones_own_and_one_that_fails(
    spans: list[SpanRecord], caplog: pytest.LogCaptureFixture
) -> None:
    run(TracingMiddleware(hello, route=lambda scope: "/mine"), scope())
    with caplog.at_level(logging.WARNING):
        run(TracingMiddleware(hello, route=lambda scope: scope["missing"]), scope())
    assert [span.name for span in spans] == ["GET /mine", "GET"]
    assert "route of a request" in caplog.text


@pytest.mark.parametrize("status", [404, 500, 503])
def test_only_a_fault_of_the_server_is_an_error(spans: list[SpanRecord], status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "status": status})
        await send(BODY)

    run(TracingMiddleware(app), scope())
    [span] = spans
    assert span.attributes["http.response.status_code"] == status
    assert (span.status, span.attributes.get("error.type")) == (
        ("ERROR", str(status)) if status >= 500 else ("UNSET", None)
    )


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "message"),
    [(ValueError("no driver"), "ValueError: no driver"), (Unprintable(), "Unprintable")],
)
def test_an_exception_is_recorded_and_goes_on(
    spans: list[SpanRecord], error: Exception, message: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    with pytest.raises(type(error)):
        run(TracingMiddleware(app), scope())
    [span] = spans
    assert (span.status, span.status_message) == ("ERROR", message)
    assert str(span.attributes["error.type"]).endswith(type(error).__name__)
    assert [event.name for event in span.events] == ["exception"]
    assert "http.response.status_code" not in span.attributes


def test_an_exception_behind_a_500_that_is_sent_is_recorded(spans: list[SpanRecord]) -> None:
    async def fails(request: Request) -> PlainTextResponse:
        raise ValueError("no driver")

    with pytest.raises(ValueError, match="no driver"):
        run(TracingMiddleware(Starlette(routes=[Route("/f", fails)])), scope("/f"))
    [span] = spans
    assert (span.name, span.status, span.status_message) == (
        "GET /f",
        "ERROR",
        "ValueError: no driver",
    )
    assert span.attributes["http.response.status_code"] == 500
    assert span.attributes["error.type"] == "ValueError"


def test_the_span_ends_with_the_response_and_not_with_background_work(
    spans: list[SpanRecord],
) -> None:
    ended_before: list[str] = []

    def background() -> None:
        ended_before.extend(span.name for span in spans)
        with k8s_tracing.span("background"):
            pass

    async def app(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok", background=BackgroundTask(background))

    run(TracingMiddleware(Starlette(routes=[Route("/", app)])), scope())
    request, later = spans
    assert ended_before == ["GET /"]
    assert later.parent_span_id == request.span_id


def test_a_streamed_response_ends_with_its_last_part(spans: list[SpanRecord]) -> None:
    ended: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "trailers": True})
        for more in (True, True, False):
            await send({**BODY, "more_body": more})
            ended.append(len(spans))
        for more in (True, False):
            await send({"type": "http.response.trailers", "headers": [], "more_trailers": more})
            ended.append(len(spans))

    run(TracingMiddleware(app), scope())
    assert ended == [0, 0, 0, 0, 1]


def test_a_client_that_leaves_ends_the_span(spans: list[SpanRecord]) -> None:
    ended: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({**BODY, "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        ended.append(len(spans))
        raise ConnectionResetError  # what comes after is not the request's

    with pytest.raises(ConnectionResetError):
        run(TracingMiddleware(app), scope(), messages=())
    [span] = spans
    assert ended == [1]
    assert (span.status, [event.name for event in span.events]) == (
        "UNSET",
        ["client disconnected"],
    )


def test_a_disconnect_after_the_response_is_nothing(spans: list[SpanRecord]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "status": 500})
        await send(BODY)
        await receive()

    run(TracingMiddleware(app), scope(), messages=())
    [span] = spans
    assert span.events == ()
    assert span.status == "ERROR"


def test_a_cancelled_request_ends_without_an_error(spans: list[SpanRecord]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run(TracingMiddleware(app), scope())
    assert [span.status for span in spans] == ["UNSET"]


@pytest.mark.parametrize(
    ("sent", "status", "error"),
    [
        (({"type": "websocket.accept"}, {"type": "websocket.close"}), 101, None),
        (({"type": "websocket.accept"}, {"type": "websocket.close", "code": 1011}), 101, "1011"),
        (({"type": "websocket.close"},), 403, None),
        (
            (
                {"type": "websocket.http.response.start", "status": 503, "headers": []},
                {"type": "websocket.http.response.body", "body": b""},
            ),
            503,
            "503",
        ),
    ],
)
def test_a_websocket(
    spans: list[SpanRecord], sent: tuple[Message, ...], status: int, error: str | None
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in sent:
            await send(message)

    request = scope("/ws", type="websocket", scheme="ws")
    del request["method"]
    run(TracingMiddleware(app), request, ({"type": "websocket.connect"},))
    [span] = spans
    assert (span.name, span.kind) == ("GET", "SERVER")
    assert span.attributes["http.response.status_code"] == status
    assert span.attributes["network.protocol.name"] == "websocket"
    assert span.attributes["url.scheme"] == "ws"
    assert (span.attributes.get("error.type"), span.status) == (
        error,
        "ERROR" if error else "UNSET",
    )


def test_a_websocket_whose_client_leaves_is_no_error(spans: list[SpanRecord]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"
        raise EOFError  # frameworks tell their application so that the client has gone

    messages = ({"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001})
    with pytest.raises(EOFError):
        run(TracingMiddleware(app), scope("/ws", type="websocket", scheme="ws"), messages)
    assert [span.status for span in spans] == ["UNSET"]


def test_the_lifespan_and_excluded_paths_have_no_span(spans: list[SpanRecord]) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    traced = TracingMiddleware(app, excluded_paths=["/healthz", "/static/*"])
    for request in ({"type": "lifespan"}, scope("/healthz"), scope("/static/a/b.css")):
        run(traced, request)
        assert seen[-1][0] is request
    assert spans == []
    for path in ("/healthz/deep", "/static", "/"):
        run(traced, scope(path))
    assert len(spans) == 3


def test_excluded_paths_is_no_str() -> None:
    with pytest.raises(TypeError, match=r"\['/healthz'\]"):
        TracingMiddleware(hello, excluded_paths="/healthz")


def test_an_application_that_is_traced_twice_has_one_span(spans: list[SpanRecord]) -> None:
    run(TracingMiddleware(TracingMiddleware(hello)), scope())
    assert len(spans) == 1


def test_a_request_is_no_child_of_the_span_that_the_server_was_started_in(
    spans: list[SpanRecord],
) -> None:
    with k8s_tracing.span("main"):
        run(TracingMiddleware(hello), scope())
    request, main = spans
    assert (request.parent_span_id, main.name) == ("", "main")
    assert request.trace_id != main.trace_id


def test_requests_at_the_same_time_keep_their_spans_apart(spans: list[SpanRecord]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            with k8s_tracing.span(scope["path"]):
                await asyncio.sleep(0)
        await hello(scope, receive, send)

    async def nothing(*message: Any) -> Any:
        return None

    async def main() -> None:
        traced = TracingMiddleware(app)
        await asyncio.gather(*(traced(scope(f"/{n}"), nothing, nothing) for n in range(10)))

    asyncio.run(main())
    requests = {span.attributes["url.path"]: span for span in spans if span.kind == "SERVER"}
    assert len(requests) == 10
    inner = [span for span in spans if span.kind == "INTERNAL"]
    assert len(inner) == 30
    assert all(span.parent_span_id == requests[span.name].span_id for span in inner)


def test_without_tracing_the_context_still_passes_through() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(f"{trace.get_current_span().get_span_context().trace_id:032x}")
        await hello(scope, receive, send)

    request = scope(headers=[(b"traceparent", TRACEPARENT.encode())])
    assert run(TracingMiddleware(app), request) == [START, BODY]
    assert seen == [TRACE_ID]


def test_a_trace_that_is_not_sampled_is_passed_on_and_not_recorded(
    spans: list[SpanRecord],
) -> None:
    headers: dict[str, str] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        k8s_tracing.inject(headers)
        await hello(scope, receive, send)

    unsampled = TRACEPARENT[:-2] + "00"
    run(TracingMiddleware(app), scope(headers=[(b"traceparent", unsampled.encode())]))
    assert spans == []
    assert headers["traceparent"].split("-")[1::2] == [TRACE_ID, "00"]
