"""The relay's decoder on traces of any layout that LTTng has, with any pauses, in packets of any size."""

import tempfile
from pathlib import Path
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from k8s_tracing.agent.relay import Relay
from tests.support.ctf import LAYOUTS, Event, Packet, Style, write_trace
from tests.support.spans import BASE_NS, announced, attributes, by_name, end, read_all, start

#: About where the clock's 27 and 32 bits turn over, too.
PAUSES_NS = st.one_of(
    st.integers(0, 1000),
    st.integers((1 << 27) - 2, (1 << 27) + 2),
    st.integers((1 << 32) - 2, (1 << 32) + 2),
    st.integers(0, 1 << 36),
)
TYPES = st.sampled_from(["u8", "i16", "u32", "i64", "text", "bytes", "words"])

styles = st.builds(
    Style,
    byte_order=st.sampled_from(["le", "be"]),
    natural=st.booleans(),
    header=st.sampled_from(["plain", "large", "compact"]),
    context=st.dictionaries(st.sampled_from(["vpid", "vtid", "a", "b", "c"]), TYPES),
    uuid=st.sampled_from([None, UUID(int=9)]),
    long_bits=st.sampled_from([32, 64]),
)


def text(length: int) -> str:
    return "x" * length


@st.composite
def recordings(draw: st.DrawFn) -> tuple[list[tuple[int, int, int]], list[Packet]]:
    """Each span's start, duration and length of its texts; and the packets with them."""
    count = draw(st.integers(1, 10))
    spans = []
    events = announced()
    now = 0
    for number in range(1, count + 1):
        now += draw(PAUSES_NS)
        begin = now
        length = draw(st.integers(0, 70))
        events.append(start(number, begin, op_name=f"{number} {text(length)}"))
        if draw(st.booleans()):
            events.append(Event(BASE_NS + now, "other:event", {"b": b"y" * length}))
        now += draw(PAUSES_NS)
        told = attributes(key=text(length))
        events.append(end(number, now, attributes=told, status_message=text(length % 7), status=2))
        spans.append((begin, now - begin, length))
    packets = []
    while events:
        taken = draw(st.integers(1, len(events)))
        packets.append(Packet(events[:taken], number=len(packets)))
        del events[:taken]
    return spans, packets


@settings(deadline=None, max_examples=80)
@given(recordings(), styles, st.dictionaries(st.sampled_from("abcdef"), TYPES), st.booleans())
def test_every_span_is_read_as_it_was_written(
    recording: tuple[list[tuple[int, int, int]], list[Packet]],
    style: Style,
    other: dict[str, str],
    first: bool,
) -> None:
    spans, packets = recording
    foreign = {"other:event": {**other, "b": "bytes"}}
    fillers = {f"filler:{number}": {"x": "u8"} for number in range(40)}
    # Where ours come late they have numbers that a compact header has no room for.
    layouts = {**LAYOUTS, **foreign} if first else {**fillers, **foreign, **LAYOUTS}
    with tempfile.TemporaryDirectory() as folder, Relay() as relay:
        write_trace(Path(folder), [packets], layouts, style)
        named = by_name(read_all(relay, Path(folder)))
        stats = relay.stats
    assert {name: (s.start_time_ns - BASE_NS, s.duration_ns) for name, s in named.items()} == {
        f"{number} {text(length)}": (begin, duration)
        for number, (begin, duration, length) in enumerate(spans, 1)
    }
    for number, (_, _, length) in enumerate(spans, 1):
        span = named[f"{number} {text(length)}"]
        assert span.attributes == {"key": text(length)}
        assert span.status_message == text(length % 7)
        assert (span.service_name, span.unfinished) == ("shop", False)
    assert (stats.unreadable_packets, stats.disordered_events, stats.lost_packets) == (0, 0, 0)
