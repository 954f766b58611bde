# SPDX-License-Identifier: Apache-2.0
"""Where a process's cgroup keeps its CPU figures, and what they say; cgroup version 1 and 2.

Sources: cgroups(7), proc_pid_cgroup(5), proc_pid_mountinfo(5); Linux, Documentation/admin-guide/cgroup-v2.rst and
Documentation/scheduler/sched-bwc.rst.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CPU_STAT = "cpu.stat"


@dataclass(frozen=True, slots=True)
class CpuStat:
    """What a cgroup used, and how its quota was enforced; None: the file does not say.

    Attributes:
        periods: In which it had something to run.
        throttled_periods: In which it used up its quota.
        throttled_ns: How long it was throttled after that, the sum over CPUs.
    """

    usage_ns: int | None = None
    periods: int | None = None
    throttled_periods: int | None = None
    throttled_ns: int | None = None


def parse_cpu_stat(text: str) -> CpuStat:
    """Read cpu.stat: version 2 counts microseconds, version 1 nanoseconds, and has the usage elsewhere."""
    values = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.isdecimal():
            values[key] = int(value)
    usage_us, throttled_us = values.get("usage_usec"), values.get("throttled_usec")
    return CpuStat(
        usage_ns=None if usage_us is None else usage_us * 1000,
        periods=values.get("nr_periods"),
        throttled_periods=values.get("nr_throttled"),
        throttled_ns=values.get("throttled_time") if throttled_us is None else throttled_us * 1000,
    )


def read_cpu_stat(folder: Path) -> CpuStat | None:
    """The figures of a cgroup by its folder; None if it is gone."""
    text = _text(folder / CPU_STAT)
    if text is None:
        return None
    stat = parse_cpu_stat(text)
    if stat.usage_ns is not None:
        return stat
    # version 1 has two controllers, mounted together or beside one another
    for usage in (folder / "cpuacct.usage", _beside(folder, "cpuacct")):
        used = _text(usage) if usage else None
        if used is not None and used.strip().isdecimal():
            return CpuStat(int(used), stat.periods, stat.throttled_periods, stat.throttled_ns)
    return stat


def own_cpu_folder(root: Path = Path("/")) -> Path | None:
    """The folder of the cgroup whose quota holds for this process; None if it is not seen.

    That is its own cgroup, or the nearest one above it that has a quota.
    """
    folders = cpu_folders(
        (_text(root / "proc/self/cgroup") or "").splitlines(),
        (_text(root / "proc/self/mountinfo") or "").splitlines(),
    )
    seen = [
        folder
        for folder in (root / str(each).lstrip("/") for each in folders)
        if (stat := read_cpu_stat(folder)) is not None and stat.throttled_ns is not None
    ]
    return next(filter(has_quota, seen), next(iter(seen), None))


def has_quota(folder: Path) -> bool:
    """Is there a limit to the CPU time of a cgroup?"""
    limit = _text(folder / "cpu.max")  # version 2: "max 100000"
    if limit is None:
        limit = _text(folder / "cpu.cfs_quota_us")  # version 1: -1
    return limit is not None and limit.split()[:1] not in ([], ["max"], ["-1"])


def cpu_folders(cgroup: Iterable[str], mountinfo: Iterable[str]) -> list[PurePosixPath]:
    """The folders with the CPU figures of a process, its own cgroup's first, then those above it.

    Args:
        cgroup: The lines of its /proc/PID/cgroup.
        mountinfo: The lines of /proc/self/mountinfo, of whoever will open the folders.
    """
    paths = {}
    for line in cgroup:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            paths["cgroup2"] = path
        elif "cpu" in controllers.split(","):
            paths["cgroup"] = path
    mounts: dict[str, tuple[str, str]] = {}
    for line in mountinfo:
        before, separator, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), (*after.split(), "", "", "")[:3]
        if not separator or len(fields) < 5:
            continue
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(",")):
            mounts.setdefault(kind, (fields[3], fields[4]))
    # where both are mounted, the controller is version 1's
    kind = "cgroup" if "cgroup" in paths and "cgroup" in mounts else "cgroup2"
    if kind not in paths or kind not in mounts:
        return []
    mounted, place = mounts[kind]
    here = PurePosixPath(place)
    try:
        below = PurePosixPath(paths[kind]).relative_to(mounted)
    except ValueError:
        return []  # it is in a part of the tree that is not mounted
    if ".." in below.parts:
        return []  # and this is how a cgroup namespace says so
    folder = here / below
    return [folder, *(above for above in folder.parents if above.is_relative_to(here))]


def _beside(folder: Path, controller: str) -> Path | None:
    """The same cgroup of version 1 below another controller's mount."""
    for mount in (folder, *folder.parents):
        if mount.name in ("cpu", "cpu,cpuacct"):
            return mount.parent / controller / folder.relative_to(mount) / "cpuacct.usage"
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
