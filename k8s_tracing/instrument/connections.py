# SPDX-License-Identifier: Apache-2.0
"""Which connection a request used, and what looking up its host's name took: on the CLIENT span of whoever sends it.

The agent joins a request with its connection to a Kubernetes Service by the two ends of that connection
(`network.local.*`, `network.peer.*`). OpenTelemetry's instrumentations do not record them; this adds them, below them,
where the connection is at hand.
"""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import socket
import sys
import time
import weakref
from collections.abc import Callable
from functools import wraps
from typing import Any

from opentelemetry.trace import Span, SpanKind, get_current_span

from k8s_tracing.http import Attributes

#: A connection's attribute: its socket, and what is said of it.
_TOLD = "_k8s_tracing_told"
_MAX_ANSWERS = 16


def record_connections() -> None:
    """From now on, put connections and look-ups on the CLIENT span that is current when they are used.

    For whatever sends through http.client (requests, urllib3, urllib) or through httpcore (httpx, which has to be
    imported before), and looks up names by the `socket` module or asyncio. It changes these modules for the whole
    process; called again it does nothing. `opentelemetry-instrument` calls it when k8s_tracing is chosen.
    """
    _wrap(http.client.HTTPConnection, "getresponse", _with_socket)
    _wrap(socket, "getaddrinfo", _with_lookup)
    _wrap(asyncio.BaseEventLoop, "getaddrinfo", _with_lookup_in_loop)
    if "httpx" in sys.modules or "httpcore" in sys.modules:
        import httpcore

        _wrap(httpcore.ConnectionPool, "handle_request", _with_stream)
        _wrap(httpcore.AsyncConnectionPool, "handle_async_request", _with_async_stream)


def ends_of(connected: Any) -> Attributes:
    """The two ends of a socket's connection, as attributes."""
    return _ends(connected.getsockname, connected.getpeername)


def _tell_socket(connection: Any) -> None:
    span = _client_span()
    if span is None or connection.sock is None:
        return
    told = getattr(connection, _TOLD, None)
    if told is None or told[0]() is not connection.sock:
        told = weakref.ref(connection.sock), ends_of(connection.sock)
        setattr(connection, _TOLD, told)
    span.set_attributes(told[1])


def _client_span() -> Span | None:
    span = get_current_span()
    is_client = getattr(span, "kind", None) is SpanKind.CLIENT and span.is_recording()
    return span if is_client else None


def _ends(local: Callable[[], Any], peer: Callable[[], Any]) -> Attributes:
    """The two ends of a connection; nothing of a socket without ports, or one that is closed."""
    attributes: Attributes = {}
    try:
        for end, place in (("local", local()), ("peer", peer())):
            if isinstance(place, tuple):
                attributes[f"network.{end}.address"] = place[0]
                attributes[f"network.{end}.port"] = place[1]
    except OSError:
        pass
    return attributes


def _wrap(owner: Any, name: str, wrapper: Callable[[Any], Any]) -> None:
    original = getattr(owner, name)
    if getattr(original, _TOLD, False):
        return
    wrapped = wraps(original)(wrapper(original))
    setattr(wrapped, _TOLD, True)
    setattr(owner, name, wrapped)


def _with_socket(original: Any) -> Any:
    def getresponse(connection: Any, *args: Any, **kwargs: Any) -> Any:
        _tell_socket(connection)
        return original(connection, *args, **kwargs)

    return getresponse


def _with_stream(original: Any) -> Any:
    def handle_request(pool: Any, *args: Any, **kwargs: Any) -> Any:
        response = original(pool, *args, **kwargs)
        _tell_stream(response)
        return response

    return handle_request


def _with_async_stream(original: Any) -> Any:
    async def handle_async_request(pool: Any, *args: Any, **kwargs: Any) -> Any:
        response = await original(pool, *args, **kwargs)
        _tell_stream(response)
        return response

    return handle_async_request


def _tell_stream(response: Any) -> None:
    span = _client_span()
    stream = response.extensions.get("network_stream")
    if span is None or stream is None:
        return
    info = stream.get_extra_info
    span.set_attributes(_ends(lambda: info("client_addr"), lambda: info("server_addr")))


def _with_lookup(original: Any) -> Any:
    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        span = _client_span()
        if span is None or not _is_name(host):
            return original(host, *args, **kwargs)
        start_ns = time.perf_counter_ns()
        try:
            found = original(host, *args, **kwargs)
        except OSError as error:
            _tell_lookup(span, host, start_ns, (), error)
            raise
        _tell_lookup(span, host, start_ns, found)
        return found

    return getaddrinfo


def _with_lookup_in_loop(original: Any) -> Any:
    # The loop asks in another thread, where no span is current.
    async def getaddrinfo(loop: Any, host: Any, *args: Any, **kwargs: Any) -> Any:
        span = _client_span()
        if span is None or not _is_name(host):
            return await original(loop, host, *args, **kwargs)
        start_ns = time.perf_counter_ns()
        try:
            found = await original(loop, host, *args, **kwargs)
        except OSError as error:
            _tell_lookup(span, host, start_ns, (), error)
            raise
        _tell_lookup(span, host, start_ns, found)
        return found

    return getaddrinfo


def _is_name(host: Any) -> bool:
    """Is it looked up? Addresses are not."""
    if not host:
        return False
    try:
        ipaddress.ip_address(_text(host).partition("%")[0])
    except ValueError:
        return True
    return False


def _text(host: Any) -> str:
    return host.decode(errors="replace") if isinstance(host, bytes) else str(host)


def _tell_lookup(
    span: Span, host: Any, start_ns: int, found: Any, error: OSError | None = None
) -> None:
    attributes: Attributes = {
        "dns.question.name": _text(host),
        "dns.answers": list(dict.fromkeys(str(each[4][0]) for each in found))[:_MAX_ANSWERS],
        "k8s_tracing.dns.duration_ns": time.perf_counter_ns() - start_ns,
    }
    if error is not None:
        attributes["error.type"] = type(error).__name__
    span.add_event("dns.lookup", attributes)
