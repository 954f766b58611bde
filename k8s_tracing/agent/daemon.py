# SPDX-License-Identifier: Apache-2.0
"""LTTng session daemons: one of our own below a folder, or the machine's.

What lttng-sessiond 2.13 fixes and what follows from it:

- With uid 0 its lock and its sockets are in /var/run/lttng, no option moves all of them, and root's `lttng` command
  looks nowhere else. So a private daemon that root starts runs as a user that nobody is: then everything lives below
  LTTNG_HOME. It records the applications of root and of every other user all the same.
- On SIGTERM it stops every session, writes out what the buffers hold and archives it: ending is not losing.
"""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from k8s_tracing.agent.lttng import Control, program
from k8s_tracing.errors import SessionError

log = logging.getLogger(__name__)

# Between systemd's dynamic users (up to 65519) and nobody (65534): given to no one by Debian's and systemd's tables.
DAEMON_UID = 65521

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0

_POLL_S = 0.02
_SOCKET_PATH_MAX = 107  # bytes; sun_path of unix(7) less its NUL
_LONGEST_SOCKET = "/.lttng/ustconsumerd64/command"
_LOG_LINES_IN_ERRORS = 8
_OUR_NAMES = ("lttng-sessiond", "setpriv", "unshare")  # the others become it in a moment


class PrivateDaemon:
    """A session daemon of our own, for as long as the `with` block lasts.

    It ends with the *thread* that enters the block, even if that dies by SIGKILL: the kernel then sends it SIGTERM
    (PR_SET_PDEATHSIG). That is set by setpriv(1) between fork and exec, because Python code that runs there
    (`preexec_fn`) can deadlock in a process with threads. Enter it from a thread that lives as long as the daemon
    should: the main thread.

    Args:
        directory: Holds the daemon's home `lttng/`; made when missing.
        start_timeout_s: How long it may take until it is ready.

    Attributes:
        env: What applications need in their environment to find this daemon.
        control: Commands to this daemon.
    """

    def __init__(self, directory: Path, *, start_timeout_s: float = START_TIMEOUT_S) -> None:
        self.directory = directory.absolute()
        self.control = Control()
        self.env: dict[str, str] = {}
        self._start_timeout_s = start_timeout_s
        self._home: Path | None = None
        self._made: list[Path] = []
        self._shortcut: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PrivateDaemon:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def __str__(self) -> str:
        return f"private daemon in {self.directory}"

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        if self._process is None:
            raise SessionError("the private daemon is not running")
        return self._process.pid

    def grant(self, folder: Path) -> None:
        """Let the daemon write in this folder, which is ours.

        Raises:
            SessionError: The daemon's user cannot come that far down the tree.
        """
        if self.control.uid is None:
            return
        for parent in folder.absolute().parents:
            if not _enterable(parent, self.control.uid):
                raise SessionError(
                    f"the session daemon, which runs as user {self.control.uid}, cannot reach {folder}: others may "
                    f"not enter {parent}. Choose a folder elsewhere, below /tmp or /var/lib, or `chmod o+x` it."
                )
        os.chown(folder, self.control.uid, self.control.uid)

    def _start(self) -> None:
        uid = DAEMON_UID if os.geteuid() == 0 else None
        home = self.directory / "lttng"
        self._wait_for_predecessor(home)
        self._home = home
        # 0711: the application socket is open to all, so that applications of other users are recorded as well.
        for folder in (self.directory, home, home / ".lttng"):
            self._make(folder)
        short = self._short(home)
        self.control = Control(short, uid)
        for folder in (home, home / ".lttng"):
            self.grant(folder)
        self.env = {
            "LTTNG_HOME": str(short),
            # A program that ends soon must not be through before it is registered: what it recorded until then would
            # be lost. Waits no longer than it takes.
            "LTTNG_UST_REGISTER_TIMEOUT": "10000",
        }
        as_user = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid is not None else []
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise SessionError(
                "setpriv was not found. On Debian and Ubuntu: apt-get install util-linux"
            )
        words = [*_outside_tracing_group(), setpriv, "--pdeathsig=TERM", *as_user]
        words += [program("lttng-sessiond"), "--no-kernel"]
        self._process = _spawn(words, self.control.command_env(), self._log_path)
        _await_ready(
            short / ".lttng", self._process, self._log_path, self._start_timeout_s, str(self)
        )

    @property
    def _log_path(self) -> Path:
        return self.directory / "lttng-sessiond.log"

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            return
        folder.chmod(0o711)
        self._made.append(folder)

    def _short(self, home: Path) -> Path:
        """`home`, or a symbolic link to it when the path of a socket in it would be too long for the kernel."""
        if len(os.fsencode(f"{home}{_LONGEST_SOCKET}")) <= _SOCKET_PATH_MAX:
            return home
        self._shortcut = Path(tempfile.mkdtemp(prefix="k8s-tracing-"))
        self._shortcut.chmod(0o711)
        link = self._shortcut / "home"
        link.symlink_to(home)
        return link

    def _wait_for_predecessor(self, home: Path) -> None:
        """Let a daemon end whose owner was killed: it is still writing out what it holds."""
        pid = read_pid(home / ".lttng" / "lttng-sessiond.pid")
        if pid is None or not group_alive(pid):
            return
        log.info("waiting for the daemon of an earlier run in %s, process %d, to end", home, pid)
        if not _wait_until(lambda: not group_alive(pid), STOP_TIMEOUT_S):
            raise SessionError(
                f"another session daemon, process {pid}, runs in {home}. Use another folder, or end it: kill {pid}"
            )

    def _stop(self) -> None:
        if self._process is not None:
            stop_group(self._process.pid, self._process)
            self._process = None
            self._log_path.unlink(missing_ok=True)
        if self._home is not None:
            shutil.rmtree(self._home / ".lttng", ignore_errors=True)
            (self._home / ".lttngrc").unlink(missing_ok=True)
            self._home = None
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):  # a folder that others put something in stays
                folder.rmdir()
        self._made.clear()
        if self._shortcut is not None:
            shutil.rmtree(self._shortcut, ignore_errors=True)
            self._shortcut = None
        if self.control.uid is not None:
            # How LTTng wakes the applications of the daemon's user: it has none.
            for path in Path("/dev/shm").glob(f"lttng-ust-wait-*-{self.control.uid}"):  # noqa: S108
                path.unlink(missing_ok=True)


