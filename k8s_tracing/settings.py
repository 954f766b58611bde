# SPDX-License-Identifier: Apache-2.0
"""What the environment says. OTEL_* variables mean here what OpenTelemetry says they mean.

Source: OpenTelemetry specification 1.5x, "Environment Variable Specification".
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from k8s_tracing.sampling import Sampling, from_name

_logger = logging.getLogger("k8s_tracing")

#: Longest attribute value, in characters, when no variable says: an event must fit an LTTng sub-buffer.
DEFAULT_VALUE_LENGTH = 4096
DEFAULT_COUNT = 128

_CPU_SPLIT = "K8S_TRACING_CPU_SPLIT"
_SHORTEST_SPLIT_NS = 1_000_000
_UNITS_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}


@dataclass(frozen=True)
class Limits:
    """How much a span may hold; lengths in characters (bytes for bytes values)."""

    value_length: int = DEFAULT_VALUE_LENGTH
    attributes: int = DEFAULT_COUNT
    events: int = DEFAULT_COUNT
    links: int = DEFAULT_COUNT
    event_attributes: int = DEFAULT_COUNT
    link_attributes: int = DEFAULT_COUNT


@dataclass(frozen=True)
class Settings:
    """Settings of one process."""

    backend: str = "auto"
    service_name: str | None = None
    resource: Mapping[str, str] | None = None
    limits: Limits = Limits()
    sampling: Sampling | None = None
    disabled: bool = False
    #: The shortest span, in ns, that is told where its time went; None: none is measured.
    cpu_split_ns: int | None = None


def from_environment(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read all settings; a value that cannot be read is logged and ignored, as OpenTelemetry asks."""
    resource = _resource(environ.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    return Settings(
        backend=environ.get("K8S_TRACING_BACKEND", "").strip().lower() or "auto",
        service_name=environ.get("OTEL_SERVICE_NAME") or resource.get("service.name"),
        resource=resource,
        limits=_limits(environ),
        sampling=_sampling(environ),
        cpu_split_ns=_cpu_split(environ.get(_CPU_SPLIT, "")),
        disabled=environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true",
    )


def _resource(text: str) -> dict[str, str]:
    attributes = {}
    for item in filter(None, map(str.strip, text.split(","))):
        key, separator, value = item.partition("=")
        if not separator or not key.strip():
            _logger.warning("OTEL_RESOURCE_ATTRIBUTES: %r is not key=value and was left out", item)
            continue
        attributes[key.strip()] = unquote(value.strip())
    return attributes


def _sampling(environ: Mapping[str, str]) -> Sampling | None:
    name = environ.get("OTEL_TRACES_SAMPLER", "")
    return from_name(name, environ.get("OTEL_TRACES_SAMPLER_ARG", "")) if name.strip() else None


def shortest_ns(text: str) -> int:
    """Read how long a span must be to be told where its time went: `1` is 1 ms, else a duration such as 500us.

    Raises:
        ValueError: It is neither.
    """
    text = text.strip().lower()
    if text in ("1", "true", "on"):
        return _SHORTEST_SPLIT_NS
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)(ns|us|ms|s)", text)
    if match is None:
        raise ValueError(f"{text!r} is neither 1 nor a duration such as 1ms")
    return int(float(match[1]) * _UNITS_NS[match[2]])


def _cpu_split(text: str) -> int | None:
    if text.strip().lower() in ("", "0", "false", "off"):
        return None
    try:
        return shortest_ns(text)
    except ValueError as error:
        _logger.warning("%s=%s; it was ignored", _CPU_SPLIT, error)
        return None


def _limits(environ: Mapping[str, str]) -> Limits:
    def read(default: int, top: int, *names: str) -> int:
        for name in names:
            text = environ.get(name, "").strip()
            if not text:
                continue
            if text.isdecimal():
                return min(int(text), top)
            _logger.warning("%s=%r is not a number and was ignored", name, text)
        return default

    counts = 0xFFFF  # what the events carry them in
    any_count = "OTEL_ATTRIBUTE_COUNT_LIMIT"
    return Limits(
        value_length=read(
            DEFAULT_VALUE_LENGTH,
            0x7FFFFFFF,
            "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
            "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        ),
        attributes=read(DEFAULT_COUNT, counts, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", any_count),
        events=read(DEFAULT_COUNT, counts, "OTEL_SPAN_EVENT_COUNT_LIMIT"),
        links=read(DEFAULT_COUNT, counts, "OTEL_SPAN_LINK_COUNT_LIMIT"),
        event_attributes=read(DEFAULT_COUNT, counts, "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", any_count),
        link_attributes=read(DEFAULT_COUNT, counts, "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", any_count),
    )
