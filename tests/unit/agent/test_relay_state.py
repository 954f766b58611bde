"""What a relay knows between two chunks, as bytes: saved, restored, and refused when it is not what was saved."""

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8s_tracing.agent.relay import Relay
from k8s_tracing.errors import RelayError
from tests.support.ctf import write_trace
from tests.support.spans import MS, S, announced, attributes, decode, end, event, start
from tests.support.states import signed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chunk that leaves something of every kind: open, held back, without its process, without its start."""
    events = [
        *announced(),
        start(1, op_name="open"),
        event("span_event", 1, span_id=1, name="second", attributes=b"", time=2),
        event("span_event", 2, span_id=1, name="first", time=1),
        event("span_link", 3, span_id=1, linked_trace_id_low=1, linked_span_id=1),
        start(2, 3, instance_id=77, scope_id=3),
        end(2, 4, attributes=attributes(a="b")),
        start(3, S, op_name="held back"),
        end(3, S + MS, op_name="renamed", status=2, status_message="bad"),
        end(4, S + MS, op_name="orphan"),
    ]
    return write_trace(tmp_path_factory.mktemp("state") / "trace", [events])


@pytest.fixture(scope="module")
def state(folder: Path) -> bytes:
    with Relay() as relay:
        list(relay.read(folder))
        return relay.save(["one", "two"])


def refused(state: bytes) -> str:
    """Why; a relay that refuses must be as new."""
    with Relay() as relay:
        with pytest.raises(RelayError) as error:
            relay.restore(state)
        with Relay() as new:
            assert relay.save() == new.save()
        return str(error.value)


def test_nothing_is_lost_on_the_way(folder: Path, state: bytes) -> None:
    with Relay() as relay:
        list(relay.read(folder))
        stats = relay.stats
        expected = decode(relay.finish())
    assert (stats.open_spans, stats.waiting_spans, stats.orphans) == (1, 2, 1)
    with Relay() as relay:
        relay.restore(state)
        assert (relay.stats, relay.chunks) == (stats, {"one", "two"})
        spans = decode(relay.finish())
    assert len(spans) == 3
    assert sorted(spans, key=str) == sorted(expected, key=str)


def test_a_new_relay_has_a_state_as_well() -> None:
    with Relay() as relay:
        state = relay.save()
    with Relay() as relay:
        relay.restore(state)
        assert relay.chunks == frozenset()
        assert decode(relay.finish()) == []


def test_a_chunk_that_is_being_read_is_in_no_state(tmp_path: Path) -> None:
    spans = [each for n in range(1, 9) for each in (start(n, n * S), end(n, n * S))]
    write_trace(tmp_path, [[*announced(), *spans]])
    with Relay(request_bytes=1) as relay:
        requests = relay.read(tmp_path)
        for _ in range(7):  # the last one is held back
            next(requests)
            with pytest.raises(RelayError, match="read to its end"):
                relay.save()
        assert list(requests) == []
        relay.save()


def test_a_relay_that_has_read_something_takes_no_state(folder: Path, state: bytes) -> None:
    with Relay() as relay:
        list(relay.read(folder))
        before = relay.save()
        with pytest.raises(RelayError, match="only before the first chunk"):
            relay.restore(state)
        assert relay.save() == before


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, -1])
def test_a_truncated_state_is_refused(state: bytes, size: int) -> None:
    assert refused(state[:size]) == "the saved state is truncated"


def test_more_than_a_state_is_refused(state: bytes) -> None:
    assert "truncated" in refused(state + b"x")


def test_another_version_is_refused(state: bytes) -> None:
    assert "another version" in refused(state[:8] + struct.pack("<Q", 99) + state[16:])


def test_other_bytes_are_refused() -> None:
    assert "no saved state" in refused(b"{}" * 40)


def test_every_damaged_byte_is_noticed(state: bytes) -> None:
    with Relay() as relay:
        for at in range(len(state)):
            damaged = state[:at] + bytes([state[at] ^ 0x40]) + state[at + 1 :]
            with pytest.raises(RelayError):
                relay.restore(damaged)


def test_the_checksum_is_what_it_is_said_to_be(state: bytes) -> None:
    assert signed(state, state[32:]) == state


@settings(deadline=None, max_examples=4 * settings().max_examples)
@given(data=st.data())
def test_no_bytes_whatever_do_harm(state: bytes, data: st.DataObject) -> None:
    """With a right checksum: they are refused, or what is made of them can be handed out."""
    body = bytearray(state[32:])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        piece = data.draw(st.binary(max_size=12) | st.just(b"\xff" * 10))
        body[at : at + data.draw(st.integers(0, 12))] = piece
        if not body:
            break
    with Relay() as relay:
        try:
            relay.restore(signed(state, bytes(body)))
        except RelayError:
            return
        list(relay.read_nothing("idle"))
        relay.save()
        list(relay.finish())


def test_what_has_ended_goes_out_at_an_end_that_leaves_open_spans_alone(tmp_path: Path) -> None:
    """The end of a chunk holds back what ended about when the chunk did; the end of an agent does not."""
    write_trace(tmp_path / "x", [[*announced(), start(1, 10), start(2, 20), end(2, 30)]])
    with Relay() as relay:
        handed = decode(relay.read(tmp_path / "x"))
        handed += decode(relay.finish(unfinished=False))
        assert [span.span_id for span in handed] == [f"{2:016x}"]
        assert relay.stats.open_spans == 1
