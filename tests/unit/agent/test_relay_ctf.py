"""The relay's CTF decoder: damaged packets, lost ones, other machines' layouts, other providers' events."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from k8s_tracing.agent.relay import Relay, RelayStats
from k8s_tracing.errors import RelayError
from k8s_tracing.record import SpanRecord
from tests.support.ctf import LAYOUTS, Event, Packet, Style, metadata, write_trace
from tests.support.spans import BASE_NS, MS, S, announced, attributes, by_name, decode, end, start

CHUNKS = Style(uuid=UUID(int=7))


def spans_of(*numbers: int) -> list[Event]:
    """Whole spans, one after another."""
    return [each for n in numbers for each in (start(n, n * MS), end(n, n * MS + 1))]


def packets_of(*numbers: int) -> list[Packet]:
    """A packet with the process, then one with each span."""
    packets = [Packet(announced(), number=0)]
    return packets + [Packet(spans_of(n), number=at) for at, n in enumerate(numbers, 1)]


def offsets(stream: bytes) -> Iterator[int]:
    """Where the packets of a stream begin; without a uuid their size stands at byte 40."""
    at = 0
    while at < len(stream):
        yield at
        at += int.from_bytes(stream[at + 40 : at + 48], "little") // 8


def names_and_error(folder: Path) -> tuple[set[str], RelayStats, str]:
    spans: list[SpanRecord] = []
    error = ""
    with Relay(request_bytes=1) as relay:
        requests = relay.read(folder)
        while True:
            try:
                spans += decode([next(requests)])
            except StopIteration:
                break
            except RelayError as caught:
                error = str(caught)
                break
        spans += decode(relay.finish())
        return {span.name for span in spans}, relay.stats, error


class TestDamage:
    """A damaged packet costs that packet; the rest is read, and what is missing is counted and said."""

    @pytest.mark.parametrize(
        ("at", "value", "why"),
        [
            (0, 0, "no magic number"),
            (4, 9, "a stream that is not declared"),
            (32, 1 << 40, "content exceeds it"),
            (32, 8, "content exceeds it"),
        ],
    )
    def test_a_packet_that_contradicts_itself(self, tmp_path, at, value, why):
        write_trace(tmp_path / "t", [packets_of(1, 2, 3)])
        path = tmp_path / "t" / "channel_0"
        data = bytearray(path.read_bytes())
        packet = list(offsets(data))[2]
        size = 4 if at < 8 else 8
        data[packet + at : packet + at + size] = value.to_bytes(size, "little")
        path.write_bytes(data)
        names, stats, error = names_and_error(tmp_path)
        # Without its stream's class nothing says how large the packet is.
        assert names == ({"span 1"} if at == 4 else {"span 1", "span 3"})
        assert (stats.unreadable_packets, stats.spans) == (1, len(names))
        assert f"channel_0, packet at byte {packet}: a packet" in error
        assert why in error

    @pytest.mark.parametrize("packet_bits", [0, 7, 8, (1 << 64) - 8])
    def test_a_packet_without_a_size_ends_its_stream(self, tmp_path, packet_bits):
        write_trace(tmp_path / "t", [packets_of(1, 2, 3), [start(4), end(4)]])
        path = tmp_path / "t" / "channel_0"
        data = bytearray(path.read_bytes())
        packet = list(offsets(data))[2]
        data[packet + 40 : packet + 48] = packet_bits.to_bytes(8, "little")
        path.write_bytes(data)
        names, stats, _ = names_and_error(tmp_path)
        assert (names, stats.unreadable_packets) == ({"span 1", "span 4"}, 1)

    def test_the_rest_of_a_packet_behind_an_event_that_is_not_declared(self, tmp_path):
        layouts = {**LAYOUTS, "other:event": {"x": "u8"}}
        unknown = Event(BASE_NS + 2 * MS, "other:event", {})
        packets = [
            Packet(announced()),
            Packet([*spans_of(1), unknown, *spans_of(3)]),
            Packet(spans_of(4)),
        ]
        write_trace(tmp_path / "t", [packets], layouts)
        (tmp_path / "t" / "metadata").write_text(metadata(LAYOUTS))
        names, stats, error = names_and_error(tmp_path)
        assert (names, stats.unreadable_packets) == ({"span 1", "span 4"}, 1)
        assert "an event is of a class that is not declared" in error

    @pytest.mark.parametrize("cut", [1, 40, 90, 150])
    def test_a_stream_that_is_cut_off_is_read_up_to_its_last_whole_packet(self, tmp_path, cut):
        write_trace(tmp_path / "t", [packets_of(1, 2, 3)])
        path = tmp_path / "t" / "channel_0"
        data = path.read_bytes()
        path.write_bytes(data[: list(offsets(data))[3] + cut])
        names, stats, error = names_and_error(tmp_path)
        assert (names, stats.unreadable_packets) == ({"span 1", "span 2"}, 1)
        assert "cut off" in error

    @pytest.mark.parametrize("length", [1 << 16, (1 << 32) - 1])
    def test_a_sequence_longer_than_its_packet(self, tmp_path, length):
        key = attributes(a="v" * 8)
        packets = [
            Packet(announced()),
            Packet([start(1), end(1, attributes=key), *spans_of(2)]),
            Packet(spans_of(3)),
        ]
        write_trace(tmp_path / "t", [packets])
        path = tmp_path / "t" / "channel_0"
        data = path.read_bytes()
        at = data.index(key) - 4
        path.write_bytes(data[:at] + length.to_bytes(4, "little") + data[at + 4 :])
        names, stats, error = names_and_error(tmp_path)
        assert names == {"span 1", "span 3"}
        assert (stats.unfinished, stats.unreadable_packets) == (1, 1)
        assert "an event is cut off" in error

    def test_a_text_that_does_not_end_in_its_packet(self, tmp_path):
        packets = [Packet([*announced(), start(1), start(2)]), Packet(spans_of(3))]
        write_trace(tmp_path / "t", [packets])
        path = tmp_path / "t" / "channel_0"
        data = path.read_bytes()
        at = data.index(b"span 2\0") + 6
        path.write_bytes(
            data[:at] + b"\1" * (list(offsets(data))[1] - at) + data[list(offsets(data))[1] :]
        )
        names, stats, _ = names_and_error(tmp_path)
        assert (names, stats.unreadable_packets) == ({"span 1", "span 3"}, 1)

    def test_a_time_that_goes_back_is_used_and_counted(self, tmp_path):
        """Other readers give the folder up."""
        events = [*announced(), start(1, 5 * MS), start(2, 3 * MS), end(1, 6 * MS), end(2, 7 * MS)]
        write_trace(tmp_path / "t", [events, spans_of(3)])
        names, stats, error = names_and_error(tmp_path)
        assert (names, error) == ({"span 1", "span 2", "span 3"}, "")
        assert stats.disordered_events == 1

    def test_a_short_time_that_goes_back_is_no_turn_of_the_clock(self, tmp_path):
        """If it were, it would be behind the packet's end."""
        events = [*announced(), start(1, 5 * MS), start(2, 3 * MS), end(1, 6 * MS), end(2, 7 * MS)]
        folder = write_trace(tmp_path / "t", [events], style=Style(header="large"))
        with Relay() as relay:
            spans = by_name([*decode(relay.read(folder)), *decode(relay.finish())])
            assert relay.stats.disordered_events == 1
        assert spans["span 2"].start_time_ns == BASE_NS + 3 * MS

    def test_the_index_is_not_needed(self, tmp_path):
        write_trace(tmp_path / "t", [packets_of(1)])
        (tmp_path / "t" / "index").mkdir()
        (tmp_path / "t" / "index" / "channel_0.idx").write_bytes(b"\xff" * 100)
        assert names_and_error(tmp_path)[0] == {"span 1"}


