"""The loop: chunk in, requests out, and what stays on disk when."""

import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from k8s_tracing.agent.batch import BatchWriter
from k8s_tracing.agent.export import Delivery
from k8s_tracing.agent.otlp_answer import RetryableError
from k8s_tracing.agent.outbox import Outbox
from k8s_tracing.agent.room import Limits, Room
from k8s_tracing.agent.sender import Sender
from k8s_tracing.agent.service import Agent, resume
from k8s_tracing.agent.spool import Spool
from k8s_tracing.agent.stopping import Stop
from k8s_tracing.errors import ExportError, RelayError
from tests.support.wait import wait_for


@dataclass
class FakeRequest:
    body: bytes
    spans: int


class FakeRelay:
    """Two requests a chunk, named after its content."""

    def __init__(self) -> None:
        self.reads: list[str] = []
        self.chunks: frozenset[str] = frozenset()

    def read(self, path: Path) -> Iterator[FakeRequest]:
        name = (path / "metadata").read_text()
        self.reads.append(name)
        for part in "ab":
            if name == "broken" and part == "b":
                raise RelayError("broken")
            yield FakeRequest(f"{name}{part}".encode(), 10)

    def read_nothing(self, path: Path) -> Iterator[FakeRequest]:
        yield FakeRequest(b"late", 1)

    def finish(self, *, unfinished: bool) -> Iterator[FakeRequest]:
        if unfinished:
            yield FakeRequest(b"open", 1)

    def save(self, chunks: Iterable[str]) -> bytes:
        return "\n".join([*self.reads, "", *chunks]).encode()

    def restore(self, state: bytes) -> None:
        if state == b"damaged":
            raise RelayError("damaged")
        reads, _, chunks = state.decode().partition("\n\n")
        self.reads = reads.split("\n")
        self.chunks = frozenset(chunks.split("\n"))


