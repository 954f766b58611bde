# SPDX-License-Identifier: Apache-2.0
"""HTTP server spans by OpenTelemetry's semantic conventions: what the ASGI and WSGI middleware share.

Source: OpenTelemetry semantic conventions 1.4x, "Semantic conventions for HTTP spans", stable.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import Span, StatusCode
from opentelemetry.util.types import AttributeValue

T = TypeVar("T")
Attributes: TypeAlias = dict[str, AttributeValue]
#: A host or path, and a port; None where the socket or the server tells none.
Address: TypeAlias = Sequence[Any]

_logger = logging.getLogger("k8s_tracing")

_KNOWN_METHODS = "CONNECT,DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT,QUERY,TRACE"
#: Others become _OTHER: anybody can send any number of methods.
METHODS = frozenset(
    os.environ.get("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", _KNOWN_METHODS).split(",")
)
#: The headers that become attributes.
HEADERS = frozenset(
    (
        "forwarded",
        "host",
        "user-agent",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
    )
)
W3C_HEADERS = frozenset(("baggage", "traceparent", "tracestate"))
_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
# The conventions name these four: they hold credentials.
_SECRET = re.compile(r"(^|&)(AWSAccessKeyId|Signature|sig|X-Goog-Signature)=[^&]*")
_FORWARDED = re.compile(r'\b(for|host|proto)\s*=\s*(?:"([^"]*)"|([^\s;,"]+))', re.IGNORECASE)


def span_name(method: str) -> str:
    """Return the name of a span whose route is not known (yet)."""
    return method if method in METHODS else "HTTP"


def request_attributes(
    method: str,
    scheme: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    version: str | None,
    peer: Address | None,
    local: Address | None,
) -> Attributes:
    """Return what is known of a request before it is handled.

    Args:
        method: as the client sent it.
        scheme: http, https, ws or wss.
        path: without the query.
        query: without the question mark; may be empty.
        headers: by their names in lower case.
        version: of HTTP, "1.1".
        peer: the other end of the connection: a client or a proxy.
        local: this end of the connection.
    """
    client = peer[0] if peer else None
    host = headers.get("host")
    if "forwarded" in headers or "x-forwarded-for" in headers:
        client, host, scheme = _before_proxies(headers, client, host, scheme)
    attributes: Attributes = {
        "http.request.method": method,
        "url.path": path,
        "url.scheme": scheme,
    }
    if method not in METHODS:
        attributes["http.request.method"] = "_OTHER"
        attributes["http.request.method_original"] = method
    if query:
        # The search for three words costs a tenth of what the expression does.
        if "sig=" in query or "Signature=" in query or "AWSAccessKeyId=" in query:
            query = _SECRET.sub(r"\1\2=REDACTED", query)
        attributes["url.query"] = query
    if version:
        attributes["network.protocol.version"] = version
    if client:
        attributes["client.address"] = client
    if peer and peer[0]:
        attributes["network.peer.address"] = peer[0]
        if peer[1]:
            attributes["network.peer.port"] = peer[1]
    if local and local[0]:
        attributes["network.local.address"] = local[0]
        if local[1] is not None:
            attributes["network.local.port"] = local[1]
    if host:
        address, port = _host_and_port(host)
        attributes["server.address"] = address
        attributes["server.port"] = port or _DEFAULT_PORTS.get(scheme, 80)
    elif local and local[0]:
        attributes["server.address"] = local[0]
        if local[1] is not None:
            attributes["server.port"] = local[1]
    agent = headers.get("user-agent")
    if agent:
        attributes["user_agent.original"] = agent
    return attributes


def set_outcome(span: Span, method: str, route: str | None, status: int, failed: bool) -> None:
    """Put on a span what is known when the request has been handled.

    Args:
        span: still open.
        method: of the request.
        route: the template that the path matched, None when unknown.
        status: of the response; 0 when none was sent.
        failed: whether an exception has set the span's status already.
    """
    if route:
        span.update_name(f"{span_name(method)} {route}")
        span.set_attribute("http.route", route)
    if status:
        span.set_attribute("http.response.status_code", status)
        if status >= 500 and not failed:
            span.set_attribute("error.type", str(status))
            span.set_status(StatusCode.ERROR)


def set_failure(span: Span, error: Exception) -> None:
    """Put an exception that leaves the application on a span that is still open."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    span.set_attribute("error.type", name)
    span.record_exception(error)
    try:
        text = f"{kind.__name__}: {error}"
    except Exception:  # its text is code of the application, and may fail as well
        text = kind.__name__
    span.set_status(StatusCode.ERROR, text)


def safely(route_of: Callable[[T], str | None]) -> Callable[[T], str | None]:
    """Return `route_of` as a function that raises nothing: a request must not fail for its span's name."""

    def route_or_none(request: T) -> str | None:
        try:
            return route_of(request)
        except Exception:
            _logger.warning("the route of a request cannot be told", exc_info=True)
            return None

    return route_or_none


def path_filter(paths: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that says whether one of `paths` is meant; "/static/*" is all below /static/.

    Raises:
        TypeError: `paths` is one str, whose letters would be taken for paths.
    """
    if isinstance(paths, str):
        raise TypeError(f"excluded_paths is a list of paths: [{paths!r}], not {paths!r}")
    paths = tuple(paths)
    exact = frozenset(path for path in paths if not path.endswith("*"))
    prefixes = tuple(path[:-1] for path in paths if path.endswith("*"))
    return lambda path: path in exact or path.startswith(prefixes)


@lru_cache(maxsize=8)
def reads_only_w3c(propagator: TextMapPropagator) -> bool:
    """Some others also read headers that are not among their `fields`; for them, all are decoded."""
    return propagator.fields <= W3C_HEADERS


def _before_proxies(
    headers: Mapping[str, str], client: str | int | None, host: str | None, scheme: str
) -> tuple[str | int | None, str | None, str]:
    """Return client, host and scheme as the first proxy saw them."""
    forwarded = headers.get("forwarded", "").split(",")[0]
    if forwarded:
        said = {key.lower(): quoted or bare for key, quoted, bare in _FORWARDED.findall(forwarded)}
        given = said.get("for"), said.get("host"), said.get("proto")
    else:
        names = ("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")
        firsts = (headers.get(name, "").split(",")[0].strip() for name in names)
        given = tuple(firsts)  # type: ignore[assignment]
    if given[0]:
        client = _host_and_port(given[0])[0]
    return client, given[1] or host, given[2] or scheme


@lru_cache(maxsize=256)  # bounded: clients send what they like
def _host_and_port(text: str) -> tuple[str, int | None]:
    """Split "host:port", "[ipv6]:port" or either without a port."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    return host, int(port) if port.isascii() and port.isdecimal() and len(port) < 6 else None