class TestLosses:
    """What LTTng counts in its packets, within a chunk and from one to the next."""

    def read(self, tmp_path: Path, *chunks: list[Packet], style: Style = CHUNKS) -> RelayStats:
        with Relay() as relay:
            for number, packets in enumerate(chunks):
                folder = tmp_path / str(number) / "ust"
                decode(relay.read(write_trace(folder, [packets], style=style)))
            return relay.stats

    def test_between_two_chunks(self, tmp_path):
        stats = self.read(
            tmp_path,
            [Packet(announced(), number=4, events_discarded=10)],
            [Packet(spans_of(1), number=5, events_discarded=17)],
            [Packet(spans_of(2), number=8, events_discarded=17)],
        )
        assert (stats.discarded_events, stats.lost_packets) == (7, 2)

    def test_up_to_the_end_of_the_first_packet(self, tmp_path):
        """It has the number 0, so that nothing was counted before it."""
        stats = self.read(tmp_path, [Packet(announced(), number=0, events_discarded=3)])
        assert stats.discarded_events == 3

    def test_what_was_lost_before_we_came_is_not_known(self, tmp_path):
        stats = self.read(tmp_path, [Packet(announced(), number=9, events_discarded=3)])
        assert (stats.discarded_events, stats.lost_packets) == (0, 0)

    def test_a_counter_of_32_bits_begins_anew(self, tmp_path):
        stats = self.read(
            tmp_path,
            [Packet(announced(), number=1, events_discarded=(1 << 32) - 2)],
            [Packet(spans_of(1), number=2, events_discarded=3)],
            style=Style(uuid=UUID(int=7), long_bits=32),
        )
        assert stats.discarded_events == 5

    def test_a_counter_that_goes_back_says_nothing(self, tmp_path):
        stats = self.read(
            tmp_path,
            [Packet(announced(), number=8, events_discarded=9)],
            [Packet(spans_of(1), number=8, events_discarded=2)],
            [Packet(spans_of(2), number=9, events_discarded=3)],
        )
        assert (stats.discarded_events, stats.lost_packets) == (1, 0)

    def test_other_sessions_and_cpus_count_for_themselves(self, tmp_path):
        with Relay() as relay:
            for number, (session, cpu_packets) in enumerate(
                [(1, (5, 7)), (2, (100, 200)), (1, (6, 9))]
            ):
                streams = [[Packet(announced(), number=n, events_discarded=n)] for n in cpu_packets]
                style = Style(uuid=UUID(int=session))
                decode(relay.read(write_trace(tmp_path / str(number), streams, style=style)))
            assert (relay.stats.discarded_events, relay.stats.lost_packets) == (1 + 2, 0 + 1)