class HostDaemon:
    """The session daemon that this user's applications find by themselves; started when there is none.

    One that we started outlives us if we are killed, so that the applications go on recording, and belongs to whoever
    uses the same `state` folder next. One that we did not start is never stopped.

    Args:
        state: Where to remember that the daemon is ours.
    """

    def __init__(self, state: Path, *, start_timeout_s: float = START_TIMEOUT_S) -> None:
        self.control = Control()
        self.env: dict[str, str] = {}
        self._marker = state / "lttng-sessiond.pid"
        self._log_path = state / "lttng-sessiond.log"
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None

    def __enter__(self) -> HostDaemon:
        running = read_pid(_run_folder() / "lttng-sessiond.pid")
        if self.control.answers():
            ours = read_pid(self._marker)
            self._pid = running if running is not None and running == ours else None
            return self
        words = [program("lttng-sessiond"), "--no-kernel"]
        self._process = _spawn(words, self.control.command_env(), self._log_path)
        self._pid = self._process.pid
        self._marker.write_text(f"{self._pid}\n")
        try:
            _await_ready(
                _run_folder(), self._process, self._log_path, self._start_timeout_s, str(self)
            )
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def __str__(self) -> str:
        owner = "the machine's" if self._pid is None else f"started here, process {self._pid}"
        return f"session daemon ({owner})"

    def grant(self, folder: Path) -> None:
        """Nothing to do: this daemon writes as the user who talks to it."""

    def _stop(self) -> None:
        if self._pid is None:
            return
        stop_group(self._pid, self._process)
        self._marker.unlink(missing_ok=True)
        self._log_path.unlink(missing_ok=True)
        self._pid = self._process = None


def read_pid(path: Path) -> int | None:
    """The process id in a file; None when there is no such file or it says something else."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def group_alive(pid: int) -> bool:
    """Does a session daemon with this id, or a consumer daemon that it left behind, still run?

    A daemon that we started leads a process group of its own, which its consumer daemons are in.
    """
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


def stop_group(pid: int, process: subprocess.Popen[bytes] | None) -> None:
    """End a daemon that we started, and whatever it started; hard when it does not listen."""

    def ended() -> bool:
        if process is not None:
            process.poll()  # a child that ended stays in the group until somebody asks
        return not group_alive(pid)

    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if _wait_until(ended, STOP_TIMEOUT_S):
        return
    log.warning("the session daemon, process %d, did not end on SIGTERM and is killed", pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if not _wait_until(ended, STOP_TIMEOUT_S):
        log.error("the session daemon, process %d, cannot be killed: look at `ps -g %d`", pid, pid)


def _outside_tracing_group() -> list[str]:
    """What to put before a daemon's command so that it is not in the group `tracing`.

    A daemon that a member starts refuses to run beside root's, and no option says otherwise. In a user namespace of
    its own, which maps only the user's own ids, no other group exists.
    """
    if os.geteuid() == 0:
        return []
    try:
        tracing = grp.getgrnam("tracing").gr_gid
    except KeyError:
        return []
    unshare = shutil.which("unshare")
    if tracing not in os.getgroups() or unshare is None:
        return []
    return [unshare, "--user", "--map-current-user", "--"]


def _spawn(words: list[str], env: dict[str, str], log_path: Path) -> subprocess.Popen[bytes]:
    with log_path.open("wb") as output:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=env,
            # Out of reach of the terminal's Ctrl-C, and a process group that can be ended as a whole.
            start_new_session=True,
        )


def _await_ready(
    folder: Path, process: subprocess.Popen[bytes], log_path: Path, timeout_s: float, what: str
) -> None:
    """Wait until the daemon listens to commands and to applications; about 20 ms on an idle machine."""

    def ready() -> bool:
        if process.poll() is not None:
            raise SessionError(
                f"the {what} ended at once with status {process.returncode}: {_tail(log_path)}"
            )
        clients = folder / "client-lttng-sessiond"
        # The number in the name is the generation of the protocol: 8 up to LTTng 2.14, 11 from 2.15.
        return _listens(clients) and any(map(_listens, folder.glob("lttng-ust-sock-*")))

    if not _wait_until(ready, timeout_s):
        raise SessionError(
            f"the {what} was not ready after {timeout_s:.0f} s: {_tail(log_path)}. "
            "Is the machine overloaded, or the disk full?"
        )


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def _tail(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()[-_LOG_LINES_IN_ERRORS:]
    except OSError:
        lines = []
    return "; ".join(line.strip() for line in lines if line.strip()) or "it logged nothing"


def _run_folder() -> Path:
    """Where the daemon that this user's applications find by themselves has its sockets."""
    if os.geteuid() == 0:
        return Path("/var/run/lttng")
    return Path(os.environ.get("LTTNG_HOME") or os.environ.get("HOME") or "/") / ".lttng"


def _enterable(folder: Path, uid: int) -> bool:
    info = folder.stat()
    return bool(info.st_mode & (stat.S_IXUSR if info.st_uid == uid else stat.S_IXOTH))


def _wait_until(done: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True
