"""The relay, when the events of spans come in any order that rotation and CPUs can give them."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from k8s_tracing.agent.relay import Relay
from tests.support.ctf import write_trace
from tests.support.spans import MS, announced, by_name, end, event, read_all, start

CPUS = 3


@st.composite
def recordings(draw: st.DrawFn) -> tuple[int, list[list[list]]]:
    """How many spans, and what each CPU's buffer got in each of several chunks.

    What happened within 5 ms of a rotation may be in either chunk.
    """
    spans = draw(st.integers(1, 12))
    chunks = draw(st.integers(1, 4))
    length = 20 * MS
    times = st.integers(0, chunks * length - 1)
    recording: list[list[list]] = [[[] for _ in range(CPUS)] for _ in range(chunks)]
    told = [(each.time_ns, each) for each in announced()]
    for number in range(1, spans + 1):
        first, middle, last = sorted(draw(st.tuples(times, times, times)))
        told += [
            (moment.time_ns, moment)
            for moment in (
                start(number, first),
                event("span_event", middle, span_id=number, name="e"),
                end(number, last),
            )
        ]
    origin = announced()[0].time_ns
    for time_ns, each in sorted(told, key=lambda pair: pair[0]):
        number = (time_ns - origin) // length
        since = (time_ns - origin) % length
        if since < 5 * MS and number > 0 and draw(st.booleans()):
            number -= 1
        elif since > length - 5 * MS and number < chunks - 1 and draw(st.booleans()):
            number += 1
        recording[number][draw(st.integers(0, CPUS - 1))].append(each)
    return spans, recording


@settings(deadline=None, max_examples=60)
@given(recordings())
def test_every_span_comes_out_once_and_whole(recording: tuple[int, list[list[list]]]) -> None:
    spans, chunks = recording
    with tempfile.TemporaryDirectory() as folder, Relay() as relay:
        paths = []
        for number, streams in enumerate(chunks):
            paths.append(Path(folder) / str(number))
            write_trace(paths[-1], streams)
        named = by_name(read_all(relay, *paths))
        stats = relay.stats
    assert set(named) == {f"span {number}" for number in range(1, spans + 1)}
    assert all(not span.unfinished and len(span.events) == 1 for span in named.values())
    assert all(span.service_name == "shop" for span in named.values())
    assert (stats.ends_without_start, stats.details_without_span, stats.duplicates) == (0, 0, 0)
