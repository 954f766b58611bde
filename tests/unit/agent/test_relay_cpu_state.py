"""What the relay tells a span of its thread, when its state was saved and restored meanwhile."""

from pathlib import Path

import pytest

from k8s_tracing.agent.relay import Relay
from tests.support.ctf import Packet
from tests.support.scheduler import BOOT_ID, FakeScheduler, chunk, counted, kinds, on, read
from tests.support.spans import (
    BASE_NS,
    S,
    announced,
    decode,
    end,
    read_all,
    start,
)
from tests.support.states import signed, varint


class TestState:
    """A relay that goes on from a state tells the same."""

    #: Interleaved over four threads, with a loss, a span that is handed out unfinished, and one that ends elsewhere.
    EVENTS = (
        *on(1, *announced()),
        *on(1, start(1, 1)),
        *on(1, start(2, 2, parent_span_id=1)),
        *on(2, start(3, 3)),
        *on(1, end(2, 4)),
        *on(2, start(4, 5)),
        *on(1, start(5, 6, parent_span_id=1)),
        *on(1, start(6, 7, parent_span_id=1)),
        *on(2, end(3, 8)),
        *on(2, start(7, 9, parent_span_id=4)),
        *on(1, end(5, 10)),
        *on(3, start(8, 11)),
        *on(2, end(8, 12)),
        *on(1, end(6, 13)),
        *on(3, start(9, 14)),
        *on(2, end(7, 15)),
        *on(1, end(1, 16)),
        *on(3, end(9, 17)),
        *on(2, end(4, 18)),
    )
    EXPECTED = {1: "told", 2: "told", 3: "shared", 4: "shared", 5: "shared", 6: "shared"} | {
        7: "told",
        8: "nothing",
        9: "told",
    }

    def test_in_one_go(self, tmp_path):
        assert kinds(read(tmp_path, *self.EVENTS[2:])[0]) == self.EXPECTED

    @pytest.mark.parametrize("restart", [False, True])
    def test_at_every_event(self, tmp_path, restart):
        scheduler = FakeScheduler()
        spans = []
        relay = Relay(cpu_times=scheduler.times())
        for number, each in enumerate(self.EVENTS):
            spans += decode(relay.read(chunk(tmp_path / str(number), [each])))
            if restart:
                state = relay.save()
                relay.close()
                relay = Relay(cpu_times=scheduler.times())
                relay.restore(state)
        spans += decode(relay.finish())
        stats = relay.stats
        relay.close()
        assert kinds(spans) == self.EXPECTED
        assert counted(stats) == (4, 4, 0)
        assert {(each.vtid, each.begin_ns - BASE_NS) for each in scheduler.asked} == {
            (1, 1),
            (1, 2),
            (2, 9),
            (3, 14),
        }

    def saved(self, folder: Path, *packets: Packet) -> bytes:
        with Relay(cpu_times=FakeScheduler().times()) as relay:
            list(relay.read(chunk(folder, packets)))
            return relay.save()

    def after(self, state: bytes, path: Path) -> dict[int, str]:
        with Relay(cpu_times=FakeScheduler().times()) as relay:
            relay.restore(state)
            return kinds(read_all(relay, path))

    def test_what_was_lost_is_still_known(self, tmp_path):
        first = Packet(on(1, *announced(), start(1)))
        lost = Packet([], events_discarded=1, number=1, end_ns=BASE_NS + S)
        state = self.saved(tmp_path / "1", first, lost)
        rest = chunk(tmp_path / "2", on(1, start(2, 2 * S), end(2, 3 * S), end(1, 4 * S)))
        assert self.after(state, rest) == {1: "nothing", 2: "told"}

    def test_of_another_boot(self, tmp_path):
        """Its threads and times are none of this one's."""
        lost = Packet([], events_discarded=1, number=1, end_ns=BASE_NS + 9 * S)
        state = self.saved(tmp_path / "1", Packet(on(1, *announced(), start(1))), lost)
        rest = chunk(tmp_path / "2", on(1, start(2, 2 * S), end(2, 3 * S), end(1, 4 * S)))
        assert self.after(state, rest) == {1: "nothing", 2: "nothing"}
        assert self.after(rebooted(state), rest) == {1: "nothing", 2: "told"}

    def test_of_a_relay_that_did_not_ask(self, tmp_path):
        with Relay() as relay:
            list(relay.read(chunk(tmp_path / "1", on(1, *announced(), start(1)))))
            state = relay.save()
        rest = chunk(tmp_path / "2", on(1, start(2, S), end(2, 2 * S), end(1, 3 * S)))
        assert self.after(state, rest) == {1: "nothing", 2: "told"}

    def test_for_a_relay_that_does_not_ask(self, tmp_path):
        state = self.saved(tmp_path / "1", Packet(on(1, *announced(), start(1))))
        with Relay() as relay:
            relay.restore(state)
            again = relay.save()
            path = chunk(tmp_path / "2", on(1, end(1, S)))
            assert kinds(read_all(relay, path)) == {1: "nothing"}
        assert self.after(again, path) == {1: "nothing"}


def rebooted(state: bytes) -> bytes:
    """The state as if it were another boot's."""
    numbers = b"".join(
        varint(int.from_bytes(BOOT_ID.bytes[at : at + 8], "little")) for at in (0, 8)
    )
    assert state[32:].count(numbers) == 1
    return signed(state, state[32:].replace(numbers, varint(1) + varint(2)))
