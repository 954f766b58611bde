# SPDX-License-Identifier: Apache-2.0
"""One request that went through a proxy, and the spans that tell of it.

A SERVER span is the request as the client saw it. Each attempt at an upstream is a CLIENT span below it; the one
whose id was forwarded in `traceparent` is the parent of the upstream's own SERVER span.

Where the time went is in attributes, in ns: `k8s_tracing.ingress.receive_ns` (the request's head came in) and
`.queue_ns` (it waited for a free upstream) on the SERVER span; `.connect_ns`, `.first_byte_ns` (from the connection to
the head of the response) and `.transfer_ns` (from there to its end) on the CLIENT span.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from k8s_tracing.http import Address, Attributes, request_attributes, span_name, without_secrets
from k8s_tracing.record import SpanRecord

SCOPE = "k8s_tracing.ingress"

_PHASE = "k8s_tracing.ingress."
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the proxy did at one upstream.

    Times are in ns since the Unix epoch, durations in ns; None is what the proxy could not tell.

    Attributes:
        peer: Address and port of the upstream.
        local: The proxy's own end of that connection.
        status: HTTP status of the upstream's response; None when there was none.
        failure: What went wrong, as `error.type`; None if a response came.
    """

    start_ns: int
    end_ns: int
    peer: Address | None = None
    local: Address | None = None
    connect_ns: int | None = None
    first_byte_ns: int | None = None
    transfer_ns: int | None = None
    status: int | None = None
    failure: str | None = None
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its response, as a proxy logged them.

    Attributes:
        service: What the proxy is called: the spans' `service.name`.
        proxy: Its kind, `haproxy` or `nginx`.
        trace_id: 32 hexadecimal digits, as all ids here are hexadecimal.
        server_span_id: Of the span of the request itself.
        client_span_id: What `traceparent` told the upstream.
        parent_span_id: From the client's `traceparent`; empty if the trace begins here.
        flags: W3C trace flags.
        target: Path and query as the client sent them.
        attempts: In the order in which they were made; the last one answered, if any did.
        failure: Why the proxy answered itself or not at all, as `error.type`.
    """

    service: str
    proxy: str
    trace_id: str
    server_span_id: str
    client_span_id: str
    parent_span_id: str
    flags: int
    start_ns: int
    end_ns: int
    method: str
    scheme: str
    host: str
    target: str
    version: str | None
    status: int
    peer: Address | None
    local: Address | None
    attempts: tuple[Attempt, ...] = ()
    receive_ns: int | None = None
    queue_ns: int | None = None
    failure: str | None = None
    attributes: Attributes = field(default_factory=dict)

    @property
    def sampled(self) -> bool:
        """Did whoever began the trace want it recorded?"""
        return bool(self.flags & _SAMPLED)


def spans(exchange: Exchange) -> Iterator[SpanRecord]:
    """Make the SERVER span of an exchange and the CLIENT span of each of its attempts."""
    resource = {"service.name": exchange.service}
    path, _, query = exchange.target.partition("?")
    common: dict[str, Any] = {
        "trace_id": exchange.trace_id,
        "flags": exchange.flags,
        "resource": resource,
        "scope_name": SCOPE,
    }
    headers = {"host": exchange.host} if exchange.host else {}
    attributes = request_attributes(
        exchange.method,
        exchange.scheme,
        path,
        query,
        headers,
        exchange.version,
        exchange.peer,
        exchange.local,
    )
    _put_phases(attributes, receive_ns=exchange.receive_ns, queue_ns=exchange.queue_ns)
    attributes |= exchange.attributes
    if exchange.status:
        attributes["http.response.status_code"] = exchange.status
    failure = exchange.failure or (str(exchange.status) if exchange.status >= 500 else None)
    if failure:
        attributes["error.type"] = failure
    yield SpanRecord(
        **common,
        span_id=exchange.server_span_id,
        parent_span_id=exchange.parent_span_id,
        name=span_name(exchange.method),
        kind="SERVER",
        start_time_ns=exchange.start_ns,
        end_time_ns=exchange.end_ns,
        attributes=attributes,
        status="ERROR" if failure else "UNSET",
    )
    url = f"{exchange.scheme}://{exchange.host}{path}" if exchange.host else path
    if query:
        url = f"{url}?{without_secrets(query)}"
    last = len(exchange.attempts) - 1
    for number, attempt in enumerate(exchange.attempts):
        yield SpanRecord(
            **common,
            span_id=_attempt_id(exchange.client_span_id, last - number),
            parent_span_id=exchange.server_span_id,
            name=span_name(exchange.method),
            kind="CLIENT",
            start_time_ns=attempt.start_ns,
            end_time_ns=attempt.end_ns,
            attributes=_attempt_attributes(attempt, number, attributes, url),
            status="ERROR" if _attempt_failure(attempt) else "UNSET",
        )


def _attempt_failure(attempt: Attempt) -> str | None:
    """The conventions call a response of 400 and above an error of the client, unlike of the server."""
    if attempt.failure:
        return attempt.failure
    return str(attempt.status) if attempt.status is not None and attempt.status >= 400 else None


def _attempt_attributes(attempt: Attempt, number: int, server: Attributes, url: str) -> Attributes:
    attributes: Attributes = {
        "http.request.method": server["http.request.method"],
        "url.full": url,
    }
    if "http.request.method_original" in server:
        attributes["http.request.method_original"] = server["http.request.method_original"]
    if attempt.peer:
        attributes["server.address"], attributes["server.port"] = attempt.peer
        attributes["network.peer.address"], attributes["network.peer.port"] = attempt.peer
    if attempt.local:
        attributes["network.local.address"], attributes["network.local.port"] = attempt.local
    if number:
        attributes["http.request.resend_count"] = number
    if attempt.status is not None:
        attributes["http.response.status_code"] = attempt.status
    _put_phases(
        attributes,
        connect_ns=attempt.connect_ns,
        first_byte_ns=attempt.first_byte_ns,
        transfer_ns=attempt.transfer_ns,
    )
    attributes |= attempt.attributes
    failure = _attempt_failure(attempt)
    if failure:
        attributes["error.type"] = failure
    return attributes


def _attempt_id(client_span_id: str, before_last: int) -> str:
    """The id of an attempt: the one that was forwarded for the last, derived ones for those before it."""
    if not before_last:
        return client_span_id
    seed = f"{client_span_id}-{before_last}".encode()
    return hashlib.blake2b(seed, digest_size=8).hexdigest()


def _put_phases(attributes: Attributes, **phases: int | None) -> None:
    for name, duration_ns in phases.items():
        if duration_ns is not None:
            attributes[_PHASE + name] = duration_ns
