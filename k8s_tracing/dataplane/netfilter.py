# SPDX-License-Identifier: Apache-2.0
"""What the kernel's conntrack does in a network namespace, and how far its answers can be trusted."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from k8s_tracing.closing import Closing
from k8s_tracing.dataplane.flows import ConntrackStats

_FOLDER = Path("/proc/sys/net/netfilter")

#: A namespace's switches: events are made only for who listens (2) or always (1), and stamped only if asked.
_EVENTS = _FOLDER / "nf_conntrack_events"
_TIMESTAMPS = _FOLDER / "nf_conntrack_timestamp"

_NETLINK_NETFILTER = 12

#: How long a connection is known after its end depends on how it ended: the shortest of these.
_ENDED = ("close", "close_wait", "fin_wait", "last_ack", "time_wait")

#: Spans come within 2 s of their end.
MAX_KEPT_S = 5.0

#: At 95 % of its room conntrack forgets connections that are ending (gc_worker in net/netfilter/nf_conntrack_core.c).
_FULL = 0.9

_LOOK_S = 1.0


def switch_on() -> list[str]:
    """Let the kernel make events, and stamp them.

    Returns:
        What could not be switched on, and what that means.
    """
    problems = []
    for path, meaning in (
        (_EVENTS, "connections to Services are not seen"),
        (_TIMESTAMPS, "their times are those at which events were received, some 0.1 ms late"),
    ):
        try:
            if path.read_text().strip() == "0":
                path.write_text("1")
        except OSError as error:
            problems.append(f"{path}: {error.strerror}; {meaning}")
    return problems


def kernel_stamps() -> bool:
    """Does the kernel stamp each event, so that it does not matter when it is read? Linux 6.14 and newer."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    try:
        return (
            release is not None
            and (int(release[1]), int(release[2])) >= (6, 14)
            and _TIMESTAMPS.read_text().strip() == "1"
        )
    except OSError:
        return False


def kept_s(folder: Path = _FOLDER) -> float:
    """So long conntrack knows a connection after its end, in seconds; 0: that cannot be said."""
    try:
        ended = [
            int((folder / f"nf_conntrack_tcp_timeout_{state}").read_text()) for state in _ENDED
        ]
        count, room = (
            int((folder / f"nf_conntrack_{name}").read_text()) for name in ("count", "max")
        )
    except (OSError, ValueError):
        return 0.0
    return 0.0 if count > _FULL * room else min(MAX_KEPT_S, min(ended) / 2)


class Terms(NamedTuple):
    """How far answers can be trusted.

    Attributes:
        kept_ns: As of `Join.ask`; likewise `is_stamped`.
        overflows: How often events were lost: what was answered may be of a connection that has ended since.
    """

    kept_ns: int
    is_stamped: bool
    overflows: int


class Questions(Closing):
    """A socket for questions to the conntrack of the network namespace of the thread that makes it.

    Args:
        clock: In seconds; never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked_s = -_LOOK_S
        self._full_s = -MAX_KEPT_S
        self._terms: Terms | None = None
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER)

    def fileno(self) -> int:
        """The socket."""
        return self._socket.fileno()

    def terms(self, heard: ConntrackStats, folder: Path = _FOLDER) -> Terms | None:
        """How far answers can be trusted from now on; None: as before. It looks once a second."""
        now_s = self._clock()
        if now_s - self._looked_s < _LOOK_S:
            return None
        self._looked_s = now_s
        kept = kept_s(folder)
        if not kept:
            self._full_s = now_s
        # What was forgotten while there was no room is not there now; and a zone's connections are found in it only.
        if now_s - self._full_s < MAX_KEPT_S or heard.in_zones:
            kept = 0.0
        try:
            is_stamped = (folder / _TIMESTAMPS.name).read_text().strip() == "1"
        except OSError:
            is_stamped = False
        terms = Terms(int(kept * 1e9), is_stamped, heard.overflows)
        if terms == self._terms:
            return None
        self._terms = terms
        return terms

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
