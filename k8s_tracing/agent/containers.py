# SPDX-License-Identifier: Apache-2.0
"""CPU use and throttling of the containers whose processes record, as their cgroups count it, for /metrics."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from k8s_tracing import cgroup
from k8s_tracing.agent.identity import Identities, service_name
from k8s_tracing.agent.metrics import PREFIX
from k8s_tracing.agent.processes import Proc
from k8s_tracing.agent.relay import Process

log = logging.getLogger(__name__)

#: A node has 110 pods unless it is told otherwise; these series are for each container.
MAX_CONTAINERS = 1024

_LABELS = ("container_id", "pod_uid", "service")


@dataclass(frozen=True, slots=True)
class _Watched:
    folder: Path
    labels: tuple[str, str, str]


class Containers(Collector):
    """Finds the cgroups of containers, and reads them whenever somebody asks.

    A container is forgotten when its cgroup is gone.

    Args:
        proc: The node's processes.
        identities: Says which container a process is in.
        mountinfo: What is mounted here; only cgroups below such a mount can be read.
    """

    def __init__(
        self, proc: Proc, identities: Identities, mountinfo: Path = Path("/proc/self/mountinfo")
    ) -> None:
        self._proc = proc
        self._identities = identities
        self._mountinfo = mountinfo
        self._lock = threading.Lock()  # who scrapes is another thread
        self._watched: dict[str, _Watched] = {}
        self._said_unseen = False
        self._too_many = 0

    def watch(self, process: Process) -> None:
        """Watch the container that a process is in, if it is in one."""
        container = self._identities.container(process)
        if container is None or container.container_id is None:
            return
        key = container.container_id
        found = None if key in self._watched else self._proc.find(process)
        if found is None:
            return
        folder = self._folder(found.pid)
        if folder is None:
            self._say_unseen(key)
            return
        with self._lock:
            if len(self._watched) >= MAX_CONTAINERS:
                self._forget_gone()
            if len(self._watched) >= MAX_CONTAINERS:
                self._too_many += 1
                return
            labels = key, container.pod_uid or "", service_name(process)
            self._watched[key] = _Watched(folder, labels)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not collect to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The figures as they are now."""
        usage = _family("seconds", "CPU time that a container used.")
        periods = _family("periods", "Periods of a container's quota in which it ran.")
        throttled_periods = _family(
            "throttled_periods", "Of those, periods in which it was used up."
        )
        throttled = _family(
            "throttled_seconds", "How long a container was throttled, the sum over its CPUs."
        )
        with self._lock:
            self._forget_gone()
            watched, too_many = list(self._watched.values()), self._too_many
        for each in watched:
            stat = cgroup.read_cpu_stat(each.folder)
            if stat is None:
                continue
            for family, value in (
                (usage, _seconds(stat.usage_ns)),
                (periods, stat.periods),
                (throttled_periods, stat.throttled_periods),
                (throttled, _seconds(stat.throttled_ns)),
            ):
                if value is not None:
                    family.add_metric(each.labels, value)
        yield from (usage, periods, throttled_periods, throttled)
        yield CounterMetricFamily(
            f"{PREFIX}_container_cpu_not_watched",
            f"Processes whose container has no figures because {MAX_CONTAINERS} others have.",
            value=too_many,
        )

    def _folder(self, pid: int) -> Path | None:
        """The folder of a process's cgroup; None if it cannot be read from here."""
        try:
            mounts = self._mountinfo.read_text(errors="replace").splitlines()
        except OSError:
            return None
        folders = cgroup.cpu_folders(self._proc.cgroup(pid), mounts)
        folder = Path(folders[0]) if folders else None
        return folder if folder is not None and cgroup.read_cpu_stat(folder) else None

    def _say_unseen(self, key: str) -> None:
        if not self._said_unseen:
            log.warning(
                "the cgroup of container %s cannot be read from here: /metrics has no CPU figures of it and of others "
                "like it. The agent needs the node's cgroup namespace and /sys/fs/cgroup",
                key,
            )
        self._said_unseen = True

    def _forget_gone(self) -> None:
        for key, each in list(self._watched.items()):
            if not each.folder.exists():
                del self._watched[key]


def _family(name: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"{PREFIX}_container_cpu_{name}", text, labels=_LABELS)


def _seconds(ns: int | None) -> float | None:
    return None if ns is None else ns / 1e9
