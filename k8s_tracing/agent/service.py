# SPDX-License-Identifier: Apache-2.0
"""The agent's loop: a finished chunk is read, its spans are delivered, and only then it is deleted.

A kill at any moment leaves the chunk that was being worked on where it is, and the next agent sends all of it. So what
is sent twice is at most that chunk, and the last few before it while the relay keeps spans of them back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from k8s_tracing.agent.export import Delivery
from k8s_tracing.agent.spool import Chunk, Spool
from k8s_tracing.agent.stopping import Stop
from k8s_tracing.errors import RelayError

log = logging.getLogger(__name__)

POLL_S = 0.1
DRAIN_S = 10.0

# What the relay keeps back stays on disk, but not for ever where no later chunk comes to complete it.
_MAX_HELD_CHUNKS = 60


class Request(Protocol):
    """An encoded OTLP request."""

    @property
    def body(self) -> bytes:
        """An ExportTraceServiceRequest."""

    @property
    def spans(self) -> int:
        """How many spans it has."""


class Relay(Protocol):
    """What makes requests of chunks; agent/relay.py."""

    def read(self, path: Path) -> Iterable[Request]:
        """Read one chunk."""

    def read_nothing(self) -> Iterable[Request]:
        """Take note of a chunk without traces: time goes on."""

    def finish(self) -> Iterable[Request]:
        """Hand out what is still open."""

    @property
    def held_chunks(self) -> int:
        """Of how many of the chunks that were read last does it keep ended spans back for the next one?"""


@dataclass
class Counts:
    """What the agent did since its start."""

    spans: int = 0
    chunks: int = 0
    bad_chunks: int = 0


class Agent:
    """Moves chunks from a spool to destinations.

    Args:
        spool: Where finished chunks appear.
        relay: Makes requests of them.
        deliveries: Where requests go; each gets every one.
        stop: Ends `run`.
        on_progress: Called after every chunk and every look into the spool.
    """

    def __init__(
        self,
        spool: Spool,
        relay: Relay,
        deliveries: Sequence[Delivery],
        stop: Stop,
        *,
        poll_s: float = POLL_S,
        on_progress: Callable[[Counts], None] = lambda counts: None,
    ) -> None:
        self.counts = Counts()
        self._spool = spool
        self._relay = relay
        self._deliveries = deliveries
        self._stop = stop
        self._poll_s = poll_s
        self._on_progress = on_progress
        self._work: _Work | None = None
        # Delivered, but for what the relay keeps back; None stands for one that was set aside.
        self._read: list[Chunk | None] = []

    def run(self) -> None:
        """Deliver chunks as they appear, until asked to stop."""
        while not self._stop.requested:
            self._deliver_chunks()
            self._on_progress(self.counts)
            self._stop.wait(self._poll_s)

    def drain(self) -> bool:
        """After the session's end: deliver what is left, then the spans that have no end.

        Returns:
            False if time ran out; what was not delivered is still on disk.
        """
        if not self._deliver_chunks():
            return False
        self._work = _Work(None, iter(self._relay.finish()))
        if not self._go_on():
            return False
        self._delete_read(keep=0)
        return True

    def _deliver_chunks(self) -> bool:
        """Deliver every chunk that is there; False if time ran out."""
        if self._work is not None and not self._go_on():
            return False
        for chunk in self._spool.chunks():
            if self._stop.expired:
                return False
            if chunk in self._read:
                continue
            requests = (
                self._relay.read_nothing() if chunk.is_empty else self._relay.read(chunk.path)
            )
            self._work = _Work(chunk, iter(requests))
            if not self._go_on():
                return False
            self._on_progress(self.counts)
        return True

    def _go_on(self) -> bool:
        """Deliver the rest of the chunk in hand; False if time ran out, and then it stays in hand.

        It is not read anew: the relay would see every event of it twice.
        """
        work = self._work
        assert work is not None
        try:
            while work.next_request(self._deliveries):
                while work.waiting:
                    if not work.waiting[0].deliver(work.request.body, work.request.spans):
                        return False
                    del work.waiting[0]
                self.counts.spans += work.request.spans
                work.done = True
        except RelayError as error:
            self._work = None
            if work.chunk is None:
                raise
            place = self._spool.set_aside(work.chunk)
            self.counts.bad_chunks += 1
            self._read.append(None)
            log.error("a chunk cannot be read in full and is kept in %s: %s", place, error)
            return True
        self._work = None
        if work.chunk is not None:
            self._read.append(work.chunk)
            self.counts.chunks += not work.chunk.is_empty
            self._delete_read(keep=min(self._relay.held_chunks, _MAX_HELD_CHUNKS))
        return True

    def _delete_read(self, *, keep: int) -> None:
        while len(self._read) > keep:
            chunk = self._read.pop(0)
            if chunk is not None:
                self._spool.delete(chunk)


class _Work:
    """A chunk that is being delivered.

    Attributes:
        request: The one that is on its way.
        waiting: Who has not taken it yet.
        done: It is dealt with.
    """

    request: Request

    def __init__(self, chunk: Chunk | None, requests: Iterator[Request]) -> None:
        self.chunk = chunk
        self.waiting: list[Delivery] = []
        self.done = True
        self._requests = requests

    def next_request(self, deliveries: Sequence[Delivery]) -> bool:
        """Take the next request in hand, unless one is; False if there are no more."""
        if self.done:
            try:
                self.request = next(self._requests)
            except StopIteration:
                return False
            self.waiting = list(deliveries)
            self.done = False
        return True