class Receiver:
    """Notes what it gets; fails while it is down."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.got: list[str] = []
        self.refuses: set[str] = set()

    def send(self, request: bytes, timeout_s: float) -> int:
        if request.decode() in self.refuses:
            raise RetryableError("down")
        self.got.append(request.decode())
        return 0

    def close(self) -> None:
        pass


class Others:
    """A data plane whose senders wait until what they sent is on disk."""

    otlp_addresses = ()

    def __init__(self) -> None:
        self.came: list[bytes] = []
        self.passed: list[tuple[bytes, bool]] = []
        self.in_hand: list[bytes] = []
        self.acknowledged: list[bytes] = []
        self._awake = os.eventfd(0)

    def send(self, *bodies: bytes) -> None:
        self.came += bodies
        os.eventfd_write(self._awake, 1)

    def fileno(self) -> int:
        return self._awake

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def collect(self) -> list[FakeRequest]:
        if self.came:
            os.eventfd_read(self._awake)
        collected, self.came = self.came, []
        self.in_hand += collected
        return [FakeRequest(body, 1) for body in collected]

    def published(self) -> None:
        self.acknowledged += self.in_hand
        self.in_hand = []

    def pass_on(self, body: bytes, *, is_local: bool) -> tuple[bytes, int]:
        self.passed.append((body, is_local))
        return body, 0

    def figures(self) -> list[Any]:
        return []

    def close(self) -> None:
        os.close(self._awake)


class World:
    """An agent in a folder; a second one in the same folder goes on where the first was."""

    session: Path

    def __init__(self, root: Path, receivers: int, limits: Limits) -> None:
        self.stop = Stop()
        self.spool = Spool(root)
        self.spool.__enter__()
        self.relay = FakeRelay()
        self.receivers = [Receiver(f"receiver {number}") for number in range(receivers)]
        self.outbox = Outbox(root, [each.name for each in self.receivers])
        resume(self.spool, self.outbox, self.relay)
        self.free_bytes = 10**9
        self.room = Room(self.spool, self.outbox, limits, free_bytes=lambda: self.free_bytes)
        self.senders = [
            Sender(Delivery(each, self.stop, jitter=lambda: 0.01), cursor, self.outbox, self.stop)
            for each, cursor in zip(self.receivers, self.outbox.cursors, strict=True)
        ]
        self.others = Others()
        self.agent = Agent(
            self.spool,
            self.relay,
            self.outbox,
            self.senders,
            self.room,
            self.stop,
            data_plane=self.others,
            poll_s=0.01,
        )
        self.number = 0
        self.started = False

    def chunk(self, content: str | None) -> Path:
        folder = self.session / "archives" / f"x-{self.number}"
        self.number += 1
        folder.mkdir(parents=True)
        if content is not None:
            (folder / "metadata").write_text(content)
        return folder

    def start(self) -> None:
        self.started = True
        for sender in self.senders:
            sender.start()

    def run_until(self, what: str, condition: Any) -> None:
        self.start()
        thread = threading.Thread(target=self.agent.run)
        thread.start()
        try:
            wait_for(what, condition)
        finally:
            self.stop.request()
            thread.join()

    def drain(self, *, finish: bool = True, time_s: float = 30.0) -> bool:
        if not self.started:
            self.start()
        if not self.stop.requested:
            self.stop.request()
        self.stop.allow(time_s)
        return self.agent.drain(finish=finish)

    def end(self) -> None:
        """End without sending anything more."""
        self.outbox.finish()
        for _ in range(2):
            self.stop.request()
        if self.started:
            for sender in self.senders:
                sender.join()
        self.others.close()
        self.outbox.close()
        self.spool.__exit__(None, None, None)
        self.stop.close()


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Any]:
    worlds: list[World] = []

    def make(receivers: int = 1, limits: Limits | None = None) -> World:
        for world in worlds:
            world.end()
        world = World(tmp_path, receivers, limits or Limits(10**9))
        world.session = world.spool.new_session()
        worlds[:] = [world]
        return world

    yield make
    for world in worlds:
        world.end()


def test_chunks_are_delivered_and_deleted(make_world: Any) -> None:
    world = make_world(receivers=2)
    first = world.chunk("1")
    world.chunk("2")
    world.run_until("no chunks", lambda: not world.spool.chunks())
    assert not first.exists()
    assert world.drain()
    for receiver in world.receivers:
        assert receiver.got == ["1a", "1b", "2a", "2b", "open"]
    counts = world.agent.counts
    assert (counts.spans, counts.chunks, counts.bad_chunks) == (41, 2, 0)
    assert world.outbox.size_bytes == 0


def test_an_empty_chunk_brings_what_waited_for_a_later_one(make_world: Any) -> None:
    world = make_world()
    world.chunk("1")
    empty = world.chunk(None)
    assert world.drain()
    assert not empty.exists()
    assert world.receivers[0].got == ["1a", "1b", "late", "open"]
    assert (world.agent.counts.chunks, world.agent.counts.empty_chunks) == (1, 1)


def test_a_bad_chunk_does_not_hold_up_the_next(make_world: Any) -> None:
    world = make_world()
    world.chunk("broken")
    world.chunk("2")
    world.run_until("delivered", lambda: "2b" in world.receivers[0].got)
    assert world.receivers[0].got == ["brokena", "2a", "2b"]
    assert world.agent.counts.bad_chunks == 1
    assert len(list((world.spool.root / "bad").iterdir())) == 1


@pytest.mark.parametrize("was_full", [True, False])
def test_a_chunk_cut_off_by_a_full_disk_is_told(
    make_world: Any, monkeypatch: pytest.MonkeyPatch, was_full: bool
) -> None:
    """A chunk that is broken on a disk with room says nothing of the session."""
    world = make_world()
    write, full, told = world.spool.write_state, [True] * was_full, []

    def write_state(state: bytes) -> None:
        if full:
            full.pop()
            raise OSError(28, "No space left on device")
        write(state)

    monkeypatch.setattr(world.spool, "write_state", write_state)
    world.agent.on_cut_off = lambda: told.append(1)
    world.chunk("broken")
    world.chunk("2")
    world.run_until("delivered", lambda: "2b" in world.receivers[0].got)
    assert told == [1] * was_full


def test_one_that_is_down_holds_up_nobody(make_world: Any) -> None:
    world = make_world(receivers=2)
    world.receivers[1].refuses = {"1b"}
    chunk = world.chunk("1")
    world.chunk("2")
    world.run_until("all to the other", lambda: "2b" in world.receivers[0].got)
    assert not chunk.exists()
    assert world.receivers[1].got == ["1a"]
    behind = world.outbox.behind(world.outbox.cursors[1])
    assert behind.spans == 30
    world.receivers[1].refuses = set()
    assert world.drain()
    assert world.receivers[1].got == ["1a", "1b", "2a", "2b", "open"]
    assert world.relay.reads == ["1", "2"]


def test_a_drain_has_an_end(make_world: Any) -> None:
    world = make_world()
    world.receivers[0].refuses = {"1a"}
    world.chunk("1")
    assert not world.drain(time_s=0.3)
    assert world.receivers[0].got == []
    world = make_world()
    assert world.drain(finish=False)
    assert world.receivers[0].got == ["1a", "1b", "open"]


def test_what_is_open_is_left_to_the_next_agent(make_world: Any) -> None:
    world = make_world()
    world.chunk("1")
    assert world.drain(finish=False)
    assert world.receivers[0].got == ["1a", "1b"]
    world = make_world()
    assert world.relay.reads == ["1"]
    assert world.drain()
    assert world.receivers[0].got == ["open"]


def test_the_next_agent_goes_on_at_the_request_that_was_not_taken(make_world: Any) -> None:
    world = make_world(receivers=2)
    world.receivers[1].refuses = {"1b"}
    world.chunk("1")
    world.run_until("delivered", lambda: world.receivers[0].got[-1:] == ["1b"])
    wait_for("the other is stuck", lambda: world.receivers[1].got == ["1a"])
    world = make_world(receivers=2)
    assert world.drain(finish=False)
    assert [receiver.got for receiver in world.receivers] == [[], ["1b"]]


def test_a_chunk_that_the_state_covers_is_not_read_again(make_world: Any) -> None:
    """The agent was killed between the state and the chunk's end."""
    world = make_world()
    covered = world.chunk("1")
    world.chunk("2")
    world.spool.write_state(f"0\n1\n\n{world.spool.chunks()[0]}\noutbox/7".encode())
    resume(world.spool, world.outbox, world.relay)
    assert not covered.exists()
    assert world.outbox.next_number == 7
    assert world.drain()
    assert world.relay.reads == ["0", "1", "2"]
    assert world.receivers[0].got == ["2a", "2b", "open"]