STYLES = [
    Style(order, natural, header, context)
    for order, natural, header, context in itertools.product(
        ("le", "be"),
        (False, True),
        ("plain", "large", "compact"),
        ({}, {"vpid": "i32", "p": "text"}),
    )
]


@pytest.mark.parametrize("style", STYLES, ids=str)
def test_layouts_of_other_machines(tmp_path, style):
    """Byte orders, alignments, headers, contexts: with pauses in which a short time turns over."""
    events = [
        *announced(),
        start(1, 10),
        start(2, 100 * MS),
        end(1, 6 * S, attributes=attributes(key="value")),
        end(2, 6 * S + 130 * MS),
        start(3, 60 * S, op_name="é" * 7),
        end(3, 90 * S, status=2, status_message="no"),
    ]
    write_trace(tmp_path / "t", [events, [start(4, 5), end(4, 100 * S)]], style=style)
    with Relay() as relay:
        spans = by_name([*decode(relay.read(tmp_path)), *decode(relay.finish())])
        assert (relay.stats.unreadable_packets, relay.stats.disordered_events) == (0, 0)
    assert {
        name: (span.start_time_ns - BASE_NS, span.duration_ns) for name, span in spans.items()
    } == {
        "span 1": (10, 6 * S - 10),
        "span 2": (100 * MS, 6 * S + 30 * MS),
        "é" * 7: (60 * S, 30 * S),
        "span 4": (5, 100 * S - 5),
    }
    assert spans["span 1"].attributes == {"key": "value"}
    assert spans["span 1"].service_name == "shop"
    assert spans["é" * 7].status_message == "no"


class TestMetadata:
    """Names of events and fields come from programs: what cannot be read there harms nobody else."""

    def write(self, tmp_path: Path, declaration: str) -> Path:
        write_trace(tmp_path / "t", [[*announced(), *spans_of(1)]])
        path = tmp_path / "t" / "metadata"
        path.write_text(path.read_text() + declaration)
        return tmp_path

    @pytest.mark.parametrize(
        "declaration",
        [
            'event { name = "x"; id = 90; stream_id = 0; fields := struct { quux _y; }; };',
            'event { name = "x"; id = 90; fields := struct { integer { size = 99; } _y; }; };',
            'event { name = "x"; id = 90; fields := struct { string _y[_nowhere]; }; };',
            'event { name = "x"y"; id = 90; stream_id = 0;\n\tfields := struct { };\n};\n',
            'event {\n\tname = "x\n";\n\tid = 90;\n};\n\nevent { name = "z"; id = 91; };\n',
            "event { id = 90; fields := struct { string _@; };\n};\n",
            "event { " + "fields := " + "struct { " * 99 + "string s;" + " } s;" * 98 + "}; };",
            'env { a = "b"; c = -5; d = 0xff; };',
            "/* the end */ // of it",
        ],
    )
    def test_what_cannot_be_read_and_does_not_occur(self, tmp_path, declaration):
        names, stats, error = names_and_error(self.write(tmp_path, declaration))
        assert (names, error, stats.unreadable_packets) == ({"span 1"}, "", 0)

    @pytest.mark.parametrize(
        "declaration",
        [
            "typealias integer { size = 3; align = 3; } := odd;",
            "stream { id = 0; };",
            "trace { byte_order = middle; };",
            "clock { freq = 0; };",
            "what;",
            "typealias integer { size = 99999999999999999999; } := large;",
            "struct deep " + "{ struct " * 50,
            "".join(f"typealias integer {{ size = 8; }} := t{n};\n" for n in range(2000)),
        ],
    )
    def test_what_must_be_right(self, tmp_path, declaration):
        names, _, error = names_and_error(self.write(tmp_path, declaration))
        assert names == set()
        assert error.startswith(f"cannot read {tmp_path}/t: ")

    def test_types_that_double_with_each_name(self, tmp_path):
        """A few lines that would describe 2^40 fields."""
        doubled = "struct d0 { string a; };\n" + "".join(
            f"struct d{n} {{ struct d{n - 1} a; struct d{n - 1} b; }};\n" for n in range(1, 41)
        )
        names, _, error = names_and_error(self.write(tmp_path, doubled))
        assert names == set()
        assert "too deep" in error

    def test_ctf_2(self, tmp_path):
        (tmp_path / "metadata").write_bytes(b'\x1e{"type": "preamble"}')
        assert "--trace-format=ctf-1.8" in names_and_error(tmp_path)[2]
