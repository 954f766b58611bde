# SPDX-License-Identifier: Apache-2.0
"""The recording session: what is recorded, into which buffers, and how it gets to disk.

The session daemon rotates the session by itself. Every rotation closes a chunk: a complete LTTng trace of what was
recorded since the last one. It appears in `archives/` of the session's output folder by one rename, when nothing will
be written to it any more, and is an empty folder as long as no application has registered.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from k8s_tracing.agent.lttng import Control, version
from k8s_tracing.errors import SessionError

log = logging.getLogger(__name__)

PROVIDER = "k8s_tracing"
CHANNEL = "spans"

# Which thread of which process, and in which container: the inode numbers of two namespaces name the pod, and cost
# eight bytes an event instead of a string.
CONTEXTS = ("vpid", "vtid", "pid_ns", "cgroup_ns")

STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Buffers:
    """The channel's ring buffers: one for every CPU and every user id that records.

    Discard mode (LTTng's default) throws the newest events away when all is full, and counts them; the other choice
    is to make the application wait, which tracing must not do. Buffers are shared by the processes of a user
    (`--buffers-uid`, the default), so that a process costs no memory of its own and what it recorded outlives it.

    No switch timer: a rotation hands out what is in a half-full sub-buffer. No read timer: applications wake the
    consumer daemon when they fill a sub-buffer.

    Attributes:
        subbuf_size_bytes: An event larger than a sub-buffer is discarded, so this bounds the attributes of a span;
            a power of two.
        subbuf_count: Eight, so that the consumer daemon has seven more to fall behind in: 4 MiB a CPU are some 16,000
            spans, a third of a second at 50,000 spans/s from one CPU.
    """

    subbuf_size_bytes: int = 512 * 1024
    subbuf_count: int = 8


class Session:
    """One recording session of ours.

    Args:
        name: Its name in the session daemon.
        output: The folder that the daemon writes in.
        control: Commands to the daemon.
        buffers: Size of the ring buffers.
    """

    def __init__(
        self,
        name: str,
        output: Path,
        control: Control | None = None,
        *,
        buffers: Buffers | None = None,
    ) -> None:
        self.name = name
        self.output = output.absolute()
        self._control = control or Control()
        self._buffers = buffers or Buffers()
        self._exists = False

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
        size = f"--subbuf-size={self._buffers.subbuf_size_bytes}"
        count = f"--num-subbuf={self._buffers.subbuf_count}"
        self._control.run(
            "create", self.name, f"--output={self.output}", *_format_option(version())
        )
        self._exists = True
        try:
            self._control.run("enable-channel", "--userspace", *session, size, count, CHANNEL)
            types = [f"--type={context}" for context in CONTEXTS]
            self._control.run("add-context", "--userspace", *channel, *types)
            self._control.run("enable-event", "--userspace", *channel, f"{PROVIDER}:*")
            if rotation_s is not None:
                self._rotate_every(rotation_s)
            self._control.run("start", self.name)
        except BaseException:
            with contextlib.suppress(SessionError):
                self._control.run("destroy", "--no-wait", self.name)
            self._exists = False
            raise

    def adopt(self, *, rotation_s: float) -> None:
        """Go on with the session of this name and output, which an agent that was killed left recording."""
        self._exists = True
        found = find_session(self._control, self.name)
        if found is None or not found.complete:
            log.info("session %s was left half set up and is made anew", self.name)
            self._control.run("destroy", "--no-wait", self.name)
            self._exists = False
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
        try:
            self._control.run("stop", self.name, timeout_s=timeout_s)
            # Rotates once more if the session was ever rotated, and waits until that chunk is archived.
            self._control.run("destroy", self.name, timeout_s=timeout_s)
        except SessionError as error:
            log.warning(
                "session %s is removed without waiting for its last spans: %s", self.name, error
            )
            for command in ("stop", "destroy"):
                try:
                    self._control.run(command, "--no-wait", self.name, timeout_s=timeout_s)
                except SessionError as again:
                    log.warning("%s", again)
            return False
        return True

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


def find_session(control: Control, name: str) -> FoundSession | None:
    """Look a session up by its name."""
    if all(session.name != name for session in parse_sessions(control.query("list"))):
        return None
    found = parse_sessions(control.query("list", name))
    return found[0] if found else None


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


def _format_option(release: tuple[int, int]) -> tuple[str, ...]:
    """From 2.15 on the default is CTF 2, which the relay does not read; older ones lack the option."""
    return ("--trace-format=ctf-1.8",) if release >= (2, 15) else ()
