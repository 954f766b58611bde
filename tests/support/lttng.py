"""A private lttng-sessiond, its sessions, and what they recorded.

A test never uses the machine's own session daemon: `SessionDaemon` is the agent's own `PrivateDaemon` in a temporary
folder, so that any number run side by side, as root and as any user. Its sessions are made here, with the `lttng`
command, and read by babeltrace2: neither shares code with what is tested.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from k8s_tracing.agent.daemon import DAEMON_UID, PrivateDaemon
from k8s_tracing.errors import SessionError
from tests.support import bt2text
from tests.support.bt2text import Event
from tests.support.folder import open_folder

__all__ = ["DAEMON_UID", "LttngError", "Session", "SessionDaemon", "read_trace", "require"]

CONTEXTS = ("vpid", "vtid", "pid_ns", "cgroup_ns")

# babeltrace2 on a large trace
_COMMAND_TIMEOUT_S = 30


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
        self._stack = ExitStack()
        folder = self._stack.enter_context(open_folder())
        self._daemon = PrivateDaemon(folder)
        self.home = folder / "lttng"
        self.sessions: list[Session] = []

    @property
    def env(self) -> dict[str, str]:
        """The environment for a program that this daemon shall record, known before it starts.

        A program waits in liblttng-ust's constructor until the daemon has told it what to record, 10 s at most:
        without that, what a short program does first is not recorded.
        """
        own = {"LTTNG_HOME": str(self.home), "LTTNG_UST_REGISTER_TIMEOUT": "10000"}
        return dict(os.environ) | own

    def __enter__(self) -> "SessionDaemon":
        try:
            self._stack.enter_context(self._daemon)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._stack:
            for session in self.sessions:
                session.destroy()

    @property
    def pid(self) -> int:
        """The process id of lttng-sessiond."""
        return self._daemon.pid

    def lttng(self, *arguments: str) -> str:
        """Run `lttng ARGUMENTS` against this daemon; return its output.

        Raises:
            LttngError: it failed, or took too long.
        """
        try:
            return self._daemon.control.run(*arguments)
        except SessionError as error:
            log = (self.home.parent / "lttng-sessiond.log").read_text(errors="replace")
            raise LttngError(f"{error}\nlog of lttng-sessiond:\n{log}") from None

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
