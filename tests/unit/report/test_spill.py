"""Spans in, traces out, in memory and in a file."""

import random

import pytest

from k8s_tracing.record import EventRecord, SpanRecord
from k8s_tracing.report.spill import Traces

EVENTS = (EventRecord("e", 7, {"a": (1, b"x", None)}),)
SPANS = [
    SpanRecord(f"{trace:032x}", f"{number:016x}", "é", 1000 * trace + number, 5000, events=EVENTS)
    for trace in range(20)
    for number in range(1, 6)
]


@pytest.mark.parametrize("memory_bytes", [1, 1 << 20])
def test_whatever_the_order(memory_bytes: int) -> None:
    mixed = random.Random(1).sample(SPANS, len(SPANS))
    with Traces(memory_bytes=memory_bytes) as traces:
        traces.add(mixed[:30])
        traces.add(mixed[30:])
        found = list(traces.traces())
        assert [span for trace in found for span in trace] == SPANS
        assert list(traces.traces(limit=2)) == found[:2]
