# SPDX-License-Identifier: Apache-2.0
"""Deliver encoded OTLP requests: try again what may succeed later, count what is refused for good.

An exporter makes one attempt (`send`). What its answer means for a request is the same for all of them and stands in
`Delivery`. The protocols are in otlp_http.py and otlp_grpc.py, imported only when they are used.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import random
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from k8s_tracing.agent.endpoint import GRPC, Endpoint
from k8s_tracing.agent.otlp_answer import RefusedError, RetryableError
from k8s_tracing.agent.stopping import Stop
from k8s_tracing.errors import ExportError, OtlpError

log = logging.getLogger(__name__)

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0
STDOUT = "-"
_LINE_START = b'{"resourceSpans"'
MAX_SERVER_DELAY_S = 300.0  # a receiver that asks for more is asked again all the same
_REMIND_EVERY_S = 60.0


class Exporter(Protocol):
    """One destination."""

    @property
    def name(self) -> str:
        """What it is called in the log."""

    def send(self, request: bytes, timeout_s: float) -> int:
        """Make one attempt.

        Args:
            request: An encoded ExportTraceServiceRequest.
            timeout_s: How long it may take.

        Returns:
            How many of its spans the receiver rejected (OTLP's partial success).

        Raises:
            RetryableError: Later, perhaps.
            RefusedError: Never.
            ExportError: No request ever: the destination cannot be used.
        """

    def close(self) -> None:
        """Let go of connections and files."""


@dataclass
class Delivered:
    """What became of spans at one destination."""

    accepted: int = 0
    refused: int = 0


class Delivery:
    """One destination with its patience and its counts.

    Args:
        exporter: Makes the attempts.
        stop: Cuts waits short.
        timeout_s: For one attempt.
        jitter: A random number from 0 to 1.
        on_attempt: Told how long each attempt took, in s, and whether the receiver answered that it is dealt with.
    """

    def __init__(
        self,
        exporter: Exporter,
        stop: Stop,
        *,
        timeout_s: float = 10.0,
        jitter: Callable[[], float] = random.random,
        on_attempt: Callable[[float, bool], None] = lambda seconds, done: None,
    ) -> None:
        self.exporter = exporter
        self.total = Delivered()
        self._stop = stop
        self._timeout_s = timeout_s
        self._jitter = jitter
        self._on_attempt = on_attempt
        self._seen_refusals: set[str] = set()
        self._down_since: float | None = None
        self._reminded = 0.0

    @property
    def down_s(self) -> float:
        """How long it has not taken spans; 0 while it does."""
        since = self._down_since
        return 0.0 if since is None else time.monotonic() - since

    def deliver(
        self, request: bytes, spans: int, *, wanted: Callable[[], bool] = lambda: True
    ) -> bool:
        """Send a request until it is dealt with.

        Args:
            request: An encoded ExportTraceServiceRequest.
            spans: How many it has.
            wanted: Asked before each attempt whether it still makes sense.

        Returns:
            False if time ran out before that, or it is not wanted; the request is as undelivered as before.
        """
        attempt = 0
        while not self._stop.expired and wanted():
            begin_s = time.monotonic()
            try:
                rejected = self.exporter.send(request, max(0.1, self._stop.within(self._timeout_s)))
            except RefusedError as error:
                self._on_attempt(time.monotonic() - begin_s, True)
                self._up()
                self._refuse(spans, str(error))
                return True
            except RetryableError as error:
                self._on_attempt(time.monotonic() - begin_s, False)
                self._down(error)
                self._stop.wait(self._delay_s(attempt, error.after_s))
                attempt = min(attempt + 1, 100)
                continue
            self._on_attempt(time.monotonic() - begin_s, True)
            self._up()
            rejected = min(rejected, spans)
            self.total.accepted += spans - rejected
            if rejected:
                self._refuse(rejected, "partial success: the receiver rejected some spans")
            return True
        return False

    def _delay_s(self, attempt: int, asked_s: float | None) -> float:
        """Exponential with full jitter, so that the agents of a cluster do not come back all at once."""
        delay = min(MAX_DELAY_S, math.ldexp(FIRST_DELAY_S, attempt)) * self._jitter()
        if asked_s is None:
            return delay
        return min(asked_s, MAX_SERVER_DELAY_S) + min(delay, FIRST_DELAY_S)

    def _refuse(self, spans: int, reason: str) -> None:
        self.total.refused += spans
        if reason not in self._seen_refusals:
            self._seen_refusals.add(reason)
            log.error(
                "%s refuses spans for good (%s): they are dropped and counted; this is said once",
                self.exporter.name,
                reason,
            )

    def _down(self, error: RetryableError) -> None:
        now = time.monotonic()
        if self._down_since is None:
            self._down_since = self._reminded = now
            log.warning(
                "%s does not take spans (%s): they wait on disk and are sent again",
                self.exporter.name,
                error,
            )
        elif now - self._reminded >= _REMIND_EVERY_S:
            self._reminded = now
            log.warning(
                "%s has not taken spans for %.0f s (%s)",
                self.exporter.name,
                now - self._down_since,
                error,
            )

    def _up(self) -> None:
        if self._down_since is not None:
            gone = time.monotonic() - self._down_since
            log.info("%s takes spans again after %.1f s", self.exporter.name, gone)
            self._down_since = None


class FileExporter:
    """OTLP JSON lines, one request a line, as OpenTelemetry's file exporter writes them.

    Args:
        path: `-` is standard output. A line that a kill cut short is taken away: its request is sent again.

    Raises:
        ExportError: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.name = "standard output" if str(path) == STDOUT else str(path)
        try:
            if str(path) == STDOUT:
                self._file = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
            else:
                self._file = path.open("ab+", buffering=0)
            self._is_regular = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
            if self._is_regular and str(path) != STDOUT:
                _cut_short_line(self._file)
        except OSError as error:
            raise ExportError(
                f"cannot write the output file {path}: {error.strerror}. Choose another with --output-file"
            ) from error

    def send(self, request: bytes, timeout_s: float) -> int:
        """Append one line; a full disk is worth another attempt."""
        from k8s_tracing.otlp import to_json_line

        try:
            line = f"{to_json_line(request)}\n".encode()
        except OtlpError as error:
            raise RefusedError(str(error)) from error
        before = os.fstat(self._file.fileno()).st_size
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except BrokenPipeError as error:
            raise ExportError(f"whoever read {self.name} has gone away") from error
        except OSError as error:
            if self._is_regular:
                with contextlib.suppress(OSError):
                    self._file.truncate(before)
            raise RetryableError(error.strerror or "cannot write") from error
        return 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _cut_short_line(file: io.FileIO) -> None:
    """Remove what stands after the last newline, if it is the beginning of a line of ours."""
    size = at = os.fstat(file.fileno()).st_size
    tail = b""
    while at and b"\n" not in tail:
        step = min(at, 1 << 20)
        at -= step
        tail = os.pread(file.fileno(), step, at) + tail
    rest = tail.rpartition(b"\n")[2]
    if rest and _LINE_START.startswith(rest[: len(_LINE_START)]):
        file.truncate(size - len(rest))


def open_exporter(endpoint: Endpoint) -> Exporter:
    """The exporter of an endpoint's protocol.

    Raises:
        ExportError: The library for it is not installed.
    """
    try:
        if endpoint.protocol == GRPC:
            from k8s_tracing.agent.otlp_grpc import GrpcExporter

            return GrpcExporter(endpoint)
        from k8s_tracing.agent.otlp_http import HttpExporter

        return HttpExporter(endpoint)
    except ImportError as error:
        raise ExportError(
            f"{error.name} is not installed, which sending with {endpoint.protocol} needs: "
            "pip install 'k8s-tracing[agent]'"
        ) from error
