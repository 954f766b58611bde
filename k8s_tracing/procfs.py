# SPDX-License-Identifier: Apache-2.0
"""What /proc says of a process to everybody, and says the same inside of a container and outside.

The links in /proc/PID/ns, which name a process's namespaces, are for root's eyes (CAP_SYS_PTRACE). `stat` and
`mountinfo` are not, and together they tell which process is meant: containers that are there at the same time have
root mounts with different ids, and a process whose root mount got an id that was free again started later.
"""

from __future__ import annotations

from pathlib import Path

#: The resource attribute in which a process says its own key.
KEY = "k8s_tracing.process.key"


def process_key(folder: Path) -> str | None:
    """Return a process's root mount id and start time, `"431-1752179"`; None when it is gone, or hides them.

    Args:
        folder: /proc/PID, or /proc/self.
    """
    started, mount = start_ticks(folder), _root_mount(folder)
    return None if started is None or mount is None else f"{mount}-{started}"


def start_ticks(folder: Path) -> str | None:
    """Field 22 of proc(5)'s stat, in clock ticks since the boot; None for a process that is gone or a zombie."""
    try:
        fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else None


def _root_mount(folder: Path) -> str | None:
    """Field 1 of the line in proc(5)'s mountinfo whose mount point, as the process sees it, is /."""
    try:
        with (folder / "mountinfo").open(errors="replace") as lines:
            for line in lines:
                fields = line.split(maxsplit=5)
                if len(fields) > 4 and fields[4] == "/":
                    return fields[0]
    except OSError:
        pass
    return None
