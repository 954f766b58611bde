# SPDX-License-Identifier: Apache-2.0
"""The statistics' names come from clients, and there is an end to them."""

from __future__ import annotations

from hotrod.stats import MOST_NAMES, NOBODY, OTHERS, SecondsBy
from opentelemetry import baggage, context


def test_names_beyond_the_limit_are_others() -> None:
    seconds = SecondsBy("unit_test")
    seconds.add(1.0)
    for number in range(MOST_NAMES + 10):
        token = context.attach(baggage.set_baggage("unit_test", f"n{number}"))
        seconds.add(2.0)
        context.detach(token)
    totals = seconds.totals()
    assert totals[NOBODY] == 1.0
    assert totals["n0"] == 2.0
    assert len(totals) == MOST_NAMES + 1
    assert totals[OTHERS] == 2.0 * 11
