# SPDX-License-Identifier: Apache-2.0
"""nginx 1.18 and newer, as distributions ship it: what its configuration includes, and reading what it logs.

All of it is `map`, `log_format` and `proxy_set_header` (nginx-*.conf): no module beyond the standard ones. nginx tells
times in ms, truncated: the end that it logs is up to 1 ms early, so the span gets that millisecond, or it would end
before its own child. Source: its documentation of ngx_http_log_module, ngx_http_upstream_module, ngx_http_core_module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from k8s_tracing.dataplane.ingress import line
from k8s_tracing.dataplane.ingress.exchange import Attempt, Exchange
from k8s_tracing.dataplane.ingress.template import template

#: The fields of a line, and what nginx writes into them.
FIELDS = {
    "proxy": "nginx",
    "service": "@SERVICE@",
    "trace": "$k8st_trace",
    "server": "$k8st_server",
    "client": "$k8st_client",
    "parent": "$k8st_parent",
    "flags": "$k8st_flags",
    "log_s": "$msec",
    "took_s": "$request_time",
    "scheme": "$scheme",
    "method": "$request_method",
    "host": "$http_host",
    "target": "$request_uri",
    "version": "$server_protocol",
    "status": "$status",
    "bytes": "$bytes_sent",
    "from": "$remote_addr:$remote_port",
    "at": "$server_addr:$server_port",
    "completed": "$request_completion",
    "peer": "$upstream_addr",
    "connect_s": "$upstream_connect_time",
    "head_s": "$upstream_header_time",
    "answer_s": "$upstream_response_time",
    "upstream_status": "$upstream_status",
}

_MS_NS = 1_000_000
_CLIENT_CLOSED = 499
_TIMES = re.compile(r"(\d{1,10})\.(\d{3})\Z")
_MAX_ATTEMPTS = 16


def snippets(service: str, target: str) -> tuple[str, str]:
    """What to include in the `http` block, and in each location that proxies.

    Args:
        service: What the spans call this proxy.
        target: Where the agent listens: `127.0.0.1:5514` is syslog over UDP, `unix:/path` a socket.
    """
    return (
        template("nginx-http.conf", FIELDS, service, target),
        template("nginx-location.conf", FIELDS, service, target),
    )


def parse(fields: Mapping[str, Any], received_ns: int) -> Exchange:
    """Read a logged request.

    Args:
        fields: The log line.
        received_ns: When it arrived here, in ns since the Unix epoch: the request had ended by then.

    Raises:
        LineError: It is broken.
    """
    trace_id = line.hex_id(fields, "trace", 32)
    server_span_id = line.hex_id(fields, "server", 16)
    client_span_id = line.hex_id(fields, "client", 16)
    logged_ms = _milliseconds(line.text(fields, "log_s"))
    took_ms = _milliseconds(line.text(fields, "took_s"))
    if not (trace_id and server_span_id and client_span_id) or logged_ms is None or took_ms is None:
        raise line.LineError("no ids")
    logged_ns = logged_ms * _MS_NS
    end_ns = logged_ns + _MS_NS
    if logged_ns < received_ns < end_ns:
        end_ns = received_ns
    start_ns = logged_ns - took_ms * _MS_NS
    status = line.number(fields, "status") or 0
    failure = "client_abort" if status == _CLIENT_CLOSED else None
    return Exchange(
        service=line.text(fields, "service", 256) or "nginx",
        proxy="nginx",
        trace_id=trace_id,
        server_span_id=server_span_id,
        client_span_id=client_span_id,
        parent_span_id=line.hex_id(fields, "parent", 16),
        flags=line.flags(fields, "flags"),
        start_ns=start_ns,
        end_ns=end_ns,
        method=line.text(fields, "method", 64),
        scheme="https" if line.text(fields, "scheme") == "https" else "http",
        host=line.text(fields, "host", 256),
        target=line.text(fields, "target"),
        version=line.text(fields, "version", 16).removeprefix("HTTP/") or None,
        status=status,
        peer=line.address(fields, "from"),
        local=line.address(fields, "at"),
        attempts=_attempts(fields, start_ns, logged_ns, end_ns),
        failure=failure,
        attributes={"http.response.size": line.number(fields, "bytes") or 0},
    )


def _attempts(
    fields: Mapping[str, Any], start_ns: int, logged_ns: int, end_ns: int
) -> tuple[Attempt, ...]:
    """One for each upstream that was tried: nginx lists them with ", ", and " : " after an internal redirect.

    It says how long each took but not when it began: the last one ended with the request, the others end where the next
    begins.
    """
    columns = [
        _list(line.text(fields, key, absent=("",)))
        for key in ("peer", "connect_s", "head_s", "answer_s", "upstream_status")
    ]
    peers = columns[0]
    if not peers or len({len(column) for column in columns}) != 1:
        if peers:
            raise line.LineError("lists of different lengths")
        return ()
    attempts: list[Attempt] = []
    # An attempt is timed by another clock, truncated as well: it may have begun a millisecond before this difference.
    ended_ns, next_began_ns = end_ns, logged_ns - _MS_NS
    rows = list(zip(*columns, strict=True))[:_MAX_ATTEMPTS]
    for peer, connect, head, answer, status in reversed(rows):
        took_ms = _milliseconds(answer)
        connect_ms, head_ms = _milliseconds(connect), _milliseconds(head)
        began_ns = max(start_ns, next_began_ns - (took_ms or 0) * _MS_NS)
        address = line.parse_address(peer)
        if address is None and not peer.startswith("unix:"):
            continue  # the name of a group in which nobody was left to ask
        code = int(status) if status.isascii() and status.isdecimal() and len(status) == 3 else None
        answered = head_ms is not None
        failure = None
        if not answered:
            failure = "connect" if connect_ms is None else "upstream_abort"
            if code == 504:
                failure = "connect_timeout" if connect_ms is None else "upstream_timeout"
        attempts.append(
            Attempt(
                start_ns=began_ns,
                end_ns=max(began_ns, ended_ns),
                peer=address,
                connect_ns=_ns(connect_ms),
                first_byte_ns=_ns(head_ms, since=connect_ms),
                transfer_ns=_ns(took_ms, since=head_ms) if answered else None,
                status=code if answered else None,
                failure=failure,
            )
        )
        ended_ns = next_began_ns = began_ns
    return tuple(reversed(attempts))


def _list(text: str) -> list[str]:
    return re.split(r", | : ", text) if text else []


def _milliseconds(text: str) -> int | None:
    match = _TIMES.match(text)
    return int(match[1]) * 1000 + int(match[2]) if match else None


def _ns(end_ms: int | None, since: int | None = 0) -> int | None:
    return None if end_ms is None or since is None else max(0, end_ms - since) * _MS_NS
