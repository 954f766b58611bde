# SPDX-License-Identifier: Apache-2.0
"""Numbers that a service keeps of its requests, for /metrics (Prometheus) and /debug/vars (JSON).

The baggage says for whom a request is, so the route service knows whom it calculates for, although
nobody told it: its callers do not even pass the customer on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import baggage
from prometheus_client import Counter, Histogram

REQUESTS = Counter("hotrod_requests", "Requests answered", ["endpoint", "status_code"])
DURATION = Histogram("hotrod_request_duration_seconds", "Time to the answer", ["endpoint"])

#: Names are what clients say: each is a time series, and there must be an end to them.
MOST_NAMES = 200
OTHERS, NOBODY = "(others)", "(nobody)"


class SecondsBy:
    """Seconds of route calculation for each customer, or each session, in the baggage."""

    def __init__(self, member: str) -> None:
        self._member = member
        text = f"Time in route calculation by {member}"
        self._counter = Counter(f"hotrod_route_calc_by_{member}_seconds", text, [member])
        self._names: set[str] = set()

    def add(self, seconds: float) -> None:
        name = str(baggage.get_baggage(self._member) or NOBODY)
        if name not in self._names:
            if len(self._names) < MOST_NAMES:
                self._names.add(name)
            else:
                name = OTHERS
        self._counter.labels(name).inc(seconds)

    def totals(self) -> dict[str, float]:
        [metric] = self._counter.collect()
        return {
            sample.labels[self._member]: round(sample.value, 6)
            for sample in metric.samples
            if sample.name.endswith("_total")
        }


ROUTE_CALC = {member: SecondsBy(member) for member in ("customer", "session")}


@contextmanager
def route_calculation() -> Iterator[None]:
    """Attribute the time of the block to the customer and to the session of this request."""
    start = time.perf_counter()
    try:
        yield
    finally:
        for seconds in ROUTE_CALC.values():
            seconds.add(time.perf_counter() - start)


def debug_vars() -> dict[str, Any]:
    """The statistics, by the names that they have in Jaeger's HotROD.

    Not the command line, which Go's expvar shows there: a database's password may be in it.
    """
    return {f"route.calc.by.{name}.sec": each.totals() for name, each in ROUTE_CALC.items()}
