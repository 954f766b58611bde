# SPDX-License-Identifier: Apache-2.0
"""An LTTng session daemon of our own, below a folder.

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
import stat
import subprocess
import tempfile
from pathlib import Path

from k8s_tracing.agent.daemon_process import (
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
    await_ready,
    consumer_daemons,
    end_remains,
    group_alive,
    is_locked,
    log_tail,
    read_pid,
    spawn,
    stop_group,
    wait_until,
)
from k8s_tracing.agent.lttng import Control, program, version
from k8s_tracing.agent.waking import let_sleep, wake_applications
from k8s_tracing.errors import SessionError

log = logging.getLogger(__name__)

# Between systemd's dynamic users (up to 65519) and nobody (65534): given to no one by Debian's and systemd's tables.
DAEMON_UID = 65521

_SOCKET_PATH_MAX = 107  # bytes; sun_path of unix(7) less its NUL
_LONGEST_SOCKET = "/.lttng/ustconsumerd64/command"


class PrivateDaemon:
    """A session daemon of our own, for as long as the `with` block lasts.

    It ends with the *thread* that enters the block, even if that dies by SIGKILL: the kernel then sends it SIGTERM
    (PR_SET_PDEATHSIG). That is set by setpriv(1) between fork and exec, because Python code that runs there
    (`preexec_fn`) can deadlock in a process with threads. Enter it from a thread that lives as long as the daemon
    should: the main thread.

    Args:
        directory: Holds the daemon's home `lttng/`; made when missing.
        app_socket_dir: Put the socket for applications into this folder, which then is all that they need to reach:
            the folder that containers share. There it has the name that liblttng-ust looks for in /var/run/lttng.
        start_timeout_s: How long it may take until it is ready.

    Attributes:
        env: What applications need in their environment to find this daemon.
        control: Commands to this daemon.
    """

    def __init__(
        self,
        directory: Path,
        *,
        app_socket_dir: Path | None = None,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self.directory = directory.absolute()
        self._app_socket = app_socket_dir and app_socket_dir.absolute() / _app_socket_name()
        self.control = Control()
        self.env: dict[str, str] = {}
        self._start_timeout_s = start_timeout_s
        self._home: Path | None = None
        self._short_home: Path | None = None
        self._made: list[Path] = []
        self._woken: list[Path] = []
        self._shortcut: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PrivateDaemon:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def __str__(self) -> str:
        return f"private daemon in {self.directory}"

    @property
    def pid(self) -> int:
        """The daemon's process id.

        Raises:
            SessionError: It is not running.
        """
        if self._process is None:
            raise SessionError("the private daemon is not running")
        return self._process.pid

    is_ours = True

    # Set it when the daemon is not to be waited for at its end, because stalled buffers would keep it for ever.
    is_expendable = False

    def processes(self) -> list[int]:
        """The daemon, and the consumer daemons that it has started."""
        return [self.pid, *consumer_daemons(self.pid)]

    def restart(self) -> None:
        """End what is left of a daemon that died or hangs, and start another one in its place.

        Call it in a thread that lives as long as the daemon should.

        Raises:
            SessionError: It did not start.
        """
        if self._process is not None:
            end_remains(self.pid, self._process)
            log.info("it had said: %s", log_tail(self._log_path))
            self._process = None
        self._launch()

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
        self._short_home = short
        if self._app_socket is not None:
            self._make(self._app_socket.parent, mode=0o755)  # applications look what is in it
            self.grant(self._app_socket.parent)
        self.env = {
            # Read from LTTng 2.14 on; up to 2.13 the folder has to be mounted on /var/run/lttng.
            **(
                {"LTTNG_UST_APP_PATH": str(self._app_socket.parent)}
                if self._app_socket
                else {"LTTNG_HOME": str(short)}
            ),
            # A program that ends soon must not be through before it is registered: what it recorded until then would
            # be lost. Waits no longer than it takes.
            "LTTNG_UST_REGISTER_TIMEOUT": "10000",
        }
        self._launch()

    def _launch(self) -> None:
        uid, short = self.control.uid, self._short_home
        assert short is not None
        sessiond = program("lttng-sessiond")
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise SessionError(
                "setpriv was not found. On Debian and Ubuntu: apt-get install util-linux"
            )
        as_user = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid is not None else []
        words = [*_outside_tracing_group(), setpriv, "--pdeathsig=TERM", *as_user]
        words += [sessiond, "--no-kernel"]
        if self._app_socket is not None:
            words.append(f"--apps-sock={self._app_socket}")
        self._process = spawn(words, self.control.command_env(), self._log_path)
        await_ready(
            short / ".lttng",
            self._process,
            self._log_path,
            self._start_timeout_s,
            str(self),
            app_sockets=self._app_socket and self._app_socket.parent,
        )
        if uid is not None:
            self._woken += wake_applications()

    @property
    def _log_path(self) -> Path:
        return self.directory / "lttng-sessiond.log"

    def _make(self, folder: Path, *, mode: int = 0o711) -> None:
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            return
        folder.chmod(mode)
        self._made.append(folder)

    def _short(self, home: Path) -> Path:
        """`home`, or a symbolic link to it when the path of a socket in it would be too long for the kernel."""
        if _sockets_fit(home):
            return home
        for temporary in (tempfile.gettempdir(), "/tmp"):  # noqa: S108  mkdtemp makes a folder of ours in it
            link = Path(temporary) / "k8s-tracing-XXXXXXXX" / "home"
            if _sockets_fit(link):
                self._shortcut = Path(tempfile.mkdtemp(prefix="k8s-tracing-", dir=temporary))
                self._shortcut.chmod(0o711)
                link = self._shortcut / "home"
                link.symlink_to(home)
                return link
        raise SessionError(
            f"the path {home} is too long for sockets, and so is that of the folder for temporary files: "
            "choose a shorter one with --private, or set TMPDIR"
        )

    def _wait_for_predecessor(self, home: Path) -> None:
        """Let a daemon end whose owner was killed: it is still writing out what it holds."""
        pid = read_pid(home / ".lttng" / "lttng-sessiond.pid")

        def gone() -> bool:
            # It removes the file with its pid long before it is through, and lets go of the lock last.
            return not is_locked(home / ".lttng" / "lttng-sessiond.lck") and not (
                pid is not None and group_alive(pid)
            )

        if gone():
            return
        log.info("waiting for the session daemon of an earlier run in %s to end", home)
        if not wait_until(gone, STOP_TIMEOUT_S):
            who = f"process {pid}" if pid is not None else "whose process is not known"
            raise SessionError(
                f"another session daemon, {who}, runs in {home}. Use another folder, or end it with SIGTERM"
            )

    def _stop(self) -> None:
        if self._process is not None:
            stop_group(self._process.pid, self._process, hard=self.is_expendable)
            self._process = None
            self._log_path.unlink(missing_ok=True)
            if self._app_socket is not None:
                self._app_socket.unlink(missing_ok=True)
        let_sleep(self._woken)
        self._woken.clear()
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


def _app_socket_name() -> str:
    """The name in which liblttng-ust of the daemon's release looks for a daemon: the protocol's generation."""
    return f"lttng-ust-sock-{11 if version() >= (2, 15) else 8}"


def _sockets_fit(home: Path) -> bool:
    return len(os.fsencode(f"{home}{_LONGEST_SOCKET}")) <= _SOCKET_PATH_MAX


def _enterable(folder: Path, uid: int) -> bool:
    info = folder.stat()
    return bool(info.st_mode & (stat.S_IXUSR if info.st_uid == uid else stat.S_IXOTH))


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
