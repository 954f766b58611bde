"""A private lttng-sessiond, its sessions, and what they recorded.

A test never uses the machine's own session daemon: `SessionDaemon` starts one that keeps all its
sockets, its lock and its traces in a temporary folder, so that any number run side by side, as
root and as any user.

How it is made private: a session daemon that does not run as root keeps everything under
$LTTNG_HOME/.lttng, but one that runs as root always uses /var/run/lttng, where there is room for
one. So root starts it with the user id `DAEMON_UID`, which belongs to nobody. Such a daemon records
the applications of every user, root's too; only its own files must lie where it may write.
"""

import grp
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.support import bt2text
from tests.support.bt2text import Event
from tests.support.wait import wait_for

# 65520..65533 are given to no user by systemd's and Debian's tables. nobody's 65534 is not for
# us: whatever else runs as nobody could stop the daemon.
DAEMON_UID = 65521

CONTEXTS = ("vpid", "vtid", "pid_ns", "cgroup_ns")

# A socket's path has to fit into the 108 bytes of struct sockaddr_un; this is the longest one.
_LONGEST_SOCKET = "/.lttng/ustconsumerd64/command"

# A command that takes longer hangs: on LTTng up to 2.14, stop and destroy wait for ever for a
# buffer in which a killed process had reserved space.
_COMMAND_TIMEOUT_S = 30

# LTTng sends the members of this group to root's daemon when there is one, not to their own. The
# option says that another group has this meaning, one that nobody is in.
_TRACING_GROUP = "tracing"
_NOT_ROOTS_DAEMON = "--group=nobody-is-in-this-group"


class LttngError(AssertionError):
    """A command of LTTng or babeltrace2 failed; the message says which and what it wrote."""


def require(program: str) -> str:
    """Return the path of `program`.

    Raises:
        LttngError: it is not installed. Tests that need it fail then; they do not skip.
    """
    path = shutil.which(program)
    if path is None:
        raise LttngError(f"{program} is not installed, and this test needs it: run `make setup`")
    return path


