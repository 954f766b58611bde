# SPDX-License-Identifier: Apache-2.0
"""How much disk the spool may take, and what goes when it takes more: the oldest, counted.

A batch of the outbox is older than every chunk that is not read yet, so batches go first. The newest batch and the
newest chunk stay: they are what is being worked on, and with them the agent goes on however little room there is.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from k8s_tracing.agent.outbox import Outbox
from k8s_tracing.agent.spool import Spool

log = logging.getLogger(__name__)

# A tenth of the file system, as the kubelet evicts pods when a tenth is left (nodefs.available<10%), and no more than
# ten minutes of 20,000 spans/s need several times over.
SHARE = 0.1
MOST_BYTES = 10 << 30
# What stays free for others and for the chunk that LTTng is writing.
RESERVE_SHARE = 0.05
MOST_RESERVE_BYTES = 1 << 30
MAX_AGE_S = 24 * 3600.0

# An episode of dropping is over when nothing was dropped for this long.
_EPISODE_S = 60.0


@dataclass(frozen=True)
class Limits:
    """What the spool may take.

    Attributes:
        max_bytes: In all.
        max_age_s: Spans that have waited longer go.
        reserve_bytes: So much of the file system stays free; the spool gives way to others.
    """

    max_bytes: int
    max_age_s: float = MAX_AGE_S
    reserve_bytes: int = 0


def limits_for(
    folder: Path, max_bytes: int | None = None, max_age_s: float | None = None
) -> Limits:
    """The limits for a spool in this folder; what is not given follows from the size of its file system."""
    total = shutil.disk_usage(folder).total
    return Limits(
        min(int(total * SHARE), MOST_BYTES) if max_bytes is None else max_bytes,
        MAX_AGE_S if max_age_s is None else max_age_s,
        min(int(total * RESERVE_SHARE), MOST_RESERVE_BYTES),
    )


@dataclass
class Dropped:
    """What there was no room for. The spans of a batch are counted by each endpoint's cursor.

    Attributes:
        batches: Encoded chunks.
        chunks: Chunks that nobody had read: what spans they held is not known.
        size_bytes: Of both.
    """

    batches: int = 0
    chunks: int = 0
    size_bytes: int = 0


class Room:
    """Keeps a spool and its outbox within limits.

    Args:
        free_bytes: Asks how much of the file system is free.
    """

    def __init__(
        self,
        spool: Spool,
        outbox: Outbox,
        limits: Limits,
        *,
        free_bytes: Callable[[], int] | None = None,
    ) -> None:
        self.limits = limits
        self.dropped = Dropped()
        self._spool = spool
        self._outbox = outbox
        self._free_bytes = free_bytes or (lambda: shutil.disk_usage(spool.root).free)
        self._episode_s: float | None = None
        self._last_s = 0.0
        self._before = Dropped()

    @property
    def is_full(self) -> bool:
        """Had something to be dropped a moment ago?"""
        return self._episode_s is not None

    def make(self) -> None:
        """Drop the oldest until all is within the limits."""
        chunks = self._spool.chunks()
        chunks_bytes = sum(chunk.size_bytes for chunk in chunks)
        used = chunks_bytes + self._outbox.size_bytes + self._spool.bad_bytes()
        allowed = min(self.limits.max_bytes, used + self._free_bytes() - self.limits.reserve_bytes)
        oldest_s = time.time() - self.limits.max_age_s
        while (batch := self._outbox.oldest()) is not None:
            if used <= allowed and batch.written_s >= oldest_s:
                break
            self._outbox.drop(batch)
            used -= batch.size_bytes
            self._count("batches", batch.size_bytes)
        for chunk in chunks[1:-1]:  # the first is in hand
            if used <= allowed and chunk.written_s >= oldest_s:
                break
            size_bytes = chunk.size_bytes
            self._spool.delete(chunk)
            used -= size_bytes
            self._count("chunks", size_bytes)
        self._end_episode()

    def _count(self, what: str, size_bytes: int) -> None:
        now_s = time.monotonic()
        if self._episode_s is None:
            self._episode_s = now_s
            self._before = Dropped(**vars(self.dropped))
            log.warning(
                "the spool %s is full (limits: %.1f MB, %.0f h, and %.1f MB of the disk stay free): "
                "the oldest spans are dropped until endpoints take them again or there is more room",
                self._spool.root,
                self.limits.max_bytes / 1e6,
                self.limits.max_age_s / 3600,
                self.limits.reserve_bytes / 1e6,
            )
        self._last_s = now_s
        setattr(self.dropped, what, getattr(self.dropped, what) + 1)
        self.dropped.size_bytes += size_bytes

    def _end_episode(self) -> None:
        if self._episode_s is None or time.monotonic() - self._last_s < _EPISODE_S:
            return
        log.warning(
            "the spool has room again: in %.0f s, %d batches and %d chunks (%.1f MB) were dropped",
            self._last_s - self._episode_s,
            self.dropped.batches - self._before.batches,
            self.dropped.chunks - self._before.chunks,
            (self.dropped.size_bytes - self._before.size_bytes) / 1e6,
        )
        self._episode_s = None