def test_a_batch_that_the_state_does_not_cover_is_made_anew(make_world: Any) -> None:
    """The agent was killed between the batch and the state."""
    world = make_world()
    world.chunk("1")
    assert world.drain(finish=False)
    writer = world.outbox.begin()
    writer.add(b"of a chunk that will be read again", 1)
    assert writer.complete() is not None
    world = make_world()
    assert world.drain(finish=False)
    assert world.receivers[0].got == []


def test_a_damaged_state_is_said_and_done_without(
    make_world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    world = make_world()
    world.receivers[0].refuses = {"1a"}
    world.chunk("1")
    world.run_until("relayed", lambda: world.outbox.count == 1)
    world.spool.write_state(b"damaged")
    world = make_world()
    assert "spans that were open when the last agent ended are lost: damaged" in caplog.text
    assert world.drain()
    assert world.receivers[0].got == ["1a", "1b", "open"]


def test_a_full_disk_is_waited_out(
    make_world: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it fills up: no request is lost, none comes twice, no chunk is read twice."""
    world = make_world()
    full = True
    failed = set()

    def failing(name: str, method: Any) -> Any:
        def call(*arguments: Any) -> Any:
            if full or name not in failed:
                failed.add(name)
                raise OSError(28, "No space left on device")
            return method(*arguments)

        return call

    for owner, name in ((BatchWriter, "add"), (BatchWriter, "complete"), (Spool, "write_state")):
        monkeypatch.setattr(owner, name, failing(name, getattr(owner, name)))
    chunk = world.chunk("1")

    def is_stuck() -> bool:
        nonlocal full
        if "add" in failed:
            full = False
        return world.receivers[0].got == ["1a", "1b"]

    world.run_until("delivered", is_stuck)
    assert failed == {"add", "complete", "write_state"}
    assert world.drain(finish=False)
    assert world.receivers[0].got == ["1a", "1b"]
    assert world.relay.reads == ["1"]
    assert not chunk.exists()
    assert caplog.text.count("No space left on device") == 1


def test_what_others_send_is_acknowledged_once_the_next_agent_would_send_it(
    make_world: Any,
) -> None:
    world = make_world()
    world.receivers[0].refuses = {"o"}
    world.others.send(b"o")
    world.run_until("acknowledged", lambda: world.others.acknowledged == [b"o"])
    world = make_world()
    assert world.drain(finish=False)
    assert world.receivers[0].got == ["o"]


def test_the_data_plane_knows_whose_processes_spans_are_of(make_world: Any) -> None:
    world = make_world()
    world.chunk("1")
    world.others.send(b"o")
    world.run_until("all", lambda: {"1a", "o"} <= set(world.receivers[0].got))
    assert world.drain(finish=True)
    assert dict(world.others.passed) == {
        b"o": False,
        **dict.fromkeys((b"1a", b"1b", b"open"), True),
    }


def test_what_others_send_does_not_wait_for_all_chunks(make_world: Any) -> None:
    world = make_world()
    for number in range(3):
        world.chunk(str(number))
    acknowledged_after: list[int] = []
    read = world.relay.read

    def read_and_send(path: Path) -> Iterator[FakeRequest]:
        acknowledged_after.append(len(world.others.acknowledged))
        world.others.send(b"o%d" % len(acknowledged_after))
        return read(path)

    world.relay.read = read_and_send
    world.run_until("all", lambda: len(world.others.acknowledged) == 3)
    assert acknowledged_after == [0, 1, 2]


def test_nothing_is_acknowledged_on_a_full_disk(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    tried = threading.Event()
    write = Spool.write_state

    def fail(*arguments: Any) -> None:
        tried.set()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spool, "write_state", fail)
    world.others.send(b"o")

    def room_again() -> bool:
        if tried.is_set():
            assert world.others.acknowledged == [] or Spool.write_state is write
            monkeypatch.setattr(Spool, "write_state", write)
        return bool(world.others.acknowledged)

    world.run_until("acknowledged", room_again)
    assert world.drain(finish=False)
    assert world.receivers[0].got == ["o"]


def test_what_ends_a_sender_ends_the_agent(make_world: Any) -> None:
    world = make_world()

    def send(request: bytes, timeout_s: float) -> int:
        raise ExportError("no such thing")

    world.receivers[0].send = send
    world.chunk("1")
    world.start()
    with pytest.raises(ExportError):
        world.agent.run()


def test_the_oldest_goes_and_is_counted(make_world: Any, caplog: pytest.LogCaptureFixture) -> None:
    world = make_world(receivers=2, limits=Limits(max_bytes=100))
    world.receivers[1].refuses = {"0a"}
    for number in range(6):
        world.chunk(str(number))
    world.run_until(
        "others are sent",
        lambda: world.receivers[0].got[-1:] == world.receivers[1].got[-1:] == ["5b"],
    )
    got = [receiver.got for receiver in world.receivers]
    dropped = [cursor.dropped for cursor in world.outbox.cursors]
    assert dropped == [120 - 10 * len(each) for each in got]
    assert dropped[1] >= 20  # the first batch: it was refused until it went
    assert "0a" not in got[1]
    assert world.room.dropped.batches > 0
    assert caplog.text.count("is full") == 1