class SessionDaemon:
    """A private lttng-sessiond, from `with SessionDaemon() as daemon:` to the end of the block."""

    def __init__(self) -> None:
        # Not pytest's tmp_path: that is too long for a socket.
        self.home = Path(tempfile.mkdtemp(prefix="k8st-"))
        longest = len(os.fsencode(self.home)) + len(_LONGEST_SOCKET)
        assert longest < 108, f"TMPDIR is too long for a socket's path: {self.home}"
        self.sessions: list[Session] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """The environment for a program that this daemon shall record.

        A program waits in liblttng-ust's constructor until the daemon has told it what to record,
        10 s at most: without that, what a short program does first is not recorded.
        """
        own = {"LTTNG_HOME": str(self.home), "LTTNG_UST_REGISTER_TIMEOUT": "10000"}
        return dict(os.environ) | own

    def __enter__(self) -> "SessionDaemon":
        (self.home / ".lttng").mkdir()
        # Others may pass, so that programs of other users can be recorded; they may not look.
        for folder in (self.home, self.home / ".lttng"):
            folder.chmod(0o711)
            if os.geteuid() == 0:
                os.chown(folder, DAEMON_UID, DAEMON_UID)
        # --pdeathsig: also a test run that is killed leaves no daemon behind.
        command = [*_outside_group(), require("setpriv"), "--pdeathsig=TERM", *_AS_DAEMON, "--"]
        command += [require("lttng-sessiond"), "--no-kernel"]
        with (self.home / "sessiond.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            wait_for(f"{self.home}: sockets of lttng-sessiond", self._is_ready)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            for session in self.sessions:
                session.destroy()
        finally:
            self._stop()
            shutil.rmtree(self.home, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The process id of lttng-sessiond."""
        assert self._process is not None, "the daemon was not started"
        return self._process.pid

    def log(self) -> str:
        """Return what the daemon wrote on its standard output and error."""
        return (self.home / "sessiond.log").read_text(errors="replace")

    def lttng(self, *arguments: str) -> str:
        """Run `lttng ARGUMENTS` against this daemon; return its output.

        Raises:
            LttngError: it failed, or took longer than 30 s.
        """
        command = [require("setpriv"), *_AS_DAEMON, "--", require("lttng"), "--no-sessiond"]
        command += [_NOT_ROOTS_DAEMON, *arguments]
        try:
            done = _run(command, self.env)
        except LttngError as error:
            raise LttngError(f"{error}\nlog of lttng-sessiond:\n{self.log()}") from None
        return done.stdout

    def session(
        self,
        name: str,
        events: Sequence[str] = ("k8s_tracing:*",),
        contexts: Sequence[str] = CONTEXTS,
        channel_options: Sequence[str] = (),
    ) -> "Session":
        """Create and start a session that records `events` with `contexts`.

        `channel_options` go to `lttng enable-channel`, for instance ("--subbuf-size=64k",).
        """
        output = self.home / "traces" / name
        in_session = ("--userspace", "--session", name)
        self.lttng("create", name, "--output", str(output))
        session = Session(self, name, output)
        self.sessions.append(session)
        self.lttng("enable-channel", *in_session, *channel_options, "spans")
        for event in events:
            self.lttng("enable-event", *in_session, "--channel", "spans", event)
        if contexts:
            types = [word for context in contexts for word in ("--type", context)]
            self.lttng("add-context", *in_session, "--channel", "spans", *types)
        self.lttng("start", name)
        return session

    def _is_ready(self) -> bool:
        """Whether it takes commands and applications; the two sockets are not made at once."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise LttngError(f"lttng-sessiond ended at its start:\n{self.log()}")
        run_dir = self.home / ".lttng"
        # lttng-ust-sock-8 up to LTTng 2.14, -11 from 2.15 on
        application_sockets = list(run_dir.glob("lttng-ust-sock-*"))
        paths = [run_dir / "client-lttng-sessiond", *application_sockets]
        return bool(application_sockets) and all(_accepts(path) for path in paths)

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Session:
    """A recording session of a private daemon; `SessionDaemon.session` makes it."""

    def __init__(self, daemon: SessionDaemon, name: str, output: Path) -> None:
        self.daemon = daemon
        self.name = name
        self.output = output
        self._stopped = False
        self._destroyed = False

    def stop(self) -> None:
        """Stop recording; return when all that was recorded is on disk."""
        if not self._stopped:
            self.daemon.lttng("stop", self.name)
            self._stopped = True

    def read(self) -> list[Event]:
        """Stop recording and return the events in the order of their time.

        Raises:
            LttngError: babeltrace2 failed, or it says that events are missing.
        """
        self.stop()
        return read_trace(self.output)

    def destroy(self) -> None:
        """Remove the session from the daemon; its files stay until the daemon ends."""
        if not self._destroyed:
            self._destroyed = True
            self.daemon.lttng("destroy", "--no-wait", self.name)


def read_trace(folder: Path) -> list[Event]:
    """Return all events below `folder` in the order of their time.

    Raises:
        LttngError: babeltrace2 failed, or it says that events are missing.
    """
    command = [require("babeltrace2"), *bt2text.OPTIONS, str(folder)]
    done = _run(command, dict(os.environ))
    # What LTTng discarded is a warning to babeltrace2, and must not look like a shorter trace.
    if "discarded" in done.stderr or "lost" in done.stderr:
        raise LttngError(f"the trace has gaps: {done.stderr}")
    return bt2text.parse(done.stdout)


def _as_daemon() -> list[str]:
    if os.geteuid() != 0:
        return []
    return [f"--reuid={DAEMON_UID}", f"--regid={DAEMON_UID}", "--clear-groups"]


_AS_DAEMON = _as_daemon()


def _outside_group() -> list[str]:
    """Return what to put before the daemon's command so that it is not in the group `tracing`.

    A member's daemon refuses to start while root's daemon runs, and no option says otherwise. In
    a user namespace with only the user's own ids, other groups are nobody's.
    """
    if os.geteuid() == 0 or _TRACING_GROUP not in map(_group_name, os.getgroups()):
        return []
    return [require("unshare"), "--user", "--map-current-user", "--"]


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def _run(command: Sequence[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    shown = " ".join(command)
    try:
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LttngError(f"`{shown}` hangs: not done in {error.timeout:g} s") from None
    if done.returncode != 0:
        raise LttngError(
            f"`{shown}` failed with exit status {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done
