# SPDX-License-Identifier: Apache-2.0
"""Record one program: a private daemon and one session in a temporary folder, for as long as the program runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from k8s_tracing.agent.chunks import chunk_folders
from k8s_tracing.agent.daemon import PrivateDaemon
from k8s_tracing.agent.export import Delivery, Exporter
from k8s_tracing.agent.leftovers import await_quiet, collect, shared_folder
from k8s_tracing.agent.relay import Relay, Request
from k8s_tracing.agent.session import Session
from k8s_tracing.agent.stopping import Stop
from k8s_tracing.errors import AgentError

# How long a receiver may be unwilling before the spans are given up: there is no spool to leave them in.
SEND_TIMEOUT_S = 10.0

# Stopping takes the daemon some 10 ms, unless the program was killed in the middle of an event: then it takes for ever.
# Nothing is lost either way, so this is only how long the user waits.
STOP_TIMEOUT_S = 3.0

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Recording:
    """What is recorded from the moment the block begins.

    Attributes:
        env: What a program needs in its environment to be recorded.
    """

    def __init__(self, daemon: PrivateDaemon, session: Session) -> None:
        self.env = dict(daemon.env)
        self._daemon = daemon
        self._session = session

    def finish(self, relay: Relay) -> list[Request]:
        """Stop recording and return all spans, those without an end included."""
        output = self._session.output
        collect(output, None if self.stop() else self._session.shm)
        requests = [request for chunk in chunk_folders(output) for request in relay.read(chunk)]
        return [*requests, *relay.finish()]

    def stop(self) -> bool:
        """Stop recording; returns False if there is something in the buffers that the daemon could not put on disk."""
        if not self._session.finish(timeout_s=STOP_TIMEOUT_S):
            self._daemon.is_expendable = True
            await_quiet(self._session.output)
        return not self._daemon.is_expendable


@contextmanager
def recording() -> Iterator[Recording]:
    """Make everything ready to record; no process, session or file of it is left after the block."""
    folder = Path(tempfile.mkdtemp(prefix="k8s-tracing-"))
    buffers = shared_folder(folder)
    # This one is new: what is there is left of one that was killed and had the same inode.
    shutil.rmtree(buffers, ignore_errors=True)
    try:
        folder.chmod(0o711)  # programs of other users, and root's daemon, pass through
        with PrivateDaemon(folder / "daemon") as daemon:
            output = folder / "trace"
            shm = buffers / "trace"
            for made in (output, buffers, shm):
                made.mkdir()
                made.chmod(0o711)
            for written in (output, shm):
                daemon.grant(written)
            session = Session("record", output, daemon.control, shm=shm)
            session.start()
            recorded = Recording(daemon, session)
            try:
                yield recorded
            finally:
                recorded.stop()
    finally:
        for left in (folder, buffers):
            shutil.rmtree(left, ignore_errors=True)


def run_program(command: Sequence[str], env: Mapping[str, str]) -> int:
    """Run a program in the foreground until it ends; signals to us go to it.

    Returns:
        Its exit status as a shell reports it: 128 + n after signal n.

    Raises:
        AgentError: It cannot be started.
    """
    started: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        if not started:
            early.append(number)
        elif not (number in (signal.SIGINT, signal.SIGQUIT) and _in_foreground()):
            started[0].send_signal(number)

    with _handled(_FORWARDED, forward):
        try:
            started.append(subprocess.Popen(command, env=dict(env)))
        except OSError as error:
            raise AgentError(f"cannot run {command[0]}: {error.strerror}") from error
        for number in early:
            started[0].send_signal(number)
        status = started[0].wait()
    return 128 - status if status < 0 else status


def send(requests: Sequence[Request], exporters: Sequence[Exporter]) -> Iterator[Delivery]:
    """Send requests to every exporter, with a limit on how long one may be unwilling.

    Yields:
        What became of the spans, for each exporter.
    """
    for exporter in exporters:
        stop = Stop()
        stop.request()
        stop.allow(SEND_TIMEOUT_S)
        delivery = Delivery(exporter, stop)
        try:
            for request in requests:
                if not delivery.deliver(request.body, request.spans):
                    break
                stop.allow(SEND_TIMEOUT_S)
        finally:
            stop.close()
        yield delivery


def _in_foreground() -> bool:
    """Has the terminal sent its Ctrl-C to the program as well? It sends it to its whole foreground group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


@contextmanager
def ended_in_order_by_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exit that unwinds, so that nothing is left behind."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with _handled((signal.SIGTERM, signal.SIGHUP), leave):
        yield


@contextmanager
def _handled(
    numbers: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)
