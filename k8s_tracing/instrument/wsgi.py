# SPDX-License-Identifier: Apache-2.0
"""A span for each request of a WSGI application: Flask, Django, Bottle, Falcon and others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from opentelemetry import context as context_api
from opentelemetry.trace import Span, SpanKind

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

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Callable[[bytes], object]]
Application: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

#: Where a request's span is in the environ.
SPAN_KEY = "k8s_tracing.span"
_KEYS = [("HTTP_" + name.upper().replace("-", "_"), name) for name in HEADERS | W3C_HEADERS]


class TracingMiddleware:
    """Wraps a WSGI application: one SERVER span from the request to the close of its response.

    The span continues the trace of the request's headers, and is the current one while the application runs, also
    where it makes its response piece by piece. A response that is a list, or a file that the server sends by itself,
    needs the application no more: then the span ends at once.

    Args:
        app: the application.
        excluded_paths: paths without a span, exact ("/healthz") or with all below them ("/static/*").
        route: returns the route of a request from its environ, when its response begins; None leaves it out.

    Raises:
        TypeError: `excluded_paths` is a str.
    """

    def __init__(
        self,
        app: Application,
        *,
        excluded_paths: Iterable[str] = (),
        route: Callable[[Environ], str | None] | None = None,
    ) -> None:
        self.app = app
        self._is_excluded = path_filter(excluded_paths)
        self._route_of = safely(route or route_of)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request."""
        path = _path(environ)
        if SPAN_KEY in environ or self._is_excluded(path):
            return self.app(environ, start_response)
        method = environ["REQUEST_METHOD"]
        headers = _headers(environ)
        # Made current as a whole: the request's baggage is for whoever handles it.
        token = context_api.attach(api.extract(headers))
        try:
            return self._handle(environ, start_response, method, path, headers)
        finally:
            context_api.detach(token)

    def _handle(
        self,
        environ: Environ,
        start_response: StartResponse,
        method: str,
        path: str,
        headers: dict[str, str],
    ) -> Iterable[bytes]:
        with api.span(
            span_name(method),
            _attributes(environ, method, path, headers) if api.backend_name() != "noop" else None,
            kind=SpanKind.SERVER,
            record_exception=False,
            set_status_on_exception=False,
            end_on_exit=False,
        ) as span:
            environ[SPAN_KEY] = span
            if not span.is_recording():
                return self.app(environ, start_response)
            exchange = _Exchange(span, environ, method, self._route_of, start_response)
            try:
                response = self.app(environ, exchange.start_response)
            except BaseException as error:
                exchange.fail(error)
                exchange.end()
                raise
            file_wrapper = environ.get("wsgi.file_wrapper")
            if isinstance(response, (list, tuple)) or (
                isinstance(file_wrapper, type) and isinstance(response, file_wrapper)
            ):
                exchange.end()
                return response
            return _Response(response, exchange)


class _Exchange:
    """One request, its response's status, and its span."""

    __slots__ = (
        "_environ", "_failed", "_method", "_route", "_route_of", "_span", "_start_response", "_status"
    )  # fmt: skip

    def __init__(
        self,
        span: Span,
        environ: Environ,
        method: str,
        route_of: Callable[[Environ], str | None],
        start_response: StartResponse,
    ) -> None:
        self._span = span
        self._environ = environ
        self._method = method
        self._route_of = route_of
        self._start_response = start_response
        self._status = 0
        self._route: str | None = None
        self._failed = False

    def start_response(
        self, status: str, headers: list[tuple[str, str]], *exc_info: Any
    ) -> Callable[[bytes], object]:
        """Note the status; `exc_info` is there when an error replaces a response that was begun."""
        code = status[:3]
        self._status = int(code) if code.isdecimal() else 0
        self._route = self._route_of(self._environ)  # Flask takes it away when it is done
        return self._start_response(status, headers, *exc_info)

    def fail(self, error: BaseException) -> None:
        """The application raised `error`."""
        if isinstance(error, Exception) and self._span.is_recording():
            set_failure(self._span, error)
            self._failed = True

    def end(self) -> None:
        """End the span, unless it has ended."""
        if self._span.is_recording():
            route = self._route or self._route_of(self._environ)
            set_outcome(self._span, self._method, route, self._status, self._failed)
            self._span.end()


class _Response:
    """The response of an application, which is made while the server asks for it."""

    __slots__ = ("_context", "_exchange", "_iterator", "_response")

    def __init__(self, response: Iterable[bytes], exchange: _Exchange) -> None:
        self._response = response
        self._exchange = exchange
        self._iterator: Iterator[bytes] | None = None
        self._context = context_api.get_current()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        # What the application has made current when it yields is current again when it goes on, and only then: in
        # between, the thread is the server's.
        token = context_api.attach(self._context)
        try:
            if self._iterator is None:
                self._iterator = iter(self._response)
            return next(self._iterator)
        except StopIteration:
            raise
        except BaseException as error:
            self._exchange.fail(error)
            raise
        finally:
            self._context = context_api.get_current()
            context_api.detach(token)

    def close(self) -> None:
        """The server calls it when it has sent the response, or has given up."""
        token = context_api.attach(self._context)
        try:
            close = getattr(self._response, "close", None)
            if close is not None:
                close()
        except BaseException as error:
            self._exchange.fail(error)
            raise
        finally:
            context_api.detach(token)
            self._exchange.end()


def route_of(environ: Environ) -> str | None:
    """Return the route that Flask (or another user of Werkzeug's routing) or Bottle has found for a request."""
    rule = getattr(environ.get("werkzeug.request"), "url_rule", None) or environ.get("bottle.route")
    route: str | None = getattr(rule, "rule", None)
    return route and environ.get("SCRIPT_NAME", "") + route


def _headers(environ: Environ) -> dict[str, str]:
    """Return those headers of a request that we, or the propagators in use, look at."""
    if reads_only_w3c(propagate.get_global_textmap()):
        return {name: environ[key] for key, name in _KEYS if key in environ}
    return {
        key[5:].replace("_", "-").lower(): value
        for key, value in environ.items()
        if key.startswith("HTTP_")
    }


def _path(environ: Environ) -> str:
    # PEP 3333: the bytes of the path, decoded as ISO-8859-1
    path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")


def _attributes(environ: Environ, method: str, path: str, headers: dict[str, str]) -> Attributes:
    peer_port: str = environ.get("REMOTE_PORT", "")
    protocol: str = environ.get("SERVER_PROTOCOL", "")
    attributes = request_attributes(
        method,
        environ["wsgi.url_scheme"],
        path,
        environ.get("QUERY_STRING", ""),
        headers,
        protocol.removeprefix("HTTP/"),
        (environ.get("REMOTE_ADDR"), int(peer_port) if peer_port.isdecimal() else None),
        None,  # a WSGI server tells its name, and not on which of its addresses the request came
    )
    if "server.address" not in attributes:
        attributes["server.address"] = environ.get("SERVER_NAME", "")
        port: str = environ.get("SERVER_PORT", "")  # empty on a Unix socket
        if port.isdecimal():
            attributes["server.port"] = int(port)
    return attributes
