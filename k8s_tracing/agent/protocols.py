# SPDX-License-Identifier: Apache-2.0
"""Where the agent's requests come from, as its loop knows it: the relay, and the data plane, never imported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol


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

    def read_nothing(self, path: Path) -> Iterable[Request]:
        """Take note of a chunk without traces: time goes on."""

    def finish(self, *, unfinished: bool) -> Iterable[Request]:
        """Hand out what has ended, and what is still open if asked."""

    def save(self, chunks: Iterable[str]) -> bytes:
        """What it knows, for an agent that goes on with it, and what that covers."""

    def restore(self, state: bytes) -> None:
        """Go on with what another one knew."""

    @property
    def chunks(self) -> frozenset[str]:
        """What the restored state covers."""


class Figure(Protocol):
    """One thing that is counted.

    Attributes:
        is_total: It only grows; else it is what is now.
    """

    name: str
    text: str
    value: float
    labels: Sequence[tuple[str, str]]
    is_total: bool


class DataPlane(Protocol):
    """What is seen between the services; k8s_tracing/dataplane/plane.py."""

    @property
    def otlp_addresses(self) -> Sequence[str]:
        """URLs at which it takes OTLP."""

    @property
    def cpu_times(self) -> tuple[int, int, int] | None:
        """Who can tell what a thread did, for the relay: function, first argument, shortest span; None: nobody."""

    def follow(self, pid: int) -> None:
        """This process records; its id is the node's."""

    def start(self) -> None:
        """Begin to look."""

    def stop(self) -> None:
        """Look no longer; what came in so far can still be collected."""

    def fileno(self) -> int:
        """Readable while somebody waits for `collect`."""

    def collect(self) -> Iterable[Request]:
        """What came in since the last call."""

    def published(self) -> None:
        """What `collect` returned is on disk, and will be sent whatever happens."""

    def pass_on(self, body: bytes, *, is_local: bool) -> tuple[bytes, int]:
        """A request with what is known of the connections that its spans used, and how many spans that adds.

        `is_local`: its spans are of this node's processes.
        """

    def figures(self) -> Iterable[Figure]:
        """What was counted."""
