# SPDX-License-Identifier: Apache-2.0
"""Keeps one session recording, whatever becomes of it and of the session daemon.

Looked for twice a second, without asking the daemon anything:

- **A process of the daemon has ended.** Without a session daemon nobody can register; without its consumer daemon
  nobody empties the buffers, and no other is started. A daemon of our own is ended and started again, another is waited
  for. Then a new session records to a new folder. Applications register again by themselves.
- **Rotations stand still.** LTTng up to 2.14 waits for ever for an event that its process, killed in the middle of it,
  will never finish; meanwhile the buffer fills up, and then everything on that CPU is discarded. So a second session is
  started beside the first, which is then abandoned. The same sign has a daemon that hangs, and a session that somebody
  stopped or destroyed: the daemon is asked which it is. (Counters are no sign: LTTng counts what is discarded in the
  packets that follow, and here none does.)

What an abandoned session held is made into chunks: leftovers.py.
"""

from __future__ import annotations

import contextlib
import logging
import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from k8s_tracing.agent.buffers import SHARED_MEMORY, Buffers, free_shared_memory_bytes
from k8s_tracing.agent.daemon import PrivateDaemon
from k8s_tracing.agent.daemon_process import is_running
from k8s_tracing.agent.host_daemon import HostDaemon
from k8s_tracing.agent.leftovers import await_quiet, collect, shared_folder
from k8s_tracing.agent.session import FoundSession, Session, find_session, list_sessions
from k8s_tracing.agent.spool import Spool
from k8s_tracing.errors import SessionError

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)

LOOK_S = 0.5

# A rotation takes the daemon up to a second. On a disk that is slower than this for so long, a second session does no
# harm: the first is still written out.
STALL_S = 5.0
_STALL_ROTATIONS = 5

# The daemon answers in 10 ms.
_ASK_TIMEOUT_S = 10.0

# Each keeps its buffers in memory for as long as the daemon runs.
_MAX_ABANDONED = 8

_FIRST_BACKOFF_S = 0.2
_MAX_BACKOFF_S = 30.0


@dataclass
class SessionStatus:
    """What the supervisor knows; read by any thread.

    Attributes:
        recording: Is there a session, and a daemon that serves it?
        session: Its name in the daemon.
        output: Where it records.
        daemon_restarts: How often a session daemon was gone and another took its place.
        stalls: How often a session was replaced because its buffers stalled.
        resumed: How often a session was gone, stopped, or cut off by a full disk, and recording began again.
        problem: What is wrong now, and what to do.
    """

    recording: bool = False
    session: str = ""
    output: Path | None = None
    daemon_restarts: int = 0
    stalls: int = 0
    resumed: int = 0
    problem: str | None = None

    def check(self) -> str:
        """What is wrong; empty if nothing is."""
        return "" if self.recording else self.problem or "no session records"


