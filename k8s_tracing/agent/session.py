# SPDX-License-Identifier: Apache-2.0
"""The recording session: what is recorded, into which buffers, and how it gets to disk.

The session daemon rotates the session by itself. Every rotation closes a chunk: a complete LTTng trace of what was
recorded since the last one. It appears in `archives/` of the session's output folder by one rename, when nothing will
be written to it any more, and is an empty folder as long as no application has registered.

The buffers can be files (`shm`), so that what is in them can be read when nobody empties them any more: leftovers.py.
"""

from __future__ import annotations

import contextlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from k8s_tracing.agent.buffers import Buffers
from k8s_tracing.agent.leftovers import move_away
from k8s_tracing.agent.lttng import COMMAND_TIMEOUT_S, Control, command_options
from k8s_tracing.errors import SessionError

log = logging.getLogger(__name__)

PROVIDER = "k8s_tracing"
CHANNEL = "spans"

# Which thread of which process, and in which container: the inode numbers of two namespaces name the pod, and cost
# eight bytes an event instead of a string.
CONTEXTS = ("vpid", "vtid", "pid_ns", "cgroup_ns")

STOP_TIMEOUT_S = 20.0

_CHUNK = re.compile(r"\d{8}T\d{6}[+-]\d{4}-(\d+)")


