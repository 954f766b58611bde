# SPDX-License-Identifier: Apache-2.0
"""The agent's loop: a finished chunk is read once, its requests go to the outbox, and only then it is deleted.

For each chunk, in this order: its requests are written to a batch of the outbox; the relay's state, which covers the
chunk and the batch, replaces the one before; the batch is published, from when on endpoints are sent it; the chunk is
deleted. After a kill before the new state, the chunk is read again from the state before it, and its first batch, which
nobody was sent, is removed. After a kill later than that, nothing is read again.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from k8s_tracing.agent.batch import Batch, BatchWriter
from k8s_tracing.agent.outbox import Outbox
from k8s_tracing.agent.protocols import DataPlane, Relay, Request
from k8s_tracing.agent.room import Room
from k8s_tracing.agent.sender import Sender
from k8s_tracing.agent.spool import Chunk, Spool
from k8s_tracing.agent.stopping import Stop
from k8s_tracing.errors import RelayError

log = logging.getLogger(__name__)

POLL_S = 0.1
ROOM_S = 1.0  # how often the spool's size is looked at where nothing is added
DRAIN_S = 10.0

_BATCHES_BELOW = "outbox/"


@dataclass
class Counts:
    """What the agent did since its start.

    Attributes:
        spans: That the relay made, unfinished ones too.
        chunks: That were read and were not empty.
        relay_s: What reading them took.
    """

    spans: int = 0
    chunks: int = 0
    empty_chunks: int = 0
    bad_chunks: int = 0
    relay_s: float = 0.0


class Agent:
    """Moves spans from a spool's chunks to its outbox, and the outbox to endpoints.

    Args:
        spool: Where finished chunks appear.
        relay: Makes requests of them.
        outbox: Where requests wait for the endpoints.
        senders: One for each endpoint.
        room: Keeps both within limits.
        stop: Ends `run`.
        data_plane: Where spans come from as well, and what is known of connections.
        on_turn: Called after every chunk and every look into the spool.

    Attributes:
        on_cut_off: Called when a chunk cannot be read in full after the disk was full: LTTng up to 2.14 may then write
            nothing more of that user's buffers, in any chunk.
    """

    def __init__(
        self,
        spool: Spool,
        relay: Relay,
        outbox: Outbox,
        senders: Sequence[Sender],
        room: Room,
        stop: Stop,
        *,
        data_plane: DataPlane | None = None,
        poll_s: float = POLL_S,
        on_turn: Callable[[Counts], None] = lambda counts: None,
    ) -> None:
        self.counts = Counts()
        self._spool = spool
        self._relay = relay
        self._outbox = outbox
        self._senders = senders
        self._room = room
        self._stop = stop
        self._data_plane = data_plane
        self._poll_s = poll_s
        self._on_turn = on_turn
        self.on_cut_off: Callable[[], None] = lambda: None
        self._work: _Work | None = None
        self._stuck = False

    def run(self) -> None:
        """Relay chunks as they appear, until asked to stop.

        Raises:
            Exception: What ended a sender.
        """
        room_s, room_chunks = -math.inf, 0
        while not self._stop.requested:
            self._relay_chunks()
            # At once after what was added: the next chunk needs room, too.
            added = self.counts.chunks != room_chunks
            if added or self._stuck or time.monotonic() - room_s >= ROOM_S:
                self._room.make()
                room_s, room_chunks = time.monotonic(), self.counts.chunks
            self._on_turn(self.counts)
            for sender in self._senders:
                if sender.error is not None:
                    raise sender.error
            # What cannot be written yet is tried again after a while, not at once.
            wakes = () if self._data_plane is None or self._stuck else (self._data_plane,)
            self._stop.wait(self._poll_s, wakes)

    def drain(self, *, finish: bool) -> bool:
        """After the session's end: relay what is left, and let the senders send all of it.

        Args:
            finish: Send the spans that have no end, too, as unfinished. Otherwise the next agent goes on with them.

        Returns:
            False if time ran out; what was not delivered is still on disk.
        """
        if self._data_plane is not None:
            self._data_plane.stop()
        relayed = self._relay_chunks()
        if relayed:
            left = self._relay.finish(unfinished=finish)
            self._work = _Work(None, iter(left), self._outbox.begin())
            relayed = self._go_on()
        self._outbox.finish()
        sent = [sender.join() for sender in self._senders]
        return relayed and all(sent)

    def _relay_chunks(self) -> bool:
        """Relay every chunk that is there; False if time ran out, or the disk is full."""
        if self._work is not None and not self._go_on():
            return False
        # First, so that what the spans of the chunks are joined with is known.
        if not self._relay_data_plane():
            return False
        for chunk in self._spool.chunks():
            if self._stop.expired or not self._relay_data_plane():
                return False
            if not chunk.path.exists():
                continue  # there was no room for it
            read = self._relay.read_nothing if chunk.is_empty else self._relay.read
            self._work = _Work(chunk, iter(read(chunk.path)), self._outbox.begin())
            if not self._go_on():
                return False
            self._on_turn(self.counts)
        return True

    def _relay_data_plane(self) -> bool:
        """Relay what the data plane has; False if the disk is full."""
        if self._data_plane is None:
            return True
        requests = list(self._data_plane.collect())
        if not requests:
            return True
        self._work = _Work(
            None,
            iter(requests),
            self._outbox.begin(),
            self._data_plane.published,
            is_local=False,
        )
        return self._go_on()

    def _go_on(self) -> bool:
        """Relay the rest of the chunk in hand; False if the disk is full, and then it stays in hand.

        It is not read anew: the relay would see every event of it twice.
        """
        work = self._work
        assert work is not None
        begin_s = time.monotonic()
        was_stuck = self._stuck
        try:
            if not self._write(work):
                return False
        finally:
            self.counts.relay_s += time.monotonic() - begin_s
        self._work = None
        self.counts.spans += work.writer.spans
        if work.batch is not None:
            self._outbox.publish(work.batch)
        work.on_published()
        chunk = work.chunk
        if chunk is None:
            return True
        if work.error is not None:
            place = self._spool.set_aside(chunk)
            self.counts.bad_chunks += 1
            if was_stuck or self._room.is_full:
                self.on_cut_off()
            log.error("a chunk cannot be read in full and is kept in %s: %s", place, work.error)
            return True
        self.counts.chunks += not work.was_empty
        self.counts.empty_chunks += work.was_empty
        self._spool.delete(chunk)
        return True

    def _write(self, work: _Work) -> bool:
        """Bring the chunk in hand into the outbox and the state; False if the disk is full."""
        try:
            while (request := work.next_request()) is not None:
                body, added = request.body, 0
                if self._data_plane is not None:
                    body, added = self._data_plane.pass_on(body, is_local=work.is_local)
                work.writer.add(body, request.spans + added)
                work.request = None
            work.batch = work.writer.complete()
            if work.batch is not None or not work.was_empty:
                next_batch = work.writer.number + (work.batch is not None)
                self._spool.write_state(self._relay.save(_covers(work.chunk, next_batch)))
        except OSError as error:
            if not self._stuck:
                self._stuck = True
                log.error(
                    "cannot write to the spool %s (%s): nothing is sent until that works again",
                    self._spool.root,
                    error.strerror,
                )
            return False
        if self._stuck:
            self._stuck = False
            log.info("the spool can be written again")
        return True


def resume(spool: Spool, outbox: Outbox, relay: Relay) -> None:
    """Go on where an earlier run was, however it ended.

    Raises:
        OSError: The spool cannot be used.
    """
    next_batch = None
    state = spool.read_state()
    if state is not None:
        try:
            relay.restore(state)
        except RelayError as error:
            log.warning(
                "spans that were open when the last agent ended are lost: %s; going on without",
                error,
            )
        else:
            covered = [name for name in relay.chunks if name.startswith(_BATCHES_BELOW)]
            next_batch = int(covered[0].removeprefix(_BATCHES_BELOW)) if covered else None
            for chunk in spool.chunks():
                if str(chunk) in relay.chunks:
                    spool.delete(chunk)
    outbox.open(next_batch)


def _covers(chunk: Chunk | None, next_batch: int) -> list[str]:
    """What is noted in the relay's state: the chunk that it was made after, and which batches of the outbox count."""
    batches = f"{_BATCHES_BELOW}{next_batch}"
    return [batches] if chunk is None else [str(chunk), batches]


class _Work:
    """A chunk that is being relayed.

    Attributes:
        request: What the relay made and the outbox does not have yet.
        on_published: Called once all of it is on disk.
        is_local: Its spans are of this node's processes.
        error: What cannot be read of the chunk.
        batch: Its requests, once all of them are on disk.
    """

    def __init__(
        self,
        chunk: Chunk | None,
        requests: Iterator[Request],
        writer: BatchWriter,
        on_published: Callable[[], None] = lambda: None,
        *,
        is_local: bool = True,
    ) -> None:
        self.chunk = chunk
        self.is_local = is_local
        self.on_published = on_published
        self.was_empty = chunk is not None and chunk.is_empty
        self.writer = writer
        self.request: Request | None = None
        self.error: RelayError | None = None
        self.batch: Batch | None = None
        self._requests = requests

    def next_request(self) -> Request | None:
        """Take the next request in hand, unless one is; None if there are no more."""
        if self.request is None:
            try:
                self.request = next(self._requests, None)
            except RelayError as error:
                if self.chunk is None:
                    raise
                self.error = error
        return self.request
