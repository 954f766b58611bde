# SPDX-License-Identifier: Apache-2.0
"""A span for each request of an ASGI application: Starlette, FastAPI, Quart, Django and others.

OpenTelemetry's ASGI middleware works, too. This one makes one span a request instead of three or more, and costs a
fraction; it records no metrics.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any, TypeAlias

from opentelemetry import context as context_api
from opentelemetry.trace import Span, SpanKind, StatusCode

from k8s_tracing import api
from k8s_tracing.http import Attributes, request_attributes, span_name
from k8s_tracing.instrument._http import (
    HEADERS,
    W3C_HEADERS,
    path_filter,
    reads_only_w3c,
    safely,
    set_failure,
    set_outcome,
)
from k8s_tracing.propagation import propagate

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Where a request's span is in the scope; an application that is mounted into another has one span a request.
SPAN_KEY = "k8s_tracing.span"
_NAMES = {name.encode(): name for name in HEADERS | W3C_HEADERS}
#: What a server makes of an application that gives up on a WebSocket: RFC 6455, "internal error".
_INTERNAL_ERROR = 1011
#: The messages that end a response, but for trailers.
_BODY = frozenset(("http.response.body", "http.response.pathsend", "http.response.zerocopysend"))


class TracingMiddleware:
    """Wraps an ASGI application: one SERVER span from the request to the end of its response.

    The span continues the trace of the request's headers. It ends when the response is complete or the client has
    gone, so work that goes on afterwards (background tasks) is not in its time, but its spans are its children.
    A response of 500 or more ends it with the application: the exception behind it comes after the response.

    Args:
        app: the application.
        excluded_paths: paths without a span, exact ("/healthz") or with all below them ("/static/*").
        route: returns the route of a request from its scope, after it was handled; None leaves it out.
        trace_response: whether a response names its span in the header `traceresponse`, so that who asked can find
            the trace. The format is that of `traceparent` (W3C Trace Context Level 2, a draft).

    Raises:
        TypeError: `excluded_paths` is a str.
    """

    def __init__(
        self,
        app: Application,
        *,
        excluded_paths: Iterable[str] = (),
        route: Callable[[Scope], str | None] | None = None,
        trace_response: bool = False,
    ) -> None:
        self.app = app
        self._trace_response = trace_response
        self._is_excluded = path_filter(excluded_paths)
        self._route_of = safely(route or Routes())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, WebSocket, or the application's lifespan."""
        kind = scope["type"]
        if (
            (kind != "http" and kind != "websocket")
            or SPAN_KEY in scope
            or self._is_excluded(scope["path"])
        ):
            await self.app(scope, receive, send)
            return
        method = scope.get("method", "GET")  # a WebSocket starts as a GET
        headers = _headers(scope.get("headers", ()))
        # Made current as a whole: the request's baggage is for whoever handles it.
        token = context_api.attach(api.extract(headers))
        try:
            await self._handle(scope, receive, send, method, headers)
        finally:
            context_api.detach(token)

    async def _handle(
        self, scope: Scope, receive: Receive, send: Send, method: str, headers: dict[str, str]
    ) -> None:
        kind = scope["type"]
        with api.span(
            span_name(method),
            _attributes(scope, method, headers) if api.backend_name() != "noop" else None,
            kind=SpanKind.SERVER,
            record_exception=False,
            set_status_on_exception=False,
            end_on_exit=False,
        ) as span:
            scope[SPAN_KEY] = span
            if self._trace_response and kind == "http":
                send = _naming(span, send)
            if not span.is_recording():
                await self.app(scope, receive, send)
                return
            handle = _Request if kind == "http" else _WebSocket
            exchange = handle(span, scope, method, self._route_of, receive, send)
            try:
                await self.app(scope, exchange.receive, exchange.send)
            except Exception as error:
                exchange.fail(error)
                raise
            finally:
                exchange.end()


def _naming(span: Span, send: Send) -> Send:
    """Return `send` that adds the header `traceresponse` to a response."""
    value: str | None = getattr(span, "_traceparent", None)  # a native span has it ready
    if value is None:
        context = span.get_span_context()
        if not context.is_valid:
            return send
        value = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    header = (b"traceresponse", value.encode())

    async def send_with_header(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), header]}
        await send(message)

    return send_with_header


