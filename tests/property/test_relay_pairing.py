"""The relay, when the events of spans come in any order that rotation and CPUs can give them, and when it is killed."""

import itertools
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from k8s_tracing.agent.relay import Relay
from tests.support.ctf import write_trace
from tests.support.spans import MS, announced, by_name, decode, end, event, read_all, start

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


@settings(deadline=None, max_examples=settings().max_examples // 2)
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


@settings(deadline=None, max_examples=settings().max_examples // 2)
@given(recordings(), st.data())
def test_a_relay_that_is_killed_at_any_moment_goes_on_from_its_state(
    recording: tuple[int, list[list[list]]], data: st.DataObject
) -> None:
    """The spans are the same; twice come at most those of the chunk in which it was killed."""
    _, chunks = recording
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            write_trace(Path(folder) / str(number), streams)
            for number, streams in enumerate(chunks)
        ]
        with Relay() as relay:
            undisturbed = by_name(read_all(relay, *paths))
            counted = relay.stats
        state = None
        seen = []
        for path in [*paths, None]:
            killed_after = data.draw(st.none() | st.integers(0, 3), "requests before the kill")
            if killed_after is not None:
                with resumed(state) as relay:
                    requests = relay.read(path) if path else relay.finish()
                    again = decode(itertools.islice(requests, killed_after))
            with resumed(state) as relay:
                spans = decode(relay.read(path) if path else relay.finish())
                state = relay.save() if path else None
                stats = relay.stats
            if killed_after is not None:
                assert spans[: len(again)] == again
            seen += spans
    assert by_name(seen) == undisturbed
    assert stats == counted


def resumed(state: bytes | None) -> Relay:
    relay = Relay(request_bytes=300)
    if state is not None:
        relay.restore(state)
        assert len(relay.save()) == len(state)
    return relay
