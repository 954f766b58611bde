# SPDX-License-Identifier: Apache-2.0
"""Reading the fields of a log line that came from the network: everything is checked, nothing is trusted.

What reads a field raises LineError where it is missing or is none of its kind.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

MAX_LINE_BYTES = 64 * 1024
MAX_TEXT = 4096

_HEX = {16: re.compile(r"[0-9a-f]{16}\Z"), 32: re.compile(r"[0-9a-f]{32}\Z")}
_ABSENT = ("", "-")

# A proxy's clock may be off, and a request may have taken a day. Beyond that a time is no time.
_MAX_AHEAD_NS = 3_600 * 10**9
_MAX_AGE_NS = 7 * 86_400 * 10**9


class LineError(ValueError):
    """A line is not what the configuration writes; the text is the reason, one of a few, fit to be counted by."""


def take_frames(buffer: bytearray) -> list[bytes]:
    """Take all complete messages out of what a stream has brought so far.

    Source: RFC 6587, 3.4.1 (octet counting: "123 <134>...") and 3.4.2 (a newline after each).

    Raises:
        LineError: A message is longer than any line may be; nothing after it can be found.
    """
    frames = []
    at = 0
    while at < len(buffer):
        space = buffer.find(b" ", at, at + 7)
        if space > at and buffer[at:space].isdigit():
            size = int(buffer[at:space])
            if size > MAX_LINE_BYTES:
                raise LineError("too long")
            if len(buffer) < space + 1 + size:
                break
            end = after = space + 1 + size
            start = space + 1
        else:
            start, end = at, buffer.find(b"\n", at)
            if end < 0:
                if len(buffer) - at > MAX_LINE_BYTES:
                    raise LineError("too long")
                break
            after = end + 1
        if end > start:
            frames.append(bytes(buffer[start:end]))
        at = after
    del buffer[:at]
    return frames


def parse(line: bytes) -> Mapping[str, Any]:
    """Find the JSON object in a log line, whatever syslog put before it.

    Raises:
        LineError: There is none.
    """
    if len(line) > MAX_LINE_BYTES:
        raise LineError("too long")
    start = line.find(b"{")
    if start < 0:
        raise LineError("no JSON")
    try:
        fields = json.loads(line[start:].decode(errors="replace"))
    except (ValueError, RecursionError):
        raise LineError("broken JSON") from None
    if not isinstance(fields, dict):
        raise LineError("no JSON")
    return fields


def text(
    fields: Mapping[str, Any],
    key: str,
    limit: int = MAX_TEXT,
    absent: tuple[str, ...] = _ABSENT,
) -> str:
    """A string, cut to a length; empty for what the proxy marks as absent."""
    value = fields.get(key)
    if not isinstance(value, str):
        raise LineError("a field is missing")
    return "" if value in absent else value[:limit]


def hex_id(fields: Mapping[str, Any], key: str, digits: int) -> str:
    """An id of 16 or 32 lower-case hexadecimal digits that is not zero; empty if absent."""
    value = text(fields, key)
    if value and (not _HEX[digits].match(value) or not value.strip("0")):
        raise LineError("a wrong id")
    return value


def number(fields: Mapping[str, Any], key: str) -> int | None:
    """An integer, as a number or in a string; None for what the proxy marks as absent: "-" or -1."""
    value = fields.get(key)
    if isinstance(value, str):
        if value in _ABSENT:
            return None
        # HAProxy has a "+" before what was not yet complete when it logged, and before retries that changed the server.
        digits = value[1:] if value[0] == "+" else value
        if not (digits.isascii() and digits.removeprefix("-").isdecimal() and len(digits) < 20):
            raise LineError("a wrong number")
        value = int(digits)
    if not isinstance(value, int) or isinstance(value, bool):
        raise LineError("a field is missing")
    return value if 0 <= value < 2**63 else None


def flags(fields: Mapping[str, Any], key: str) -> int:
    """W3C trace flags: two hexadecimal digits."""
    value = text(fields, key)
    if not re.fullmatch(r"[0-9a-f]{2}", value):
        raise LineError("wrong flags")
    return int(value, 16)


def address(fields: Mapping[str, Any], key: str) -> tuple[str, int] | None:
    """An IP address and a port, "10.0.0.1:80" or "[::1]:80"; None for anything else, such as a unix socket."""
    return parse_address(text(fields, key))


def parse_address(value: str) -> tuple[str, int] | None:
    """An IP address and a port, or None."""
    host, _, port = value.rpartition(":")
    parsed = _host(host)
    if parsed is None:
        return None
    if not (port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
        return None
    return parsed, int(port)


@lru_cache(maxsize=4096)  # of hosts there are few; ports are another one with each connection
def _host(text: str) -> str | None:
    try:
        parsed = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def check_times(start_ns: int, end_ns: int, now_ns: int) -> None:
    """Refuse times that cannot be.

    Raises:
        LineError: The end is before the start, or either is far from now.
    """
    if end_ns < start_ns or end_ns > now_ns + _MAX_AHEAD_NS or start_ns < now_ns - _MAX_AGE_NS:
        raise LineError("a wrong time")
