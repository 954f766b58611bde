# SPDX-License-Identifier: Apache-2.0
"""How a request to stop reaches a loop that waits: at once, and with the time that is left to finish."""

from __future__ import annotations

import os
import select
import time


class Stop:
    """Waits that a request to stop cuts short; `request` may be called from a signal handler or another thread.

    A pipe and not threading.Event: a signal handler runs in the thread that waits, and would wait for the lock that
    the interrupted Event.wait holds.
    """

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._requests = 0
        self._deadline_s = 0.0

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self._read_fd)
        os.close(self._write_fd)

    def request(self) -> None:
        """Stop at the next opportunity; asked a second time: without finishing anything."""
        self._requests += 1
        os.write(self._write_fd, b"!")

    def allow(self, drain_s: float) -> None:
        """After a request: take this long for what is left."""
        self._deadline_s = time.monotonic() + drain_s

    @property
    def requested(self) -> bool:
        """Has anybody asked?"""
        return self._requests > 0

    @property
    def expired(self) -> bool:
        """Is there no time left?"""
        return self.within(1.0) <= 0

    def within(self, wanted_s: float) -> float:
        """At most `wanted_s`, and not beyond the time that is left."""
        if not self._requests:
            return wanted_s
        if self._requests > 1:
            return 0.0
        return max(0.0, min(wanted_s, self._deadline_s - time.monotonic()))

    def wait(self, wanted_s: float) -> None:
        """Sleep, but not past the time that is left; wakes up when a request arrives."""
        if select.select([self._read_fd], [], [], self.within(wanted_s))[0]:
            os.read(self._read_fd, 64)