class _Exchange:
    """What passes between server and application, and the span of it."""

    __slots__ = (
        "_failed", "_method", "_receive", "_route_of", "_scope", "_send", "_span", "_status"
    )  # fmt: skip

    def __init__(
        self,
        span: Span,
        scope: Scope,
        method: str,
        route_of: Callable[[Scope], str | None],
        receive: Receive,
        send: Send,
    ) -> None:
        self._span = span
        self._scope = scope
        self._method = method
        self._route_of = route_of
        self._receive = receive
        self._send = send
        self._status = 0
        self._failed = False

    def fail(self, error: Exception) -> None:
        """The application raised `error`."""
        if self._span.is_recording():
            set_failure(self._span, error)
            self._failed = True

    def end(self) -> None:
        """End the span, unless it has ended."""
        if self._span.is_recording():
            route = self._route_of(self._scope)
            set_outcome(self._span, self._method, route, self._status, self._failed)
            self._span.end()

    def left(self) -> None:
        """The client has gone before it had its response."""
        if self._span.is_recording():
            self._span.add_event("client disconnected")
            self.end()


class _Request(_Exchange):
    __slots__ = ("_complete", "_trailers")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._complete = False
        self._trailers = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._complete:
            self.left()
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self._status = message["status"]
            self._trailers = message.get("trailers", False)
        await self._send(message)
        if kind == "http.response.trailers":
            self._complete = not message.get("more_trailers", False)
        elif kind in _BODY:
            self._complete = not (self._trailers or message.get("more_body", False))
        if self._complete and self._status < 500:
            self.end()


class _WebSocket(_Exchange):
    __slots__ = ()

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.end()
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self._status = 101
        elif kind == "websocket.http.response.start":
            self._status = message["status"]
        elif kind == "websocket.close":
            if not self._status:
                self._status = 403  # what the server answers to a handshake that is not accepted
            elif message.get("code") == _INTERNAL_ERROR and self._span.is_recording():
                self._span.set_attribute("error.type", str(_INTERNAL_ERROR))
                self._span.set_status(StatusCode.ERROR, message.get("reason") or None)
        await self._send(message)


class Routes:
    """Finds the route of a request that Starlette, or what is built on it, has handled.

    Newer releases, and FastAPI, say which in the scope. Starlette 1.0 only says which endpoint, and the application's
    routes are searched for that, once for each.
    """

    def __init__(self) -> None:
        self._known: dict[int, str | None] = {}

    def __call__(self, scope: Scope) -> str | None:
        """Return the route with all that it is mounted below; None when there is none, or more than one."""
        root: str = scope.get("root_path", "")
        route = scope.get("route")
        if route is not None:
            if _has_routes(route):  # a Mount, whose own path is part of root_path by now
                return root + "/{path}"
            path: str = _path_of(route)
            return root + path if path else None
        endpoint, router = scope.get("endpoint"), scope.get("router")
        if endpoint is None or router is None:
            return None
        if id(endpoint) not in self._known:
            paths = {
                path
                for path, found in _endpoints(router, scope.get("app_root_path", root))
                if found is endpoint
            }
            self._known[id(endpoint)] = paths.pop() if len(paths) == 1 else None
        return self._known[id(endpoint)]


def _endpoints(router: Any, above: str) -> Iterator[tuple[str, object]]:
    for route in getattr(router, "routes", None) or ():
        path = above + _path_of(route)
        if _has_routes(route):
            yield from _endpoints(route, path.removesuffix("/{path}"))
        else:
            yield path, getattr(route, "endpoint", None)


def _has_routes(route: Any) -> bool:
    return getattr(route, "routes", None) is not None


def _path_of(route: Any) -> str:
    return getattr(route, "path_format", None) or getattr(route, "path", None) or ""


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return those headers of a request that we, or the propagators in use, look at."""
    names = _NAMES if reads_only_w3c(propagate.get_global_textmap()) else None
    headers: dict[str, str] = {}
    for key, value in raw:
        name = names.get(key) if names else key.decode("latin-1")
        if name:
            text = value.decode("latin-1")
            # RFC 9110, 5.3: fields of one name are one list
            headers[name] = f"{headers[name]},{text}" if name in headers else text
    return headers


def _attributes(scope: Scope, method: str, headers: dict[str, str]) -> Attributes:
    is_websocket = scope["type"] == "websocket"
    attributes = request_attributes(
        method,
        scope.get("scheme", "ws" if is_websocket else "http"),
        scope["path"],
        str(scope.get("query_string", b""), "latin-1"),
        headers,
        None if is_websocket else scope.get("http_version"),
        scope.get("client"),
        scope.get("server"),
    )
    if is_websocket:
        attributes["network.protocol.name"] = "websocket"
    return attributes
