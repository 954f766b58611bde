# SPDX-License-Identifier: Apache-2.0
"""What is on disk: finished chunks, and what became of them.

    SPOOL/lock                            one agent at a time
    SPOOL/relay.state                     what the relay knows of chunks that are deleted, or soon will be
    SPOOL/<start of a session>/archives/  its finished chunks
    SPOOL/outbox/                         what was made of them and is not sent yet (outbox.py)
    SPOOL/bad/                            the last chunks that could not be read, kept for a person to look at

A folder a session, so that chunks of two sessions never have the same name, and so that what an agent and a daemon that
were killed left behind can be told from what is still being written.
"""

from __future__ import annotations

import calendar
import contextlib
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from k8s_tracing.agent.chunks import ARCHIVES, chunk_number
from k8s_tracing.agent.leftovers import collect, shared_folder
from k8s_tracing.errors import AgentError

log = logging.getLogger(__name__)

_BAD = "bad"
_LOCK = "lock"
_STATE = "relay.state"
_DELETED = ".deleted-"
_MAX_BAD = 10


@dataclass(frozen=True)
class Chunk:
    """One finished chunk: an LTTng trace that nobody writes to any more."""

    path: Path

    def __str__(self) -> str:
        return f"{self.path.parent.parent.name}/{self.path.name}"

    def files(self) -> Iterator[Path]:
        """Every file in it; none when no application was registered."""
        return (path for path in self.path.rglob("*") if path.is_file())

    @property
    def is_empty(self) -> bool:
        """Was no application registered while it was recorded?"""
        return next(self.files(), None) is None

    @property
    def size_bytes(self) -> int:
        """What it takes on disk."""
        return _size_bytes(self.path)

    @property
    def written_s(self) -> float:
        """When it was finished, by the system's clock."""
        return self.path.stat().st_mtime


@dataclass(frozen=True)
class Backlog:
    """What waits in the spool."""

    chunks: int
    size_bytes: int


class Spool:
    """The chunks below one folder.

    Args:
        root: The folder; made when missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._lock: int | None = None
        self._made = False

    def __enter__(self) -> Spool:
        try:
            self._made = not self.root.exists()
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = _take(self.root / _LOCK)
        except BlockingIOError:
            raise AgentError(
                f"another agent uses the spool {self.root}: stop it, or choose another folder with --spool"
            ) from None
        except OSError as error:
            raise AgentError(
                f"cannot use the spool {self.root}: {error.strerror}. Choose another with --spool"
            ) from error
        for left in self.root.glob(f"{_DELETED}*"):
            shutil.rmtree(left, ignore_errors=True)
        return self

    def __exit__(self, *error: object) -> None:
        empty = [path for session in self._sessions() for path in (session / ARCHIVES, session)]
        if self._made:
            empty.append(self.root)
        (self.root / _LOCK).unlink(missing_ok=True)
        for folder in empty:
            with contextlib.suppress(OSError):  # it holds chunks
                folder.rmdir()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def holds(self, output: Path) -> bool:
        """Is this the folder of a session of ours?"""
        return output.parent == self.root

    def new_session(self) -> Path:
        """Make the folder of a session that starts now.

        Its name is a time, and in any case comes after those that are there: clocks are set back.
        """
        now_ns = time.time_ns()
        for session in self._sessions()[-1:]:
            now_ns = max(now_ns, _time_ns(session.name) + 1)
        seconds = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now_ns // 10**9))
        folder = self.root / f"{seconds}.{now_ns % 10**9:09d}Z"
        folder.mkdir()
        return folder

    def recover(self, live: Path | None) -> int:
        """Turn what sessions that have ended did not archive into chunks.

        Such is what a daemon that was killed left, and the only trace of a session that was never rotated.

        Args:
            live: The output folder of the session that records, if one does; every other one is history.

        Returns:
            How many chunks earlier runs left.
        """
        buffers = shared_folder(self.root)
        for session in self._sessions():
            if session != live:
                collect(session, buffers / session.name)
        return sum(1 for chunk in self.chunks() if chunk.path.parent.parent != live)

    def chunks(self) -> list[Chunk]:
        """Every finished chunk, the oldest first."""
        found: list[Chunk] = []
        for session in self._sessions():
            with contextlib.suppress(FileNotFoundError):  # nothing was archived yet
                names = sorted((path.name for path in (session / ARCHIVES).iterdir()), key=_age)
                found += [Chunk(session / ARCHIVES / name) for name in names]
        return found

    def backlog(self) -> Backlog:
        """Count what waits."""
        chunks = self.chunks()
        return Backlog(len(chunks), sum(chunk.size_bytes for chunk in chunks))

    def delete(self, chunk: Chunk) -> None:
        """Remove a chunk whose spans have all been dealt with.

        Renamed first: half a chunk, left by a kill in between, must not be taken for one.
        """
        doomed = self.root / f"{_DELETED}{chunk.path.parent.parent.name}-{chunk.path.name}"
        chunk.path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def write_state(self, state: bytes) -> None:
        """Replace the relay's state, in one step.

        Not synced: a power failure takes the applications' ring buffers and unwritten chunks as well.
        """
        new = self.root / f"{_STATE}.new"
        new.write_bytes(state)
        new.replace(self.root / _STATE)

    def read_state(self) -> bytes | None:
        """The state that an earlier agent left, if one did."""
        try:
            return (self.root / _STATE).read_bytes()
        except FileNotFoundError:
            return None

    def forget_state(self) -> None:
        """Nothing is open any more, or the state is useless."""
        for name in (_STATE, f"{_STATE}.new"):
            (self.root / name).unlink(missing_ok=True)

    def set_aside(self, chunk: Chunk) -> Path:
        """Move a chunk that cannot be read out of the way; returns where it is now."""
        bad = self.root / _BAD
        bad.mkdir(exist_ok=True)
        for old in sorted(bad.iterdir(), key=lambda path: path.stat().st_mtime)[: 1 - _MAX_BAD]:
            shutil.rmtree(old, ignore_errors=True)
        place = bad / f"{chunk.path.parent.parent.name}-{chunk.path.name}"
        chunk.path.rename(place)
        return place

    def bad_bytes(self) -> int:
        """What the chunks that cannot be read take."""
        return _size_bytes(self.root / _BAD)

    def _sessions(self) -> list[Path]:
        """The sessions' folders, the oldest first: their names are times."""
        return sorted(
            path
            for path in self.root.iterdir()
            if path.name[:1].isdigit() and path.name.endswith("Z") and path.is_dir()
        )


def _size_bytes(folder: Path) -> int:
    """What the files below a folder take; they may go meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118  many, each second
    return total


def _time_ns(name: str) -> int:
    """The time in the name of a session's folder, or 0 if it is none."""
    with contextlib.suppress(ValueError):
        seconds, _, fraction = name.rstrip("Z").partition(".")
        return calendar.timegm(time.strptime(seconds, "%Y%m%dT%H%M%S")) * 10**9 + int(fraction)
    return 0


def _age(name: str) -> tuple[bool, int, str]:
    """Sort key of a chunk's name: its number; one without a number comes last in its session."""
    number = chunk_number(name)
    return number is None, number or 0, name


def _take(path: Path) -> int:
    """Lock a file that its last owner removes; returns its descriptor."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), path.stat()):
                    return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # it was removed between the two calls: lock the new one
