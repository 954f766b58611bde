"""What LTTng lost is said on the spans of that time, and counted for each user's or process's buffers."""

from pathlib import Path
from uuid import UUID

import pytest

from k8s_tracing.agent.relay import Loss, Relay
from k8s_tracing.record import SpanRecord
from tests.support.ctf import Packet, Style, write_trace
from tests.support.spans import BASE_NS, S, announced, by_name, decode, end, read_all, start

LOST = "k8s_tracing.lost_events"


def folder(chunk: Path, uid: int) -> Path:
    return chunk / "ust" / "uid" / str(uid) / "64-bit"


def lost(spans: list[SpanRecord]) -> dict[str, object]:
    return {name: span.attributes.get(LOST) for name, span in by_name(spans).items()}


def some_lost(chunk: Path) -> Path:
    """Five events of uid 1 are lost between 2 s and 3 s; uid 2 loses nothing."""
    packets = [
        Packet([*announced(), start(1), start(2), end(1, S), end(3, 2 * S)]),
        # lost while this packet was filled: counted in its header
        Packet([start(4, 2 * S), end(4, 3 * S)], events_discarded=5, number=1),
        Packet([end(2, 4 * S), start(5, 5 * S)], events_discarded=5, number=2),
        Packet([end(5, 6 * S), start(6, 7 * S)], events_discarded=5, number=3),
    ]
    write_trace(folder(chunk, 1), [packets])
    others = [*announced(0, "other", 99), start(7, S, instance_id=99), end(7, 6 * S)]
    write_trace(folder(chunk, 2), [others])
    return chunk


def test_on_the_spans_of_that_time_and_buffers(tmp_path: Path) -> None:
    with Relay() as relay:
        spans = read_all(relay, some_lost(tmp_path))
        assert relay.stats.marked == 2
    assert lost(spans) == {
        "span 1": None,  # it had ended
        "span 2": 5,
        "span 4": 5,
        "span 5": None,  # it began later
        "span 6": None,  # unfinished, and it began later
        "span 7": None,  # another user's
    }


def test_counted_for_the_buffers_and_who_records_to_them(tmp_path: Path) -> None:
    with Relay() as relay:
        list(relay.read(some_lost(tmp_path)))
        (loss,) = relay.losses()
        assert relay.stats.discarded_events == 5
        others = [process.instance_id for process in relay.processes()]
    assert isinstance(loss, Loss)
    assert (loss.buffers, loss.lost_events, loss.gaps) == ("ust/uid/1/64-bit", 5, 1)
    (process,) = loss.processes
    assert b"shop" in process.resource
    assert sorted(others) == sorted([process.instance_id, 99])


def test_nothing_lost(tmp_path: Path) -> None:
    write_trace(folder(tmp_path, 1), [[*announced(), start(1), end(1)]])
    with Relay() as relay:
        assert lost(read_all(relay, tmp_path)) == {"span 1": None}
        assert (relay.losses(), relay.stats.marked) == ([], 0)


def test_lost_packets_count_for_one_event_at_least(tmp_path: Path) -> None:
    packets = [Packet([*announced(), start(1)]), Packet([end(1, S)], number=3)]
    write_trace(folder(tmp_path, 1), [packets])
    with Relay() as relay:
        assert lost(read_all(relay, tmp_path)) == {"span 1": 1}
        assert [(loss.lost_events, loss.gaps) for loss in relay.losses()] == [(0, 1)]


@pytest.mark.parametrize("restart", [False, True])
def test_in_another_chunk_than_the_span_began(tmp_path: Path, restart: bool) -> None:
    first = [Packet([*announced(), start(1), start(2)])]
    second = [
        Packet([start(3, 3 * S), end(3, 4 * S)], events_discarded=7, number=1),
        Packet([end(1, 5 * S)], events_discarded=7, number=2),
    ]
    third = [Packet([end(2, 9 * S)], events_discarded=9, number=3)]
    for number, packets in enumerate((first, second, third), 1):
        # the counters run on in the buffers of the same trace
        style = Style(uuid=UUID(int=1))
        write_trace(folder(tmp_path / str(number), 1), [packets], style=style)
    spans: list[SpanRecord] = []
    state = None
    relay = Relay()
    for number in "123":
        if restart and state is not None:
            relay.close()
            relay = Relay()
            relay.restore(state)
        spans += decode(relay.read(tmp_path / number))
        state = relay.save()
    spans += decode(relay.finish())
    losses = [(loss.buffers, loss.lost_events) for loss in relay.losses()]
    relay.close()
    assert losses == [("ust/uid/1/64-bit", 9)]
    assert lost(spans) == {"span 3": 7, "span 1": 7, "span 2": 9}


def test_an_unfinished_span_says_it_too(tmp_path: Path) -> None:
    """Its end may be what was lost."""
    packets = [
        Packet([*announced(), start(1)]),
        Packet([], events_discarded=3, number=1, end_ns=BASE_NS + 4000 * S),
    ]
    write_trace(folder(tmp_path, 1), [packets])
    with Relay() as relay:
        (span,) = read_all(relay, tmp_path)
    assert (span.unfinished, span.attributes[LOST]) == (True, 3)


def test_many_users_lose_something(tmp_path: Path) -> None:
    """Beyond a number they are counted together."""
    for uid in range(300):
        packets = [Packet([start(uid + 1)]), Packet([end(uid + 1)], events_discarded=1, number=1)]
        write_trace(folder(tmp_path, uid), [packets])
    with Relay() as relay:
        list(relay.read(tmp_path))
        losses = relay.losses()
        assert sum(loss.lost_events for loss in losses) == relay.stats.discarded_events == 300
    assert (len(losses), losses[-1].buffers, losses[-1].lost_events) == (257, "", 44)
