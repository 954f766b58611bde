# SPDX-License-Identifier: Apache-2.0
"""The agent's loop: a finished chunk is read, its spans are delivered, and only then it is deleted.

Before it is deleted, what the relay keeps of it for later chunks (open spans, and who recorded them) is put on disk.
A kill at any moment leaves the chunk that was being worked on where it is, and the next agent reads it again with what
was known before it. So what is sent twice is at most that chunk.
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

    def save(self, chunks: Iterable[str]) -> bytes:
        """What it knows, for an agent that goes on with it; these chunks are covered."""

    def restore(self, state: bytes) -> None:
        """Go on with what another one knew."""

    @property
    def chunks(self) -> frozenset[str]:
        """What the restored state covers."""


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

    def resume(self) -> None:
        """Go on where an agent that was killed, or could not send all in time, left off; before `run`."""
        state = self._spool.read_state()
        if state is None:
            return
        try:
            self._relay.restore(state)
        except RelayError as error:
            log.warning(
                "spans that were open when the last agent ended are lost: %s; going on without",
                error,
            )
            return
        for chunk in self._spool.chunks():
            if str(chunk) in self._relay.chunks:
                self._spool.delete(chunk)

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
        self._spool.forget_state()
        return True

    def _deliver_chunks(self) -> bool:
        """Deliver every chunk that is there; False if time ran out."""
        if self._work is not None and not self._go_on():
            return False
        for chunk in self._spool.chunks():
            if self._stop.expired:
                return False
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
            self._spool.write_state(self._relay.save([]))
            log.error("a chunk cannot be read in full and is kept in %s: %s", place, error)
            return True
        self._work = None
        if work.chunk is not None:
            self.counts.chunks += not work.chunk.is_empty
            self._spool.write_state(self._relay.save([str(work.chunk)]))
            self._spool.delete(work.chunk)
        return True


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
