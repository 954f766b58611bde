# SPDX-License-Identifier: Apache-2.0
"""HAProxy 2.4 and newer, as distributions ship it: the lines for its configuration, and reading what they log.

All of it is plain configuration (haproxy.cfg): no filter, no Lua, no build of one's own. Times are stamps of our own in
us, taken with `date` when a rule is evaluated; HAProxy's timers (Tw, Tc, ...) are in ms and fill in what has no rule.
Source: HAProxy 2.6 configuration manual, 7.3.1 (converters), 8.2.3 (log format), 8.4 (timers), 8.5 (termination state).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k8s_tracing.dataplane.ingress import line
from k8s_tracing.dataplane.ingress.exchange import Attempt, Exchange
from k8s_tracing.dataplane.ingress.template import template

#: The fields of a line, and what HAProxy writes into them.
FIELDS = {
    "proxy": "haproxy",
    "service": "@SERVICE@",
    "trace": "%[var(txn.k8st_trace)]",
    "server": "%[var(txn.k8st_server)]",
    "client": "%[var(txn.k8st_client)]",
    "parent": "%[var(txn.k8st_parent)]",
    "flags": "%[var(txn.k8st_flags)]",
    "start_us": "%[var(txn.k8st_start)]",
    "head_us": "%[var(txn.k8st_head)]",
    "log_us": "%[date(0,us)]",
    "TR": "%TR",
    "Tw": "%Tw",
    "Tc": "%Tc",
    "Tr": "%Tr",
    "scheme": "%[var(txn.k8st_scheme)]",
    "method": "%[var(txn.k8st_method),json(utf8s)]",
    "host": "%[var(txn.k8st_host),json(utf8s)]",
    "target": "%[var(txn.k8st_target),json(utf8s)]",
    "version": "%HV",
    "status": "%ST",
    "bytes": "%B",
    "frontend": "%f",
    "backend": "%b",
    "upstream": "%s",
    "from": "%ci:%cp",
    "at": "%fi:%fp",
    "local": "%bi:%bp",
    "peer": "%si:%sp",
    "end": "%ts",
    "retries": "%rc",
}

_US_NS = 1_000
_MS_NS = 1_000_000

# The first letter of the termination state says who ended the session early (manual, 8.5).
_ENDED_BY = {
    "C": "client_abort",
    "c": "client_timeout",
    "S": "upstream_abort",
    "s": "upstream_timeout",
    "P": "denied",
    "R": "resource_exhausted",
    "I": "internal_error",
    "D": "upstream_down",
    "K": "killed",
    "U": "upstream_up",
}
_NO_UPSTREAM = "<NOSRV>"
_CONNECTING = "C"  # the second letter: what it was doing then


def snippet(service: str, target: str) -> str:
    """The lines for a frontend.

    Args:
        service: What the spans call this proxy.
        target: Where the agent listens: `127.0.0.1:5514` is syslog over UDP.
    """
    return template("haproxy.cfg", FIELDS, service, target)


def parse(fields: Mapping[str, Any]) -> Exchange:
    """Read a logged request.

    Raises:
        LineError: It is broken, or the request was so broken that it got no ids.
    """
    trace_id = line.hex_id(fields, "trace", 32)
    server_span_id = line.hex_id(fields, "server", 16)
    client_span_id = line.hex_id(fields, "client", 16)
    seen_us = line.number(fields, "start_us")
    logged_us = line.number(fields, "log_us")
    if not (trace_id and server_span_id and client_span_id and seen_us and logged_us):
        raise line.LineError("no ids: HAProxy refused the request before its rules")
    receive_ns = (line.number(fields, "TR") or 0) * _MS_NS
    start_ns = seen_us * _US_NS - receive_ns
    queued_ms = line.number(fields, "Tw")
    state = line.text(fields, "end", 8)
    status = line.number(fields, "status") or 0
    failure = None if state[:1] in ("", "-", "L") else _ENDED_BY.get(state[0], "other")
    return Exchange(
        service=line.text(fields, "service", 256) or "haproxy",
        proxy="haproxy",
        trace_id=trace_id,
        server_span_id=server_span_id,
        client_span_id=client_span_id,
        parent_span_id=line.hex_id(fields, "parent", 16),
        flags=line.flags(fields, "flags"),
        start_ns=start_ns,
        end_ns=max(logged_us * _US_NS, start_ns),  # a clock may have been set back meanwhile
        method=line.text(fields, "method", 64),
        scheme="https" if line.text(fields, "scheme") == "https" else "http",
        host=line.text(fields, "host", 256),
        target=line.text(fields, "target"),
        version=line.text(fields, "version", 16).removeprefix("HTTP/") or None,
        status=status,
        peer=line.address(fields, "from"),
        local=line.address(fields, "at"),
        attempts=_attempts(fields, seen_us, logged_us, queued_ms, state, status, failure),
        receive_ns=receive_ns,
        queue_ns=None if queued_ms is None else queued_ms * _MS_NS,
        failure=failure,
        attributes={
            "http.response.size": line.number(fields, "bytes") or 0,
            "haproxy.frontend": line.text(fields, "frontend", 256),
            "haproxy.backend": line.text(fields, "backend", 256),
            "haproxy.termination_state": state,
        },
    )


def _attempts(
    fields: Mapping[str, Any],
    seen_us: int,
    logged_us: int,
    queued_ms: int | None,
    state: str,
    status: int,
    failure: str | None,
) -> tuple[Attempt, ...]:
    """The last attempt: HAProxy logs nothing of those before it but their number."""
    upstream = line.text(fields, "upstream", 256)
    if upstream in ("", _NO_UPSTREAM) or queued_ms is None:
        return ()
    connect_ms = line.number(fields, "Tc")
    answer_ms = line.number(fields, "Tr")
    head_us = line.number(fields, "head_us")
    retries = line.number(fields, "retries") or 0
    start_ns = seen_us * _US_NS + queued_ms * _MS_NS
    end_ns = max(logged_us * _US_NS, start_ns)
    transfer_ns = None
    if head_us is not None and answer_ms is not None:
        transfer_ns = max(0, end_ns - head_us * _US_NS)
    attributes: dict[str, Any] = {"haproxy.server": upstream}
    if retries:
        attributes["http.request.resend_count"] = retries
    if failure and state[1:2] == _CONNECTING:
        failure = "connect_timeout" if state[0] == "s" else "connect"
    answered = answer_ms is not None
    attempt = Attempt(
        start_ns=start_ns,
        end_ns=end_ns,
        peer=line.address(fields, "peer"),
        local=line.address(fields, "local"),
        connect_ns=None if connect_ms is None else connect_ms * _MS_NS,
        first_byte_ns=None if answer_ms is None else answer_ms * _MS_NS,
        transfer_ns=transfer_ns,
        status=status if answered and status else None,
        failure=failure,
        attributes=attributes,
    )
    return (attempt,)
