# SPDX-License-Identifier: Apache-2.0
"""How a request to stop reaches loops that wait: at once, and with the time that is left to finish."""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Sequence
from typing import Protocol

# How long a thread that finishes its work sleeps before it looks how much time it has: `allow` can come while it does.
_SLICE_S = 0.2


class HasFileno(Protocol):
    """What select takes."""

    def fileno(self) -> int:
        """A file descriptor."""


class Stop:
    """Waits that a request to stop cuts short, in any number of threads; `request` may come from a signal handler.

    Pipes and not threading.Event: a signal handler runs in the thread that waits, and would wait for the lock that
    the interrupted Event.wait holds. A pipe each for the first and the second request: what was written stays there,
    so that every thread that waits sees it.
    """

    def __init__(self) -> None:
        self._pipes = [os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) for _ in range(2)]
        self._requests = 0
        self._deadline_s = math.inf

    def close(self) -> None:
        """Give the pipes back."""
        for pipe in self._pipes:
            for end in pipe:
                os.close(end)

    def request(self) -> None:
        """Stop at the next opportunity; asked a second time: without finishing anything."""
        if self._requests < len(self._pipes):
            os.write(self._pipes[self._requests][1], b"!")
        self._requests += 1

    def allow(self, drain_s: float) -> None:
        """After a request: take this long for what is left. Until then there is no limit."""
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

    def wait(self, wanted_s: float, wakes: Sequence[HasFileno] = ()) -> None:
        """Sleep, but not past the time that is left; wakes up when a request arrives, or one of `wakes` is readable."""
        until_s = time.monotonic() + wanted_s
        asked = self._requests
        while self._requests == asked:
            left_s = self.within(until_s - time.monotonic())
            if left_s <= 0:
                return
            # After the first request the rest of a wait goes on in slices, and the second one ends it.
            pipe = self._pipes[min(asked, 1)][0]
            slice_s = min(left_s, _SLICE_S) if asked else left_s
            ready: Sequence[HasFileno | int] = [pipe, *wakes]
            if select.select(ready, [], [], slice_s)[0]:
                return
