# SPDX-License-Identifier: Apache-2.0
"""Which traces are recorded: OpenTelemetry's samplers, by name, by share, or as an object."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from k8s_tracing.errors import K8sTracingError

_logger = logging.getLogger("k8s_tracing")

#: More than any half of a trace id: every trace is sampled.
ALL = (1 << 64) - 1
DEFAULT = "parentbased_always_on"
_ROOTS = ("always_on", "always_off", "traceidratio")


@dataclass(frozen=True)
class Sampling:
    """How a native tracer decides.

    Attributes:
        parent_based: a span with a parent is sampled as that is.
        below: a trace that begins here is sampled if the right half of its id, a random number of 64 bits, is below
            this; all if it is `ALL`. So every service that is told the same share samples the same traces.
        sampler: an OpenTelemetry Sampler that decides instead.
    """

    parent_based: bool = True
    below: int = ALL
    sampler: Any = None


def from_name(name: str, argument: str) -> Sampling:
    """Return what OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG say; a mistake is logged and ignored.

    Source: OpenTelemetry specification, "General SDK Configuration".
    """
    name = name.strip().lower() or DEFAULT
    parent_based = name.startswith("parentbased_")
    root = name.removeprefix("parentbased_")
    if root not in _ROOTS:
        _logger.warning(
            "OTEL_TRACES_SAMPLER=%s is not known here and was ignored: use %s, or one of these after parentbased_",
            name,
            ", ".join(_ROOTS),
        )
        return Sampling()
    if root == "always_on":
        return Sampling(parent_based)
    if root == "always_off":
        return Sampling(parent_based, below=0)
    return Sampling(parent_based, below=_below(_share(argument)))


def from_argument(sampler: Any) -> Sampling:
    """Return what `init` was given: a share of the traces, or an OpenTelemetry Sampler.

    Raises:
        K8sTracingError: it is neither.
    """
    if hasattr(sampler, "should_sample"):
        return Sampling(sampler=sampler)
    if isinstance(sampler, (int, float)) and not isinstance(sampler, bool) and 0 <= sampler <= 1:
        return Sampling(below=_below(float(sampler)))
    raise K8sTracingError(
        f"sampler={sampler!r} is neither a share of the traces, from 0 to 1, nor an OpenTelemetry Sampler"
    )


def _share(argument: str) -> float:
    try:
        share = float(argument or 1.0)
    except ValueError:
        share = -1.0
    if 0 <= share <= 1:
        return share
    _logger.warning(
        "OTEL_TRACES_SAMPLER_ARG=%s is not a number from 0 to 1: every trace is sampled", argument
    )
    return 1.0


def _below(share: float) -> int:
    """Return the bound of OpenTelemetry's TraceIdRatioBased."""
    return min(round(share * (1 << 64)), ALL)
