# SPDX-License-Identifier: Apache-2.0
"""Wakes applications that wait for a session daemon of another user than theirs.

An application that finds no daemon waits on a futex, a number in `/dev/shm/lttng-ust-wait-GENERATION[-UID]`, where UID
is its own: while that is 0 it sleeps, otherwise it looks every 5 s (lttng-ust 2.13, `wait_for_sessiond`). A daemon sets
it for its own user, and root's for everybody. Ours runs as a user of its own (daemon.py): nobody would hear of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import mmap
import os
import platform
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

log = logging.getLogger(__name__)

_FUTEX = {"x86_64": 202, "aarch64": 98}  # the number of the system call
_FUTEX_WAKE = 1
_EVERYBODY = 0x7FFFFFFF
_WORD = struct.Struct("=i")


def wake_applications(folder: Path = Path("/dev/shm")) -> list[Path]:  # noqa: S108  LTTng's place
    """Wake those that share this folder.

    Returns:
        The files that said to sleep; `let_sleep` has them say so again.
    """
    number = _FUTEX.get(platform.machine())
    if number is None:
        log.warning("applications that run already are not woken on %s", platform.machine())
        return []
    syscall = ctypes.CDLL(None).syscall
    changed = []
    for path, page in _pages(folder.glob("lttng-ust-wait-*")):
        if _WORD.unpack_from(page)[0] == 0:
            _WORD.pack_into(page, 0, 1)
            changed.append(path)
        word = ctypes.c_int32.from_buffer(page)
        syscall(ctypes.c_long(number), ctypes.byref(word), _FUTEX_WAKE, _EVERYBODY, None, None, 0)
        del word  # it keeps the page mapped
    return changed


def let_sleep(paths: Iterable[Path]) -> None:
    """Undo what `wake_applications` changed."""
    for _, page in _pages(paths):
        _WORD.pack_into(page, 0, 0)


def _pages(paths: Iterable[Path]) -> Iterator[tuple[Path, mmap.mmap]]:
    for path in paths:
        with contextlib.suppress(
            OSError, ValueError
        ):  # it is gone, or nobody has given it a size yet
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                page = mmap.mmap(file, _WORD.size)
            finally:
                os.close(file)
            with page:
                yield path, page
