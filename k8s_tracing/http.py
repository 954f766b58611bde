# SPDX-License-Identifier: Apache-2.0
"""The attributes of an HTTP server span by OpenTelemetry's semantic conventions, whoever saw the request.

Source: OpenTelemetry semantic conventions 1.4x, "Semantic conventions for HTTP spans", stable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

Attributes: TypeAlias = dict[str, Any]
#: A host or path, and a port; None where the socket or the server tells none.
Address: TypeAlias = Sequence[Any]

_KNOWN_METHODS = "CONNECT,DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT,QUERY,TRACE"
#: Others become _OTHER: anybody can send any number of methods.
METHODS = frozenset(
    os.environ.get("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", _KNOWN_METHODS).split(",")
)
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
        attributes["url.query"] = without_secrets(query)
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
        address, port = host_and_port(host)
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


def without_secrets(query: str) -> str:
    """A query with what the conventions name as credentials blotted out."""
    # The search for three words costs a tenth of what the expression does.
    if "sig=" in query or "Signature=" in query or "AWSAccessKeyId=" in query:
        return _SECRET.sub(r"\1\2=REDACTED", query)
    return query


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
        client = host_and_port(given[0])[0]
    return client, given[1] or host, given[2] or scheme


@lru_cache(maxsize=256)  # bounded: clients send what they like
def host_and_port(text: str) -> tuple[str, int | None]:
    """Split "host:port", "[ipv6]:port" or either without a port."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    return host, int(port) if port.isascii() and port.isdecimal() and len(port) < 6 else None
