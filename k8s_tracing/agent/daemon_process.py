# SPDX-License-Identifier: Apache-2.0
"""The process of an lttng-sessiond: start it, wait until it listens, end it with all that it started.

It leads a session and a process group of its own, which its consumer daemons are in: the terminal's Ctrl-C does not
reach it, and the group can be ended and asked after as a whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from k8s_tracing.errors import SessionError

log = logging.getLogger(__name__)

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0

# For a consumer daemon alone to write out what the buffers hold, which takes it 2 s.
REMAINS_GRACE_S = 10.0

_POLL_S = 0.02
_LOG_LINES_IN_ERRORS = 8
_OUR_NAMES = ("lttng-sessiond", "setpriv", "unshare")  # the others become it in a moment


def read_pid(path: Path) -> int | None:
    """The process id in a file; None when there is no such file or it says something else."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def group_alive(pid: int) -> bool:
    """Does a session daemon with this id, or a consumer daemon that it left behind, still run?"""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() in _OUR_NAMES
    except OSError:
        pass  # the leader is gone; the group may live
    try:
        os.killpg(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return True


def is_running(pid: int) -> bool:
    """Is there a process with this id that has not ended? One that only waits for its parent to ask has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (OSError, IndexError):
        return False


def consumer_daemons(pid: int) -> list[int]:
    """The consumer daemons that a session daemon has started, dead ones included; it never asks after those."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text().split():
                if Path(f"/proc/{child}/comm").read_text() == "lttng-consumerd\n":
                    found.append(int(child))
    return found


def is_locked(path: Path) -> bool:
    """Does a session daemon hold this lock file?"""
    try:
        with path.open("r+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or it is none
        return False
    return False


def stop_group(pid: int, process: subprocess.Popen[bytes] | None, *, hard: bool = False) -> None:
    """End a daemon that we started, and whatever it started; hard when asked for, or when it does not listen."""
    if not hard:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        if _group_ends(pid, process, STOP_TIMEOUT_S):
            return
        log.warning("the session daemon, process %d, did not end on SIGTERM and is killed", pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if not _group_ends(pid, process, STOP_TIMEOUT_S):
        log.error("the session daemon, process %d, cannot be killed: look at `ps -g %d`", pid, pid)


def end_remains(pid: int, process: subprocess.Popen[bytes] | None) -> None:
    """End what is left of a daemon half of which has died, or that hangs.

    A consumer daemon whose session daemon is gone writes out what the buffers hold, and ends by itself; so it is given
    time. A session daemon whose consumer daemon is gone is of no use and would tidy up the buffers: it is not.

    Raises:
        SessionError: It cannot be killed.
    """
    if not is_running(pid) and _group_ends(pid, process, REMAINS_GRACE_S):
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    if not _group_ends(pid, process, STOP_TIMEOUT_S):
        raise SessionError(f"process group {pid}, a session daemon's, cannot be killed")


def _group_ends(pid: int, process: subprocess.Popen[bytes] | None, timeout_s: float) -> bool:
    def ended() -> bool:
        if process is not None:
            process.poll()  # a child that ended stays in the group until somebody asks
        return not group_alive(pid)

    return wait_until(ended, timeout_s)


def spawn(words: list[str], env: dict[str, str], log_path: Path) -> subprocess.Popen[bytes]:
    """Start a daemon in the foreground; what it writes goes to `log_path`."""
    with log_path.open("wb") as output:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=env,
            start_new_session=True,
        )


def await_ready(
    folder: Path,
    process: subprocess.Popen[bytes],
    log_path: Path,
    timeout_s: float,
    what: str,
    *,
    app_sockets: Path | None = None,
) -> None:
    """Wait until the daemon listens to commands and to applications; about 20 ms on an idle machine.

    Args:
        folder: Where its sockets are.
        process: The daemon.
        log_path: What it writes.
        timeout_s: How long to wait.
        what: Its name in errors.
        app_sockets: Where the socket for applications is, if elsewhere.

    Raises:
        SessionError: It ended, or was not ready in time.
    """

    def ready() -> bool:
        if process.poll() is not None:
            raise SessionError(
                f"the {what} ended at once with status {process.returncode}: {log_tail(log_path)}"
            )
        clients = folder / "client-lttng-sessiond"
        # The number in the name is the generation of the protocol: 8 up to LTTng 2.14, 11 from 2.15.
        return _listens(clients) and any(
            map(_listens, (app_sockets or folder).glob("lttng-ust-sock-*"))
        )

    if not wait_until(ready, timeout_s):
        raise SessionError(
            f"the {what} was not ready after {timeout_s:.0f} s: {log_tail(log_path)}. "
            "Is the machine overloaded, or the disk full?"
        )


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def log_tail(path: Path) -> str:
    """The last lines of a daemon's log, as one."""
    try:
        lines = path.read_text(errors="replace").splitlines()[-_LOG_LINES_IN_ERRORS:]
    except OSError:
        lines = []
    return "; ".join(line.strip() for line in lines if line.strip()) or "it logged nothing"


def wait_until(done: Callable[[], bool], timeout_s: float) -> bool:
    """Wait for something; False if it did not come in time."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True
