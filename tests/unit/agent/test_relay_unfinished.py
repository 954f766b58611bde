"""Spans without an end: reported when their process is gone or when they are old, and sent again if they end."""

from collections.abc import Callable
from pathlib import Path

import pytest

from k8s_tracing.agent.relay import Relay
from tests.support.ctf import Event, Packet, write_trace
from tests.support.spans import (
    BASE_NS,
    INSTANCE,
    MS,
    S,
    announced,
    attributes,
    by_name,
    decode,
    end,
    event,
    start,
)

Write = Callable[..., Path]

GONE = "process ended before the span ended"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a chunk of one stream; each has a folder of its own."""
    count = 0

    def write(*events: Event) -> Path:
        nonlocal count
        count += 1
        return write_trace(tmp_path / str(count) / "ust" / "uid" / "0" / "64-bit", [events])

    return write


def idle(seconds: int) -> str:
    return f"20261122T100000+0000-20261122T10{seconds // 60:02}{seconds % 60:02}+0000-1"


class TestProcessGone:
    """A process that has ended cannot end its spans."""

    def test_its_open_spans_are_unfinished_after_one_more_chunk(self, write: Write) -> None:
        with Relay() as relay:
            first = write(*announced(), start(1), start(2, MS), end(2, 2 * MS), start(3, S))
            assert len(decode(relay.read(first))) == 1
            assert relay.process_gone(INSTANCE)
            # a rotation visits the buffers one after another: this may be the last chunk's
            spans = by_name(
                decode(relay.read(write(event("span_event", S, span_id=1), end(3, S + MS))))
            )
            assert decode(relay.read_nothing(idle(1)))[0].name == "span 3"
            stats = relay.stats
        (span,) = spans.values()
        assert (span.name, span.unfinished, span.service_name) == ("span 1", True, "shop")
        assert (span.status, span.status_message) == ("ERROR", GONE)
        assert (span.start_time_ns, len(span.events)) == (BASE_NS, 1)
        assert span.end_time_ns == BASE_NS + S + MS  # the last that its process did
        assert (stats.unfinished, stats.reported_spans, stats.open_spans) == (1, 1, 0)

    def test_those_of_other_processes_are_not(self, write: Write) -> None:
        with Relay() as relay:
            others = announced(0, "other", 99)
            list(relay.read(write(*announced(), *others, start(1), start(2, instance_id=99))))
            relay.process_gone(99)
            assert [s.name for s in decode(relay.read_nothing(idle(1)))] == ["span 2"]
            assert relay.stats.open_spans == 1

    def test_one_that_nobody_knows(self) -> None:
        with Relay() as relay:
            assert not relay.process_gone(INSTANCE)

    def test_it_is_known_to_the_relay_that_goes_on(self, write: Write) -> None:
        with Relay() as relay:
            list(relay.read(write(*announced(), start(1))))
            relay.process_gone(INSTANCE)
            state = relay.save()
        with Relay() as relay:
            relay.restore(state)
            assert [s.status_message for s in decode(relay.read_nothing(idle(1)))] == [GONE]


class TestAge:
    """A span that is open for very long is shown while it is."""

    def test_reported_once_when_it_is_old(self, write: Write) -> None:
        with Relay(max_age_s=60) as relay:
            list(relay.read(write(*announced(), start(1), start(2, 30 * S), end(2, 31 * S))))
            assert decode(relay.read_nothing(idle(28)))[0].name == "span 2"
            (span,) = decode(relay.read_nothing(idle(1)))
            assert (span.name, span.unfinished, span.status) == ("span 1", True, "UNSET")
            for _ in range(3):
                assert decode(relay.read_nothing(idle(60))) == []
            assert (relay.stats.unfinished, relay.stats.reported_spans) == (1, 1)

    def test_after_a_day_its_end_is_not_waited_for(self, write: Write) -> None:
        with Relay(max_age_s=60) as relay:
            list(relay.read(write(*announced(), start(1))))
            assert len(decode(relay.read_nothing(idle(60)))) == 1
            for _ in range(24 * 6):
                assert relay.stats.reported_spans == 1
                list(relay.read_nothing(idle(600)))
            assert relay.stats.reported_spans == 0
            assert decode(relay.read(write(end(1, 90_000 * S)))) == []
            list(relay.read_nothing(idle(1)))
            list(relay.read_nothing(idle(1)))
            assert relay.stats.ends_without_start == 1


class TestCompleted:
    """The end comes after all."""

    @pytest.mark.parametrize("restart", [False, True])
    def test_the_span_is_sent_again_whole_and_without_the_mark(
        self, write: Write, restart: bool
    ) -> None:
        relay = Relay(max_age_s=60)
        told = event("span_event", 1, span_id=1, name="early")
        list(relay.read(write(*announced(), start(1, parent_span_id=5), told)))
        (unfinished,) = decode(relay.read_nothing(idle(60)))
        if restart:
            state = relay.save()
            relay.close()
            relay = Relay()
            relay.restore(state)
        late = event("span_event", 70 * S, span_id=1, name="late")
        last = end(1, 80 * S, attributes=attributes(a="b"), status=1)
        (span,) = decode(relay.read(write(late, last, start(9, 90 * S))))
        stats = relay.stats
        relay.close()
        assert unfinished.unfinished
        assert (span.trace_id, span.span_id) == (unfinished.trace_id, unfinished.span_id)
        assert (span.unfinished, span.status, span.attributes) == (False, "OK", {"a": "b"})
        assert (span.duration_ns, span.parent_span_id) == (80 * S, f"{5:016x}")
        assert [e.name for e in span.events] == ["early", "late"]
        assert (stats.unfinished, stats.completed, stats.reported_spans) == (1, 1, 0)

    def test_also_after_the_end_of_the_agent(self, write: Write) -> None:
        """Its daemon went with it, and the process records to the next one."""
        with Relay() as relay:
            first = write(*announced(), start(1))
            assert [s.unfinished for s in decode([*relay.read(first), *relay.finish()])] == [True]
            state = relay.save()
        with Relay() as relay:
            relay.restore(state)
            (span,) = decode([*relay.read(write(end(1, 9 * S))), *relay.finish()])
            assert (span.unfinished, span.duration_ns, span.service_name) == (False, 9 * S, "shop")
            assert relay.stats.reported_spans == 0

    def test_what_was_reported_gives_way_first(self, write: Write) -> None:
        many = [start(n, n) for n in range(1, 1001)]
        with Relay(memory_bytes=500_000, max_age_s=60) as relay:
            list(relay.read(write(*announced(), *many)))
            assert len(decode(relay.read_nothing(idle(60)))) == 1000
            more = [start(n, 61 * S + n) for n in range(2001, 3001)]
            assert decode(relay.read(write(*more))) == []
            stats = relay.stats
        assert (stats.evicted, stats.open_spans) == (0, 1000)
        assert 0 < stats.reported_spans < 1000


class TestClock:
    """Ages are not those of the traces' times."""

    def test_another_time_of_day_makes_nothing_old(self, write: Write) -> None:
        hour = 3600 * S
        with Relay(max_age_s=3600) as relay:
            list(relay.read(write(*announced(), start(1))))
            for moved in (10_000 * hour, -5 * hour, 0):
                list(relay.read(write(start(1, moved))))
                list(relay.read(write(start(1, moved + S))))
            assert (relay.stats.open_spans, relay.stats.unfinished) == (1, 0)

    def test_time_goes_on_after_it_was_set_back(self, write: Write) -> None:
        with Relay(max_age_s=60) as relay:
            list(relay.read(write(*announced(), start(1))))
            for second in range(59):
                assert decode(relay.read(write(start(1, second * S - 7200 * S)))) == []
            spans = decode(relay.read(write(start(1, 60 * S - 7200 * S))))
            assert [span.name for span in spans] == ["span 1"]

    def test_and_where_nothing_but_packets_is_recorded(self, tmp_path: Path, write: Write) -> None:
        with Relay(max_age_s=60) as relay:
            list(relay.read(write(*announced(), start(1))))
            write_trace(tmp_path / "next", [[Packet([], end_ns=BASE_NS + 60 * S)]])
            assert len(decode(relay.read(tmp_path / "next"))) == 1
