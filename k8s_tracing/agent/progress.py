# SPDX-License-Identifier: Apache-2.0
"""One line in a terminal that says how the agent is doing."""

from __future__ import annotations

import time
from typing import TextIO

ERASE_LINE = "\r\x1b[K"

_EVERY_S = 0.5


class ProgressLine:
    """Rewrites its line at most twice a second; writes nothing where nobody watches.

    Args:
        stream: Where to; only a terminal gets a line.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_on = stream.isatty()
        self._last_s = time.monotonic()
        self._last_spans = 0
        self._rate = 0.0

    def due(self) -> bool:
        """Is it time for another line?"""
        return self.is_on and time.monotonic() - self._last_s >= _EVERY_S

    def show(
        self, *, spans: int, chunks: int, backlog_bytes: int, lost: int, dropped: int = 0
    ) -> None:
        """Rewrite the line.

        Args:
            spans: Put together since the start.
            chunks: Whose spans wait on disk.
            backlog_bytes: What those take.
            lost: Events that LTTng discarded since the start.
            dropped: Spans that some endpoint will not get, because they had no room on disk.
        """
        now = time.monotonic()
        newest = (spans - self._last_spans) / (now - self._last_s)
        self._rate += 0.3 * (newest - self._rate)  # chunks come once a second: smoothed
        self._last_s, self._last_spans = now, spans
        text = (
            f"{spans:,} spans, {self._rate:,.0f}/s; "
            f"backlog {chunks} chunks, {backlog_bytes / 1e6:.1f} MB; lost {lost:,} events"
        )
        if dropped:
            text += f", {dropped:,} spans"
        self._stream.write(f"{ERASE_LINE}{text}")
        self._stream.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self.is_on:
            self._stream.write(ERASE_LINE)
            self._stream.flush()
