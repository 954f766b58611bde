# SPDX-License-Identifier: Apache-2.0
"""A lock that tells the trace who waits for whom."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import k8s_tracing


class QueueLock:
    """First come, first served. The current span learns who was before and who waits behind."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[_Ticket] = deque()  # the first one holds the lock

    @contextmanager
    def held_by(self, name: str) -> Iterator[None]:
        span = k8s_tracing.current_span()
        ticket = _Ticket(name)
        try:
            with self._changed:
                before = [other.name for other in self._queue]
                self._queue.append(ticket)
                if before:
                    span.add_event(
                        f"Waiting for lock behind {len(before)} transactions", {"blockers": before}
                    )
                self._changed.wait_for(lambda: self._queue[0] is ticket)
                behind = [other.name for other in self._queue if other is not ticket]
            span.add_event(
                f"Acquired lock; {len(behind)} transactions waiting behind", {"waiters": behind}
            )
            yield
        finally:
            # Also when the wait was broken off: a ticket left behind would stop the queue for good.
            with self._changed:
                self._queue.remove(ticket)
                self._changed.notify_all()


class _Ticket:
    """One turn in the queue; two requests of the same name are still two turns."""

    def __init__(self, name: str) -> None:
        self.name = name
