# SPDX-License-Identifier: Apache-2.0
"""Which of the processes that record have ended, and when all that they recorded has been read."""

from __future__ import annotations

import errno
import logging
import math
import os
import select
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from k8s_tracing.agent.processes import Found, Proc
from k8s_tracing.agent.relay import Process
from k8s_tracing.procfs import start_ticks

log = logging.getLogger(__name__)

# A descriptor for each would be too many on a full node.
_PIDFDS_MAX = 256


class Lifetimes:
    """Watches processes; use it from one thread, and close it.

    A process's end is noticed by a pidfd, or by its start time in /proc being another one; it is certain that all that
    it recorded has been read when the chunks that were there, and one more, have been.

    Args:
        proc: Where they are found.
        every_s: How often they are looked at.
    """

    def __init__(self, proc: Proc, *, every_s: float = 1.0) -> None:
        self._proc = proc
        self._every_s = every_s
        self._looked_s = -math.inf
        self._alive: dict[int, _Watched] = {}
        #: How many chunks must have been read until it is certain.
        self._ended: dict[int, int] = {}
        self._new: list[int] = []

    def watch(self, process: Process) -> None:
        """Watch a process that was announced; one that is not there any more has ended."""
        if process.instance_id in self._alive or process.instance_id in self._ended:
            return
        found = self._proc.find(process)
        if found is not None:
            watched = _Watched(self._proc.root, found)
            if len(self._alive) < _PIDFDS_MAX:
                watched.open_pidfd()
            self._alive[process.instance_id] = watched
        elif self._proc.is_gone(process):
            self._new.append(process.instance_id)

    def ended(self, read: int, unread: Callable[[], int]) -> Iterable[int]:
        """Return the processes that have ended and of which there is nothing left to be read.

        Args:
            read: How many chunks have been read.
            unread: Counts those that lie there.
        """
        now_s = time.monotonic()
        if now_s - self._looked_s >= self._every_s:
            self._looked_s = now_s
            self._look()
        if self._new:
            until = read + unread() + 1
            self._ended |= dict.fromkeys(self._new, until)
            self._new = []
        certain = [instance_id for instance_id, until in self._ended.items() if read >= until]
        for instance_id in certain:
            del self._ended[instance_id]
        return certain

    def _look(self) -> None:
        for instance_id, watched in list(self._alive.items()):
            if not watched.is_alive():
                watched.close()
                del self._alive[instance_id]
                self._new.append(instance_id)

    def close(self) -> None:
        """Watch nobody any longer."""
        for watched in self._alive.values():
            watched.close()
        self._alive = {}


class _Watched:
    def __init__(self, root: Path, found: Found) -> None:
        self._folder = root / str(found.pid)
        self._pid = found.pid
        self._own = root == Path("/proc")  # else the number may be another process's here
        self._pidfd: int | None = None
        self._started = start_ticks(self._folder)

    def open_pidfd(self) -> None:
        if not self._own or not hasattr(os, "pidfd_open"):
            return
        try:
            self._pidfd = os.pidfd_open(self._pid)
        except OSError as error:
            if error.errno not in (errno.ESRCH, errno.ENOSYS, errno.EPERM):
                log.debug("no pidfd for process %d: %s", self._pid, error.strerror)

    def is_alive(self) -> bool:
        if self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            return not poll.poll(0)
        return self._started is not None and start_ticks(self._folder) == self._started

    def close(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