class Supervisor:
    """Owns a daemon and a session from the beginning of the `with` block to `finish`.

    All of it happens in a thread of its own: a backend that is away holds up the agent's loop, not this. And a private
    daemon lives as long as the thread that started it.

    Args:
        daemon: Not yet entered.
        stall_s: How long rotations may stand still.
    """

    def __init__(
        self,
        name: str,
        spool: Spool,
        daemon: PrivateDaemon | HostDaemon,
        *,
        rotation_s: float,
        buffers: Buffers | None = None,
        stall_s: float | None = None,
    ) -> None:
        self.status = SessionStatus()
        self._name = name
        self._spool = spool
        self._daemon = daemon
        self._rotation_s = rotation_s
        self._buffers = buffers or Buffers()
        self._on_recording: Callable[[], None] = lambda: None
        self._stall_s = stall_s or max(STALL_S, _STALL_ROTATIONS * rotation_s)
        self._session: Session | None = None
        self._processes: list[int] = []
        self._abandoned = 0
        self._warned_of_memory = False
        self._progress: tuple[int | None, float] = (None, 0.0)
        self._error: BaseException | None = None
        self._ready = threading.Event()
        self._renew = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="session", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def __exit__(self, *error: object) -> None:
        self.finish()

    def on_recording(self, call: Callable[[], None]) -> None:
        """Call this now, and in the supervisor's thread whenever recording has begun again."""
        call()
        self._on_recording = call

    def renew(self) -> None:
        """Have another session take over, for this one is damaged; any thread."""
        self._renew.set()

    def finish(self) -> None:
        """Stop recording and end the daemon if it is ours. All that was recorded is in the spool then."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            with contextlib.ExitStack() as stack:
                stack.callback(self._clear_up)
                stack.enter_context(self._daemon)
                self._begin()
                self._ready.set()
                while not self._stop.wait(LOOK_S):
                    try:
                        self._look()
                    except (SessionError, OSError) as error:
                        self._lost(str(error))
                self._end()
        except BaseException as error:
            self._error = error
            if self._ready.is_set():
                self.status.recording = False
                self.status.problem = f"the session is no longer looked after: {error}"
                log.exception("the session is no longer looked after: restart the agent")
        finally:
            self._ready.set()

    # The beginning and the end

    def _begin(self) -> None:
        """Start the first session, or go on with the one that an agent that was killed left recording."""
        ours = self._sessions_of_ours()
        found = find_session(self._daemon.control, ours[-1].name) if ours else None
        if found is not None and found.complete:
            ours.pop()
        else:
            found = None
        for old in ours:
            log.info("session %s was given up by an earlier agent and is removed", old.name)
            self._abandon(self._session_of(old))
        live = found.output if found is not None else None
        if live is None:
            self._start()
        left = self._spool.recover(live or self.status.output)
        if left:
            log.info("an earlier run left %d chunks: they are sent first", left)
        if found is not None:
            session = self._session_of(found)
            log.info(
                "session %s records already: taken over from an agent that was killed", session
            )
            session.adopt(rotation_s=self._rotation_s)
            self._recording(session)

    def _sessions_of_ours(self) -> list[FoundSession]:
        """Those that record to our spool, the oldest first.

        Raises:
            SessionError: Somebody else's has the name that we need.
        """
        found = list_sessions(self._daemon.control)
        for other in found:
            if other.name == self._name and not self._spool.holds(other.output):
                raise SessionError(
                    f"the session {other.name!r} exists and records to {other.output}, which is not in the spool "
                    f"{self._spool.root}: choose another name with --session, or `lttng destroy {other.name}` "
                    "if nobody needs it"
                )
        ours = [session for session in found if self._spool.holds(session.output)]
        return sorted(ours, key=lambda session: session.output.name)

    def _end(self) -> None:
        session, self._session = self._session, None
        self.status.recording = False
        if session is not None and not session.finish(timeout_s=_ASK_TIMEOUT_S):
            self._daemon.is_expendable = True
            await_quiet(session.output)

    def _clear_up(self) -> None:
        """Nobody records any more: all is made into chunks, and the buffers' folders are removed."""
        self._spool.recover(live=None)
        shutil.rmtree(shared_folder(self._spool.root), ignore_errors=True)

    # Sessions

    def _start(self) -> None:
        """Start a session in a new folder, under a name that no session has."""
        names = {session.name for session in list_sessions(self._daemon.control)}
        number = 1
        name = self._name
        while name in names:
            number += 1
            name = f"{self._name}-{number}"
        output = self._spool.new_session()
        shm = self._shm(output)
        for folder in (shm.parent, shm):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o711)
        self._daemon.grant(output)
        self._daemon.grant(shm)
        session = Session(name, output, self._daemon.control, buffers=self._buffers, shm=shm)
        session.start(rotation_s=self._rotation_s)
        self._recording(session)

    def _recording(self, session: Session) -> None:
        self._session = session
        self._processes = [each for each in self._daemon.processes() if is_running(each)]
        self._progress = (None, time.monotonic())
        self.status.session = session.name
        self.status.output = session.output
        self.status.problem = None
        self.status.recording = True
        log.info("%s, session %s, recording to %s", self._daemon, session, session.output)
        self._on_recording()

    def _session_of(self, found: FoundSession) -> Session:
        control = self._daemon.control
        shm = self._shm(found.output)
        return Session(
            found.name, found.output, control, buffers=self._buffers, shm=shm, exists=True
        )

    def _shm(self, output: Path) -> Path:
        return shared_folder(self._spool.root) / output.name

    # Looking after it

    def _look(self) -> None:
        if self._session is None:
            self._restart()
        elif not all(map(is_running, self._processes)):
            self._lost("a process of the session daemon has ended")
        elif self._renew.is_set():
            self._renew.clear()
            log.warning("session %s was cut off by a full disk: another takes over", self._session)
            self.status.resumed += 1
            self._replace(self._session)
        elif self._stands_still(self._session):
            self._ask_why(self._session)
        self._look_at_memory()

    def _stands_still(self, session: Session) -> bool:
        seen, since = self._progress
        rotations = session.rotations()
        if rotations is None or rotations != seen:
            # An output folder that nobody has rotated in shows by its age as well.
            since = since if rotations is None and seen is None else time.monotonic()
            self._progress = (rotations, since)
        return time.monotonic() - since > self._stall_s

    def _ask_why(self, session: Session) -> None:
        self._progress = (None, time.monotonic())
        try:
            found = find_session(self._daemon.control, session.name, timeout_s=_ASK_TIMEOUT_S)
        except SessionError as error:
            self._lost(f"the session daemon hangs ({error})")
            return
        if found is None or found.output != session.output:
            log.warning("session %s was destroyed by somebody else: another is started", session)
            self._replace(session, exists=False)
            self.status.resumed += 1
        elif not found.started:
            log.warning("session %s was stopped by somebody else: it is started again", session)
            session.adopt(rotation_s=self._rotation_s)
            self.status.resumed += 1
        else:
            self.status.stalls += 1
            log.warning(
                "session %s has not ended a rotation for %.0f s: a process was killed in the middle of an event, or "
                "the disk stands still. Another session takes over; what this one holds is fetched",
                session,
                self._stall_s,
            )
            self._replace(session)

    def _replace(self, old: Session, *, exists: bool = True) -> None:
        """Start a new session, and only then abandon the old one: what both record, the relay takes once."""
        try:
            self._start()
            if exists:
                self._abandon(old)
            else:
                self._collect(old)
        except SessionError as error:
            self._lost(str(error))
            return
        if self._abandoned >= _MAX_ABANDONED and self._daemon.is_ours:
            self._lost(f"{self._abandoned} abandoned sessions keep their buffers in memory")

    def _abandon(self, old: Session) -> None:
        """Fetch what a session holds and remove it, without waiting for what will never come."""
        self._abandoned += 1
        self._daemon.is_expendable = True
        old.pause(timeout_s=_ASK_TIMEOUT_S)
        old.drop(timeout_s=_ASK_TIMEOUT_S)
        self._collect(old)

    def _collect(self, old: Session) -> None:
        await_quiet(old.output)
        made = collect(old.output, old.shm)
        log.info("%d chunks were made of what session %s left", made, old)

    # The daemon

    def _lost(self, reason: str) -> None:
        """The daemon is of no use any more."""
        log.warning("%s: recording goes on when there is one again", reason)
        self.status.recording = False
        self.status.problem = reason
        self._session = None
        self._restart()

    def _restart(self) -> None:
        """Have a daemon again, and a session in it; until then try again, more and more seldom."""
        wait_s = _FIRST_BACKOFF_S
        is_there = False
        while not self._stop.is_set():
            try:
                if not is_there:
                    self._daemon.restart()
                    is_there = True
                    self._daemon.is_expendable = False
                    self._abandoned = 0
                self._start()
                break
            except (SessionError, OSError) as error:
                is_there = is_there and self._daemon.control.answers()
                self.status.problem = str(error)
                log.warning("%s. Next attempt in about %.1f s", error, wait_s)
            self._stop.wait(wait_s * random.uniform(0.8, 1.2))  # noqa: S311  not a secret
            wait_s = min(2 * wait_s, _MAX_BACKOFF_S)
        else:
            return
        self.status.daemon_restarts += 1
        self._spool.recover(self.status.output)

    def _look_at_memory(self) -> None:
        """LTTng leaves a process out whose buffers it has no memory for, and says so only in its own log."""
        with contextlib.suppress(SessionError):
            free = free_shared_memory_bytes()
            short = free < self._buffers.owner_bytes()
            if short and not self._warned_of_memory:
                log.warning(
                    "%s has %d MiB left: the next %s that records is left out, its buffers take %d MiB. "
                    "Enlarge it, or choose less with --buffer-memory",
                    SHARED_MEMORY,
                    free >> 20,
                    "user" if self._buffers.owner == "uid" else "process",
                    self._buffers.owner_bytes() >> 20,
                )
            self._warned_of_memory = short