class Session:
    """One recording session of ours.

    Args:
        name: Its name in the session daemon.
        output: The folder that the daemon writes in.
        control: Commands to the daemon.
        buffers: Whose the ring buffers are, and their size.
        shm: A folder in shared memory, which the daemon may write in: the buffers become files below it.
        exists: The daemon has it already.
    """

    def __init__(
        self,
        name: str,
        output: Path,
        control: Control | None = None,
        *,
        buffers: Buffers | None = None,
        shm: Path | None = None,
        exists: bool = False,
    ) -> None:
        self.name = name
        self.output = output.absolute()
        self._control = control or Control()
        self.shm = shm
        self._buffers = buffers or Buffers()
        self._exists = exists

    def __str__(self) -> str:
        return self.name

    @property
    def archives(self) -> Path:
        """Where finished chunks appear."""
        return self.output / "archives"

    def start(self, *, rotation_s: float | None = None) -> None:
        """Create the session and record.

        Args:
            rotation_s: Close a chunk this often; None to write one trace until `finish`.
        """
        session = ("--session", self.name)
        channel = (*session, "--channel", CHANNEL)
        place = [f"--output={self.output}"] + ([f"--shm-path={self.shm}"] if self.shm else [])
        self._control.run("create", self.name, *place, *_format_option(command_options("create")))
        self._exists = True
        try:
            buffers = self._buffers.options()
            self._control.run("enable-channel", "--userspace", *session, *buffers, CHANNEL)
            types = [f"--type={context}" for context in CONTEXTS]
            self._control.run("add-context", "--userspace", *channel, *types)
            self._control.run("enable-event", "--userspace", *channel, f"{PROVIDER}:*")
            if rotation_s is not None:
                self._rotate_every(rotation_s)
            self._control.run("start", self.name)
        except BaseException:
            with contextlib.suppress(SessionError):
                self.drop()
            raise

    def adopt(self, *, rotation_s: float) -> None:
        """Go on with the session of this name and output, which an agent that was killed left recording."""
        self._exists = True
        found = find_session(self._control, self.name)
        if found is None or not found.complete:
            log.info("session %s was left half set up and is made anew", self.name)
            self.drop()
            self.start(rotation_s=rotation_s)
            return
        if found.rotation_us != round(rotation_s * 1e6):
            if found.rotation_us is not None:
                self._control.run("disable-rotation", "--timer", "--session", self.name)
            self._rotate_every(rotation_s)
        if not found.started:
            self._control.run("start", self.name)

    def finish(self, *, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Stop recording, put what the buffers hold on disk, and remove the session.

        If the session was ever rotated, the last of it is one more chunk, else it lies in the output folder.

        Never raises and never hangs: with LTTng 2.14 and older a producer that was killed in the middle of an event
        stalls its buffer, and a command that waits for the data waits for ever. What is on disk stays there.

        Returns:
            False if that happened, and the daemon may still write.
        """
        if not self._exists:
            return True
        self._exists = False
        left = [self.pause, self.drop]
        try:
            self._control.run("stop", self.name, timeout_s=timeout_s)
            left = [self.drop]
            # Rotates once more if the session was ever rotated, and waits until that chunk is archived.
            self._control.run("destroy", self.name, timeout_s=timeout_s)
        except SessionError as error:
            log.warning(
                "session %s does not end, as when a process was killed in the middle of an event: %s",
                self.name,
                "what its buffers hold is fetched" if self.shm else "what its buffers hold is lost",
            )
            log.info("%s", error)
            for abandon in left:
                try:
                    abandon(timeout_s=timeout_s)
                except SessionError as again:
                    log.info("%s", again)
            return False
        return True

    def pause(self, *, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        """Have applications record to it no more; what the buffers hold is left to the daemon to fetch.

        Raises:
            SessionError: The daemon does not know it, or does not answer.
        """
        self._control.run("stop", "--no-wait", self.name, timeout_s=timeout_s)

    def drop(self, *, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        """Remove it from the daemon without waiting for anything.

        Its buffers' folder gets another name first: a daemon that removes a session with a `shm` waits, deaf to all
        commands, until that is gone, and where a buffer is stalled that is never (lttng-tools 2.13, `wait_on_path`).

        Raises:
            SessionError: As `pause`.
        """
        self._exists = False
        if self.shm is not None:
            move_away(self.shm)
        self._control.run("destroy", "--no-wait", self.name, timeout_s=timeout_s)

    def rotations(self) -> int | None:
        """How many rotations have begun; None before the first.

        It stands still when one does not end: a stalled buffer, or a daemon that writes no more. Read from the name of
        the folder that is written now, TIME-NUMBER: a look at a folder, where a command costs a process.
        """
        with contextlib.suppress(FileNotFoundError):
            numbers = (_CHUNK.fullmatch(path.name) for path in self.output.iterdir())
            return max((int(number[1]) for number in numbers if number), default=None)
        return None

    def _rotate_every(self, rotation_s: float) -> None:
        # A rotation takes the daemon half a second (it looks every 500 ms whether the last one is through), so a
        # shorter timer only skips beats.
        self._control.run(
            "enable-rotation", "--session", self.name, f"--timer={round(rotation_s * 1e6)}"
        )


@dataclass(frozen=True)
class FoundSession:
    """A session as the daemon describes it.

    Attributes:
        complete: It has our channel and our event rule.
        rotation_us: The period of its rotation timer, None without one.
    """

    name: str
    output: Path
    started: bool
    complete: bool
    rotation_us: int | None


def find_session(
    control: Control, name: str, *, timeout_s: float = COMMAND_TIMEOUT_S
) -> FoundSession | None:
    """Look a session up by its name."""
    if all(session.name != name for session in list_sessions(control, timeout_s=timeout_s)):
        return None
    found = parse_sessions(control.query("list", name, timeout_s=timeout_s))
    return found[0] if found else None


def list_sessions(control: Control, *, timeout_s: float = COMMAND_TIMEOUT_S) -> list[FoundSession]:
    """All sessions of this user, without what is only said of one: `complete` and `rotation_us`."""
    return parse_sessions(control.query("list", timeout_s=timeout_s))


def parse_sessions(answer: ElementTree.Element) -> list[FoundSession]:
    """Read the machine interface's answer to `list` or `list NAME`; the former says nothing of channels."""
    return [
        FoundSession(
            name=session.findtext("{*}name", ""),
            output=Path(session.findtext("{*}path", "")),
            started=session.findtext("{*}enabled") == "true",
            complete=any(
                channel.findtext("{*}name") == CHANNEL
                and any(
                    event.findtext("{*}name") == f"{PROVIDER}:*"
                    for event in channel.iterfind("{*}events/{*}event")
                )
                for channel in session.iterfind("{*}domains/{*}domain/{*}channels/{*}channel")
            ),
            rotation_us=_rotation_us(session),
        )
        for session in answer.iterfind("{*}output/{*}sessions/{*}session")
    ]


def _rotation_us(session: ElementTree.Element) -> int | None:
    text = session.findtext("{*}rotation_schedules/{*}periodic/{*}time_us")
    return int(text) if text else None


def _format_option(options: frozenset[str]) -> tuple[str, ...]:
    """From LTTng 2.15 on the default is CTF 2, which the relay does not read; older ones lack the option."""
    return ("--trace-format=ctf-1.8",) if "--trace-format" in options else ()
