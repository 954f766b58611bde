# SPDX-License-Identifier: Apache-2.0
"""The ring buffers: how large, whose, and whether they fit the machine's shared memory.

    memory = owners x CPUs x sub-buffers x size of a sub-buffer

An owner is a user id that records (`uid`), or a process (`pid`). CPUs are all that the machine could have, present or
not: LTTng makes a buffer for each when an owner's first process comes. All of it is in /dev/shm, and LTTng writes it
full of zeros then, so that a /dev/shm which is too small shows as processes that are not recorded.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from k8s_tracing.errors import SessionError

log = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  where LTTng's buffers are, whatever we say

_CPUS = Path("/sys/devices/system/cpu")

Owner = Literal["uid", "pid"]

# An event larger than a sub-buffer is discarded. A span's attributes take 60 KiB at most, its texts some more.
MIN_SUBBUF_BYTES = 128 * 1024
MAX_SUBBUF_BYTES = 512 * 1024
_MAX_SUBBUF_COUNT = 8
_MIN_SUBBUF_COUNT = 2

# What a node is likely to have at least, and what /dev/shm must have room for before buffers are made smaller.
EXPECTED_OWNERS: dict[Owner, int] = {"uid": 4, "pid": 16}

# A CPU's share where nothing is said. 4 MiB are some 16,000 spans: a third of a second at 50,000 spans/s from one CPU.
DEFAULT_CPU_BYTES: dict[Owner, int] = {"uid": 4 << 20, "pid": 512 << 10}


@dataclass(frozen=True)
class Buffers:
    """The ring buffers of one owner.

    Discard mode (LTTng's default) throws the newest events away when all is full, and counts them; the other choice is
    to make the application wait, which tracing must not do.

    Attributes:
        owner: `uid`: shared by the processes of a user, so that a process costs no memory of its own. Every process of
            that user can write in all of it. `pid`: each process has its own: for tenants who do not trust each other
            and yet have the same user id.
        subbuf_size_bytes: A power of two.
        subbuf_count: A power of two; all but one may wait for the consumer daemon.
    """

    owner: Owner = "uid"
    subbuf_size_bytes: int = MAX_SUBBUF_BYTES
    subbuf_count: int = _MAX_SUBBUF_COUNT

    def owner_bytes(self, cpus: int | None = None) -> int:
        """What an owner's buffers take."""
        return self.cpu_bytes * (cpus or possible_cpus())

    @property
    def cpu_bytes(self) -> int:
        """What one CPU's buffer takes."""
        return self.subbuf_size_bytes * self.subbuf_count

    def options(self) -> list[str]:
        """The same for `lttng enable-channel`.

        No switch timer: a rotation hands out what is in a half-full sub-buffer. No read timer: applications wake the
        consumer daemon when they fill a sub-buffer.
        """
        return [
            f"--buffers-{self.owner}",
            f"--subbuf-size={self.subbuf_size_bytes}",
            f"--num-subbuf={self.subbuf_count}",
        ]


def plan_buffers(
    owner: Owner = "uid",
    memory_bytes: int | None = None,
    *,
    cpus: int | None = None,
    shared_bytes: int | None = None,
) -> Buffers:
    """Choose the buffers.

    Args:
        owner: Whose they are.
        memory_bytes: Budget for the buffers of one owner; None for a default that grows with the CPUs.
        cpus: How many CPUs the machine could have; asked of the system when None.
        shared_bytes: The size of /dev/shm; asked of the system when None.

    Raises:
        SessionError: The budget, or /dev/shm, is too small for the smallest buffers.
    """
    cpus = cpus or possible_cpus()
    shared = shared_memory_bytes() if shared_bytes is None else shared_bytes
    smallest = cpus * MIN_SUBBUF_BYTES * _MIN_SUBBUF_COUNT
    if memory_bytes is not None and memory_bytes < smallest:
        raise SessionError(
            f"--buffer-memory {memory_bytes} is too little for {cpus} CPUs: an owner's buffers take "
            f"{_mib(smallest)} at least ({cpus} CPUs x {_MIN_SUBBUF_COUNT} x {MIN_SUBBUF_BYTES >> 10} KiB)"
        )
    if shared < smallest:
        raise SessionError(
            f"{SHARED_MEMORY} has {_mib(shared)}, and the buffers of one {_NAMES[owner]} take {_mib(smallest)} at "
            f"least on {cpus} CPUs: nothing could be recorded. Give it more: `shm_size` or `--shm-size` for a "
            f"container, an emptyDir with `medium: Memory` at {SHARED_MEMORY} for a pod"
        )
    wanted = cpus * DEFAULT_CPU_BYTES[owner] if memory_bytes is None else memory_bytes
    owners = EXPECTED_OWNERS[owner]
    fits = max(smallest, min(wanted, shared // owners))
    buffers = _divide(owner, fits // cpus)
    if fits < wanted:
        log.warning(
            "%s has %s: an owner's buffers are cut from %s to %s so that %d %ss fit, and overflow sooner. "
            "Give it more to avoid that: `shm_size` for a container, an emptyDir with `medium: Memory` for a pod",
            SHARED_MEMORY,
            _mib(shared),
            _mib(wanted),
            _mib(buffers.cpu_bytes * cpus),
            shared // (buffers.cpu_bytes * cpus),
            _NAMES[owner],
        )
    return buffers


def possible_cpus() -> int:
    """How many CPUs the machine could have: LTTng counts them like this, by sysconf(3)."""
    return len(list(_CPUS.glob("cpu[0-9]*"))) or os.cpu_count() or 1


def shared_memory_bytes() -> int:
    """The size of /dev/shm.

    Raises:
        SessionError: There is none, or it cannot be written to.
    """
    info = _shared_memory()
    return info.f_frsize * info.f_blocks


def free_shared_memory_bytes() -> int:
    """How much of /dev/shm is free.

    Raises:
        SessionError: As `shared_memory_bytes`.
    """
    info = _shared_memory()
    return info.f_frsize * info.f_bavail


def _shared_memory() -> os.statvfs_result:
    try:
        info = os.statvfs(SHARED_MEMORY)
    except OSError as error:
        raise SessionError(
            f"{SHARED_MEMORY}: {error.strerror}. LTTng keeps its buffers there: mount a tmpfs"
        ) from error
    if info.f_flag & os.ST_RDONLY or not os.access(SHARED_MEMORY, os.W_OK):
        raise SessionError(
            f"{SHARED_MEMORY} is read-only, and LTTng keeps its buffers there: mount a tmpfs"
        )
    return info


_NAMES: dict[Owner, str] = {"uid": "user", "pid": "process"}


def _divide(owner: Owner, cpu_bytes: int) -> Buffers:
    """Fill a CPU's share: enough sub-buffers first, for the consumer daemon to fall behind in, then larger ones."""
    size, count = MIN_SUBBUF_BYTES, _MIN_SUBBUF_COUNT
    while 2 * size * count <= cpu_bytes:
        if count < _MAX_SUBBUF_COUNT:
            count *= 2
        elif size < MAX_SUBBUF_BYTES:
            size *= 2
        else:
            count *= 2
    return Buffers(owner, size, count)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.3g} MiB"
