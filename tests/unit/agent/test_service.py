"""The loop: chunk in, requests out, and what stays on disk when."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from k8s_tracing.agent.export import Delivery
from k8s_tracing.agent.otlp_answer import RetryableError
from k8s_tracing.agent.service import Agent
from k8s_tracing.agent.spool import Spool
from k8s_tracing.agent.stopping import Stop
from k8s_tracing.errors import RelayError
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

    def read_nothing(self) -> Iterator[FakeRequest]:
        yield FakeRequest(b"late", 1)

    def finish(self) -> Iterator[FakeRequest]:
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

    name = "receiver"

    def __init__(self) -> None:
        self.got: list[str] = []
        self.refuses: set[str] = set()

    def send(self, request: bytes, timeout_s: float) -> int:
        if request.decode() in self.refuses:
            raise RetryableError("down")
        self.got.append(request.decode())
        return 0

    def close(self) -> None:
        pass


class World:
    session: Path

    def __init__(self, root: Path, receivers: int) -> None:
        self.stop = Stop()
        self.spool = Spool(root)
        self.relay = FakeRelay()
        self.receivers = [Receiver() for _ in range(receivers)]
        deliveries = [Delivery(each, self.stop, jitter=lambda: 0.01) for each in self.receivers]
        self.agent = Agent(self.spool, self.relay, deliveries, self.stop, poll_s=0.01)
        self.number = 0

    def chunk(self, content: str | None) -> Path:
        folder = self.session / "archives" / f"x-{self.number}"
        self.number += 1
        folder.mkdir(parents=True)
        if content is not None:
            (folder / "metadata").write_text(content)
        return folder

    def run_until(self, what: str, condition: Any) -> None:
        thread = threading.Thread(target=self.agent.run)
        thread.start()
        try:
            wait_for(what, condition)
        finally:
            self.stop.request()
            thread.join()
        self.stop.allow(30.0)


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Any]:
    worlds: list[World] = []

    def make(receivers: int = 1) -> World:
        world = World(tmp_path, receivers)
        world.spool.__enter__()
        world.session = world.spool.new_session()
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.spool.__exit__(None, None, None)
        world.stop.close()


def test_chunks_are_delivered_and_deleted(make_world: Any) -> None:
    world = make_world(receivers=2)
    first = world.chunk("1")
    world.chunk("2")
    world.run_until("no chunks", lambda: not world.spool.chunks())
    assert not first.exists()
    assert world.agent.drain()
    for receiver in world.receivers:
        assert receiver.got == ["1a", "1b", "2a", "2b", "open"]
    counts = world.agent.counts
    assert (counts.spans, counts.chunks, counts.bad_chunks) == (41, 2, 0)


def test_an_empty_chunk_brings_what_waited_for_a_later_one(make_world: Any) -> None:
    world = make_world()
    world.chunk("1")
    empty = world.chunk(None)
    assert world.agent.drain()
    assert not empty.exists()
    assert world.receivers[0].got == ["1a", "1b", "late", "open"]
    assert world.agent.counts.chunks == 1


def test_a_bad_chunk_does_not_hold_up_the_next(make_world: Any) -> None:
    world = make_world()
    world.chunk("broken")
    world.chunk("2")
    world.run_until("no chunks", lambda: not world.spool.chunks())
    assert world.receivers[0].got == ["brokena", "2a", "2b"]
    assert world.agent.counts.bad_chunks == 1
    assert len(list((world.spool.root / "bad").iterdir())) == 1


def test_nothing_is_deleted_before_it_is_acknowledged(make_world: Any) -> None:
    world = make_world(receivers=2)
    world.receivers[1].refuses = {"1b"}
    chunk = world.chunk("1")
    world.run_until("first request", lambda: "1b" in world.receivers[0].got)
    assert chunk.exists()
    assert world.receivers[1].got == ["1a"]


def test_what_was_interrupted_goes_on_where_it_was(make_world: Any) -> None:
    world = make_world(receivers=2)
    world.receivers[1].refuses = {"1b"}
    chunk = world.chunk("1")
    world.chunk("2")
    world.run_until("first request", lambda: "1b" in world.receivers[0].got)
    world.receivers[1].refuses = set()
    assert world.agent.drain()
    assert not chunk.exists()
    assert world.relay.reads == ["1", "2"]
    for receiver in world.receivers:
        assert receiver.got == ["1a", "1b", "2a", "2b", "open"]


def test_a_drain_has_an_end(make_world: Any) -> None:
    world = make_world()
    world.receivers[0].refuses = {"1a"}
    chunk = world.chunk("1")
    world.stop.request()
    world.stop.allow(0.3)
    assert not world.agent.drain()
    assert chunk.exists()
    assert world.receivers[0].got == []


def test_the_state_is_on_disk_before_a_chunk_is_deleted(make_world: Any) -> None:
    world = make_world()
    world.chunk("1")
    second = world.chunk("2")
    world.receivers[0].refuses = {"2b"}
    world.run_until("second chunk", lambda: "2a" in world.receivers[0].got)
    state = world.spool.read_state()
    assert state is not None
    assert state.startswith(b"1\n\n")
    world.receivers[0].refuses = set()
    assert world.agent.drain()
    assert not second.exists()
    assert world.spool.read_state() is None


def test_a_chunk_that_the_state_covers_is_not_read_again(make_world: Any) -> None:
    """The agent was killed between the state and the chunk's end."""
    world = make_world()
    covered = world.chunk("1")
    world.chunk("2")
    world.spool.write_state(f"0\n1\n\n{world.spool.chunks()[0]}".encode())
    world.agent.resume()
    assert not covered.exists()
    assert world.agent.drain()
    assert world.relay.reads == ["0", "1", "2"]
    assert world.receivers[0].got == ["2a", "2b", "open"]


def test_a_damaged_state_is_said_and_done_without(
    make_world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    world = make_world()
    world.chunk("1")
    world.spool.write_state(b"damaged")
    world.agent.resume()
    assert "spans that were open when the last agent ended are lost: damaged" in caplog.text
    assert world.agent.drain()
    assert world.receivers[0].got == ["1a", "1b", "open"]
