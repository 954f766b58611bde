# SPDX-License-Identifier: Apache-2.0
"""A span for each HTTP request that `requests` sends.

OpenTelemetry's instrumentation of requests works, too. This one costs a fraction of it, is switched on for one session
and not for the process, and records no metrics.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from opentelemetry.trace import SpanKind, StatusCode
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from k8s_tracing import api
from k8s_tracing.http import METHODS, Attributes, host_and_port, span_name, without_secrets
from k8s_tracing.instrument._http import set_failure
from k8s_tracing.instrument.connections import ends_of

_DEFAULT_PORTS = {"http": 80, "https": 443}


#: As http.client and urllib3 number them.
_VERSIONS = {10: "1.0", 11: "1.1", 20: "2"}


class _Connection(HTTPConnection):
    ends: Attributes | None = None

    def connect(self) -> None:
        super().connect()
        self.ends = ends_of(self.sock)


class _SecureConnection(HTTPSConnection):
    ends: Attributes | None = None

    def connect(self) -> None:
        super().connect()
        self.ends = ends_of(self.sock)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class TracingAdapter(HTTPAdapter):
    """Sends requests of a session, each in a CLIENT span, with the trace context in its headers.

    ``session.mount("http://", TracingAdapter())``. Its arguments are those of HTTPAdapter. A redirect that is followed
    is a request of its own; what urllib3 tries again (`max_retries`) is in the span of the first try. The span ends
    when the response's headers are there, or its body unless it is streamed. It says which connection was used
    (`network.local.*`, `network.peer.*`), unless that was one to a proxy.
    """

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pool of connections; they tell their addresses."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        """Send one request."""
        method = request.method or "GET"
        with api.span(
            span_name(method),
            _attributes(method, request.url or "") if api.backend_name() != "noop" else None,
            kind=SpanKind.CLIENT,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            api.inject(request.headers)
            try:
                response = super().send(request, *args, **kwargs)
            except Exception as error:
                set_failure(span, error)
                raise
            if span.is_recording():
                # Its socket may be closed by now. It is not the current span's to tell: finding that costs more.
                ends = getattr(getattr(response.raw, "connection", None), "ends", None)
                if ends:
                    span.set_attributes(ends)
                status = response.status_code
                span.set_attribute("http.response.status_code", status)
                version = _VERSIONS.get(getattr(response.raw, "version", 0))
                if version:
                    span.set_attribute("network.protocol.version", version)
                if status >= 400:
                    span.set_attribute("error.type", str(status))
                    span.set_status(StatusCode.ERROR)
            return response


def _attributes(method: str, url: str) -> Attributes:
    scheme, _, rest = url.partition("://")
    end = next((at for at, letter in enumerate(rest) if letter in "/?#"), len(rest))
    shown, address, port = _server(scheme, rest[:end])
    path, mark, query = rest[end:].partition("?")
    attributes: Attributes = {
        "http.request.method": method,
        "url.full": f"{scheme}://{shown}{path}{mark}{without_secrets(query)}",
        "server.address": address,
        "server.port": port,
    }
    if method not in METHODS:
        attributes["http.request.method"] = "_OTHER"
        attributes["http.request.method_original"] = method
    return attributes


@lru_cache(maxsize=256)
def _server(scheme: str, authority: str) -> tuple[str, str, int]:
    """Return the authority without credentials, the host, and the port."""
    _, at, place = authority.rpartition("@")
    host, port = host_and_port(place)
    shown = f"REDACTED:REDACTED@{place}" if at else place
    return shown, host, port or _DEFAULT_PORTS.get(scheme, 80)
