# SPDX-License-Identifier: Apache-2.0
"""From a spool to endpoints: relay, outbox, senders and limits, put together, and what the log says of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from k8s_tracing.agent.export import Delivery
from k8s_tracing.agent.health import Heartbeat
from k8s_tracing.agent.lifetime import Lifetimes
from k8s_tracing.agent.metrics import Sources
from k8s_tracing.agent.outbox import Outbox
from k8s_tracing.agent.progress import ProgressLine
from k8s_tracing.agent.protocols import DataPlane
from k8s_tracing.agent.relay import Relay, RelayStats
from k8s_tracing.agent.room import Room, limits_for
from k8s_tracing.agent.sender import Sender
from k8s_tracing.agent.service import Agent, resume
from k8s_tracing.agent.spool import Spool
from k8s_tracing.agent.stopping import Stop
from k8s_tracing.agent.supervisor import SessionStatus
from k8s_tracing.errors import AgentError

log = logging.getLogger(__name__)


class Pipeline:
    """Relays and sends from `run` to `drain`; a context manager.

    Args:
        lifetimes: Of the processes that record; None: what they left open is not looked for.
        data_plane: Where spans come from beside the spool.
        max_bytes: What the spool may take; None: what follows from the size of the disk. Likewise `max_age_s`.

    Attributes:
        heartbeat: Of its loop.
    """

    def __init__(
        self,
        spool: Spool,
        relay: Relay,
        deliveries: Sequence[Delivery],
        stop: Stop,
        progress: ProgressLine,
        *,
        data_plane: DataPlane | None = None,
        max_bytes: int | None = None,
        max_age_s: float | None = None,
        lifetimes: Lifetimes | None = None,
    ) -> None:
        self.heartbeat = Heartbeat()
        self._spool = spool
        self._relay = relay
        self._lifetimes = lifetimes
        self._stop = stop
        self._data_plane = data_plane
        self._progress = progress
        # A copy for other threads: the relay itself belongs to the one that reads.
        self._stats = relay.stats
        self._losses = relay.losses()
        self._limits = limits_for(spool.root, max_bytes, max_age_s)
        self._outbox = Outbox(spool.root, [delivery.exporter.name for delivery in deliveries])
        self._room = Room(spool, self._outbox, self._limits)
        self._deliveries = deliveries
        self._senders: list[Sender] = []
        self._agent: Agent

    def __enter__(self) -> Pipeline:
        try:
            resume(self._spool, self._outbox, self._relay)
        except OSError as error:
            raise AgentError(
                f"cannot use the spool {self._spool.root}: {error.strerror}. Choose another with --spool"
            ) from error
        if self._lifetimes is not None:
            for process in self._relay.processes():
                self._lifetimes.watch(process)
        self._senders = [
            Sender(delivery, cursor, self._outbox, self._stop)
            for delivery, cursor in zip(self._deliveries, self._outbox.cursors, strict=True)
        ]
        self._agent = Agent(
            self._spool,
            self._relay,
            self._outbox,
            self._senders,
            self._room,
            self._stop,
            data_plane=self._data_plane,
            on_turn=lambda counts: self.turned(),
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.clear()
        if not any(sender.is_alive for sender in self._senders):  # else one still uses it
            self._outbox.close()

    def start_log(self) -> None:
        """Say what the spool holds and may hold."""
        waiting = [self._outbox.behind(cursor) for cursor in self._outbox.cursors]
        log.info(
            "spool %s: %.1f MB at most, for %.0f h at most, %.1f MB of its disk stay free",
            self._spool.root,
            self._limits.max_bytes / 1e6,
            self._limits.max_age_s / 3600,
            self._limits.reserve_bytes / 1e6,
        )
        for sender, behind in zip(self._senders, waiting, strict=True):
            if behind.spans:
                log.info(
                    "an earlier run left %d spans for %s: they are sent first",
                    behind.spans,
                    sender.delivery.exporter.name,
                )

    def sources(
        self,
        session: SessionStatus,
        replaced_identities: Callable[[], int],
        ambiguous_identities: Callable[[], int],
    ) -> Sources:
        """Where /metrics finds its figures."""
        return Sources(
            counts=lambda: self._agent.counts,
            relay=lambda: self._stats,
            spool=self._spool,
            outbox=self._outbox,
            room=self._room,
            senders=self._senders,
            session=session,
            losses=lambda: self._losses,
            replaced_identities=replaced_identities,
            ambiguous_identities=ambiguous_identities,
            data_plane=self._data_plane,
        )

    def on_cut_off(self, call: Callable[[], None]) -> None:
        """Call this when the session may be damaged by a disk that was full."""
        self._agent.on_cut_off = call

    def run(self) -> None:
        """Relay and send until asked to stop.

        Raises:
            ExportError: An endpoint cannot be used at all.
        """
        for sender in self._senders:
            sender.start()
        if self._data_plane is not None:
            self._data_plane.start()
        self._agent.run()

    def drain(self, *, finish: bool) -> bool:
        """Relay and send what is left, in the time that the stop allows; see Agent.drain."""
        done = self._agent.drain(finish=finish)
        self._progress.clear()
        self._summarize(self._relay.stats)
        if done:
            if finish:
                self._spool.forget_state()
            return True
        left = self._spool.backlog()
        log.error(
            "%d chunks and the spans of %d more (%.1f MB) could not be sent in time and stay in %s: "
            "the next agent sends them",
            left.chunks,
            self._outbox.count,
            (left.size_bytes + self._outbox.size_bytes) / 1e6,
            self._spool.root,
        )
        return False

    def turned(self) -> None:
        """Note that the loop turned, and show how it goes."""
        self.heartbeat.beat()
        before, self._stats = self._stats, self._relay.stats
        if (self._stats.discarded_events, self._stats.lost_packets) != (
            before.discarded_events,
            before.lost_packets,
        ):
            self._losses = self._relay.losses()
        self._report_ended()
        if self._progress.due():
            waiting = self._spool.backlog()
            self._progress.show(
                spans=self._agent.counts.spans,
                chunks=waiting.chunks + self._outbox.count,
                backlog_bytes=waiting.size_bytes + self._outbox.size_bytes,
                lost=self._stats.discarded_events,
                dropped=max(sender.cursor.dropped for sender in self._senders),
            )

    def _report_ended(self) -> None:
        """What processes that have ended left open is unfinished."""
        if self._lifetimes is None:
            return
        counts = self._agent.counts
        read = counts.chunks + counts.empty_chunks + counts.bad_chunks
        for instance_id in self._lifetimes.ended(read, lambda: len(self._spool.chunks())):
            self._relay.process_gone(instance_id)

    def _summarize(self, stats: RelayStats) -> None:
        counts = self._agent.counts
        log.info(
            "%d spans from %d chunks; %d without an end, %d ends without a start; "
            "LTTng lost %d events; %d chunks could not be read, %d had no room",
            counts.spans,
            counts.chunks,
            stats.unfinished,
            stats.ends_without_start,
            stats.discarded_events,
            counts.bad_chunks,
            self._room.dropped.chunks,
        )
        for sender in self._senders:
            total, cursor = sender.delivery.total, sender.cursor
            log.info(
                "%s: %d spans accepted, %d refused, %d dropped",
                sender.delivery.exporter.name,
                total.accepted,
                total.refused,
                cursor.dropped + cursor.damaged,
            )
