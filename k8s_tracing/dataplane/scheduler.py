# SPDX-License-Identifier: Apache-2.0
"""What the kernel's scheduler did with the threads of processes that record: the binding of the C that follows it."""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k8s_tracing import cgroup
from k8s_tracing.closing import Closing
from k8s_tracing.errors import K8sTracingError
from k8s_tracing.libraries import load

log = logging.getLogger(__name__)

#: For each CPU: some 12,000 switches, and it is read 15 times a second or more.
BUFFER_BYTES = 1 << 20
#: At 48 bytes. A thread that serves requests changes its state some hundred times a second.
MAX_POINTS = 1 << 20

#: Shorter than the period of a quota (100 ms), so that cpu.stat tells of each; and not always the same, so that no two
#: timers go off together in all of them.
_PAUSES_S = (0.02, 0.06)


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """What was followed; the fields are those of `struct scheduler_stats`, where each is explained."""

    events: int
    lost: int
    processes: int
    threads: int
    containers: int
    timers_unknown: int
    points: int
    not_followed: int
    remembered_ns: int


class Scheduler(Closing):
    """Follows threads from `start` on.

    Args:
        shortest_ns: Spans of at least that length will be asked for.
        proc: The node's proc file system.
        listens: False: events come by `feed`.

    Raises:
        K8sTracingError: The kernel does not let us listen.
    """

    def __init__(
        self,
        *,
        shortest_ns: int = 1_000_000,
        proc: Path = Path("/proc"),
        listens: bool = True,
        max_points: int = MAX_POINTS,
    ) -> None:
        self._proc = proc
        self._shortest_ns = shortest_ns
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._ffi, self._lib = load("dataplane")
        self._scheduler = self._lib.scheduler_new(str(proc).encode(), max_points)
        if not self._scheduler:
            raise MemoryError
        if listens and self._lib.scheduler_open(self._scheduler, BUFFER_BYTES) < 0:
            error = self._error()
            self.close()
            raise error
        if listens and not self._lib.scheduler_hears_timers(self._scheduler):
            log.warning(
                "the timers of CPU quotas cannot be told from others (%s/kallsyms has no addresses for us): spans do "
                "not say how much of their waiting was throttling. CAP_SYSLOG, or kernel.kptr_restrict=0, helps",
                proc,
            )

    @property
    def cpu_times(self) -> tuple[int, int, int]:
        """For C: the address of `scheduler_times`, its first argument, and the shortest span that is worth asking for.

        Valid until this is closed.
        """
        function = self._ffi.addressof(self._lib, "scheduler_times")
        return (
            int(self._ffi.cast("uintptr_t", function)),
            int(self._ffi.cast("uintptr_t", self._scheduler)),
            self._shortest_ns,
        )

    def start(self) -> None:
        """Listen, in a thread of its own.

        Raises:
            K8sTracingError: The kernel does not let us.
        """
        if self._lib.scheduler_start(self._scheduler) < 0:
            raise self._error()
        self._thread = threading.Thread(target=self._listen, name="scheduler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listen no longer; what was heard can still be asked for."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def follow(self, pid: int) -> bool:
        """Follow a process, all threads that it has and will have, and its children.

        Of its container all processes are followed: when a quota was used up shows in what they all did.

        Args:
            pid: As the node numbers it.

        Returns:
            False: it is gone, or no more can be followed.
        """
        container = self._container(pid)
        if container is None:
            return self._follow(pid, None)
        stat = container / cgroup.CPU_STAT
        for each in _processes(container) - {pid}:
            self._follow(each, stat)
        return self._follow(pid, stat)

    def read(self) -> None:
        """Take in what there is."""
        if self._lib.scheduler_read(self._scheduler) < 0:
            raise MemoryError

    def feed(self, events: list[dict[str, int]], now_ns: int) -> None:
        """Take in events (`struct scheduler_event`) that came another way."""
        array = self._ffi.new("struct scheduler_event[]", events)
        if self._lib.scheduler_feed(self._scheduler, array, len(events), now_ns) < 0:
            raise MemoryError

    def times(
        self, pid_ns: int, vpid: int, vtid: int, begin_ns: int, end_ns: int
    ) -> tuple[int, int, int] | None:
        """What a thread did between two times of CLOCK_MONOTONIC at which it ran.

        Returns:
            How long it was on a CPU, waited for one, and was throttled, in ns; the last is -1 where that is not known
            and then part of the second. None: nothing is known.
        """
        times: Any = self._ffi.new("int64_t[3]")
        known = self._lib.scheduler_times(
            self._scheduler, pid_ns, vpid, vtid, begin_ns, end_ns, times
        )
        return (times[0], times[1], times[2]) if known else None

    @property
    def stats(self) -> SchedulerStats:
        """The counters as they are now."""
        stats: Any = self._ffi.new("struct scheduler_stats *")
        self._lib.scheduler_get_stats(self._scheduler, stats)
        return SchedulerStats(*(getattr(stats, name) for name in SchedulerStats.__slots__))

    def close(self) -> None:
        """Stop, and forget everything."""
        self.stop()
        self._lib.scheduler_free(self._scheduler)
        self._scheduler = self._ffi.NULL

    def _listen(self) -> None:
        while not self._stopping.wait(random.uniform(*_PAUSES_S)):  # noqa: S311  not a secret
            self.read()

    def _follow(self, pid: int, stat: Path | None) -> bool:
        path = self._ffi.NULL if stat is None else str(stat).encode()
        status = self._lib.scheduler_follow(self._scheduler, pid, path)
        if status < 0:
            raise MemoryError
        return bool(status)

    def _container(self, pid: int) -> Path | None:
        """The folder of the cgroup whose quota holds for a process: its own or the nearest above.

        Where none has a quota yet, its own, unless that is the root's, in which everybody may be.
        """
        try:
            lines = (self._proc / str(pid) / "cgroup").read_text(errors="replace").splitlines()
            mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
        except OSError:
            return None
        folders = [Path(folder) for folder in cgroup.cpu_folders(lines, mounts)]
        own = folders[0] if len(folders) > 1 else None
        return next(filter(cgroup.has_quota, folders), own)

    def _error(self) -> K8sTracingError:
        text: Any = self._ffi.string(self._lib.scheduler_error(self._scheduler))
        return K8sTracingError(f"--cpu-split: {text.decode(errors='replace')}")


def _processes(folder: Path) -> set[int]:
    """Those in a cgroup and the ones below it."""
    found: set[int] = set()
    for path in folder.rglob("cgroup.procs"):
        try:
            found.update(int(word) for word in path.read_text().split())
        except OSError:
            continue  # it is gone
    return found
