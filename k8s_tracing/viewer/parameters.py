# SPDX-License-Identifier: Apache-2.0
"""The parameters of Jaeger's query APIs: durations and times as Go writes them, tags, ids."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TypeVar

from k8s_tracing.viewer.ingest import MAX_TIME_NS
from k8s_tracing.viewer.search import Query

T = TypeVar("T")

DEFAULT_LIMIT = 100
MAX_LIMIT = 10_000
#: Jaeger's, for a search that names no start.
DEFAULT_LOOKBACK_NS = 2 * 24 * 3600 * 10**9

_UNITS_NS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)([a-zµμ]+)")
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:[.,](\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII
)
_LOGFMT = re.compile(r'\s*([^\s="]+)(?:=("(?:[^"\\]|\\.)*"|[^\s"]*))?(?=\s|\Z)')


class ParameterError(ValueError):
    """A parameter is not what it has to be; the text says which, and why.

    Args:
        text: What is wrong.
        status: What HTTP answers to it.
    """

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


def duration_ns(text: str) -> int:
    """Return the ns of a duration like `1.5ms` or `1h30m`.

    Raises:
        ValueError: It is none.
    """
    if text == "0":
        return 0
    parts, position, total = text.removeprefix("+"), 0, Decimal(0)
    for part in _DURATION_PART.finditer(parts):
        if part.start() != position or part[2] not in _UNITS_NS:
            break
        total += Decimal(part[1]) * _UNITS_NS[part[2]]
        position = part.end()
    if not parts or position != len(parts) or total > MAX_TIME_NS:
        raise ValueError(f"{text!r:.80} is not a duration like 1.5ms or 1h30m")
    return int(total)


def time_ns(text: str) -> int:
    """Return the ns since the Unix epoch of a time as RFC 3339 writes it.

    Raises:
        ValueError: It is none, or before the epoch.
    """
    match = _TIME.match(text)
    if match is None:
        raise ValueError(f"{text!r:.80} is not a time like 2026-01-31T23:59:59.5Z")
    date, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in "Zz" else zone
    since_epoch = datetime.fromisoformat(f"{date}T{clock}{zone}") - datetime(
        1970, 1, 1, tzinfo=timezone.utc
    )
    whole_s = since_epoch // timedelta(seconds=1)
    return max(0, min(whole_s * 10**9 + int((fraction or "0").ljust(9, "0")), MAX_TIME_NS))


def trace_id(text: str) -> bytes:
    """Return the 16 bytes of a trace id, whose zeros in front may be missing.

    Raises:
        ValueError: It is none.
    """
    if not 0 < len(text) <= 32 or not re.fullmatch(r"[0-9a-fA-F]+", text):
        raise ValueError(f"{text!r:.80} is not a trace id of up to 32 hexadecimal digits")
    return bytes.fromhex(text.zfill(32))


def tags(text: str) -> dict[str, str]:
    """Return the tags of a JSON object, or of logfmt: `key=value key="two words"`.

    Raises:
        ValueError: It is neither, or a value is not a text.
    """
    if not text.lstrip().startswith("{"):
        return _logfmt(text)
    found = json.loads(text)
    if not all(isinstance(value, str) for value in found.values()):
        raise ValueError('the values of tags are texts, as in {"http.status_code": "500"}')
    return dict(found)


def _logfmt(text: str) -> dict[str, str]:
    found, position = {}, 0
    while text[position:].strip():
        match = _LOGFMT.match(text, position)
        if match is None or match[2] is None:
            raise ValueError(f"{text[position:]!r:.80} is not key=value, nor a JSON object")
        value = match[2]
        found[match[1]] = json.loads(value) if value.startswith('"') else value
        position = match.end()
    return found


class Parameters:
    """The parameters of one request.

    Args:
        items: Names and values in their order; a name may come more than once.
    """

    def __init__(self, items: Sequence[tuple[str, str]]) -> None:
        self._items = items

    def all(self, name: str) -> list[str]:
        """Return every value of a parameter."""
        return [value for key, value in self._items if key == name]

    def get(self, *names: str) -> str:
        """Return the first value of the first of these names that has one, or nothing."""
        for name in names:
            for value in self.all(name):
                if value:
                    return value
        return ""

    def read(self, read: Callable[[str], T], default: T, *names: str) -> T:
        """Return what `read` makes of a parameter.

        Raises:
            ParameterError: It cannot be read.
        """
        text = self.get(*names)
        if not text:
            return default
        try:
            return read(text)
        except (ValueError, RecursionError) as error:
            raise ParameterError(f"unable to parse param '{names[0]}': {error}") from error


def whole_number(text: str) -> int:
    """Return an integer of 64 bits.

    Raises:
        ValueError: It is none.
    """
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", text):
        raise ValueError(f"{text!r:.80} is not a whole number")
    return max(-MAX_TIME_NS, min(int(text), MAX_TIME_NS))


def microseconds_ns(text: str) -> int:
    """Return the ns of a whole number of microseconds."""
    return max(0, min(whole_number(text) * 1000, MAX_TIME_NS))


def legacy_query(given: Parameters, now_ns: int, *, any_service: bool = False) -> Query:
    """Return what `/api/traces` was asked for; `any_service` when none need be named.

    Raises:
        ParameterError: A parameter is wrong or missing.
    """
    service = given.get("service")
    if not service and not any_service:
        raise ParameterError("parameter 'service' is required")
    found_tags: dict[str, str] = {}
    for each in given.all("tag"):
        key, separator, value = each.partition(":")
        if not separator:
            raise ParameterError(
                f"malformed 'tag' parameter, expecting key:value, received: {each:.200}"
            )
        found_tags[key] = value
    for each in given.all("tags"):
        try:
            found_tags |= tags(each)
        except (ValueError, RecursionError) as error:
            raise ParameterError(f"malformed 'tags' parameter: {error}") from error
    start_ns = given.read(microseconds_ns, now_ns - DEFAULT_LOOKBACK_NS, "start")
    return _checked(
        Query(
            service=service,
            operation=given.get("operation"),
            tags=found_tags,
            min_duration_ns=given.read(duration_ns, 0, "minDuration"),
            max_duration_ns=given.read(duration_ns, 0, "maxDuration") or MAX_TIME_NS,
            start_ns=start_ns,
            end_ns=given.read(microseconds_ns, now_ns, "end"),
            limit=given.read(whole_number, DEFAULT_LIMIT, "limit"),
        )
    )


def v3_query(given: Parameters) -> Query:
    """Return what `/api/v3/traces` was asked for: in snake case as up to Jaeger 2.13, or in camel case.

    Raises:
        ParameterError: A parameter is wrong or missing.
    """

    def names(snake_case: str) -> tuple[str, str]:
        words = snake_case.split("_")
        return f"query.{snake_case}", "query." + words[0] + "".join(map(str.title, words[1:]))

    start_ns = given.read(time_ns, None, *names("start_time_min"))
    end_ns = given.read(time_ns, None, *names("start_time_max"))
    if start_ns is None or end_ns is None:
        raise ParameterError("query.start_time_min and query.start_time_max are required")
    return _checked(
        Query(
            service=given.get(*names("service_name")),
            operation=given.get(*names("operation_name")),
            tags=given.read(tags, {}, "query.attributes"),
            min_duration_ns=given.read(duration_ns, 0, *names("duration_min")),
            max_duration_ns=given.read(duration_ns, 0, *names("duration_max")) or MAX_TIME_NS,
            start_ns=start_ns,
            end_ns=end_ns,
            limit=given.read(
                whole_number,
                DEFAULT_LIMIT,
                "query.num_traces",
                "query.searchDepth",
                "query.search_depth",
            ),
        )
    )


def _checked(query: Query) -> Query:
    if query.max_duration_ns < query.min_duration_ns:
        raise ParameterError("'maxDuration' should be greater than 'minDuration'")
    if not 0 < query.limit <= MAX_LIMIT:
        raise ParameterError(f"the limit has to be a number from 1 to {MAX_LIMIT}")
    return query
