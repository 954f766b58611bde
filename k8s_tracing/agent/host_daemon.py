# SPDX-License-Identifier: Apache-2.0
"""The machine's LTTng session daemon, or that of this user: used if there is one, started if there is none."""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path

from k8s_tracing.agent.daemon_process import (
    START_TIMEOUT_S,
    await_ready,
    consumer_daemons,
    end_remains,
    is_running,
    log_tail,
    read_pid,
    spawn,
    stop_group,
    wait_until,
)
from k8s_tracing.agent.lttng import Control, program
from k8s_tracing.errors import SessionError

log = logging.getLogger(__name__)

# Whoever started the machine's daemon may start it again, as systemd does; two at a time would be in each other's way.
OWNER_GRACE_S = 10.0


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
        self.is_expendable = False  # as with `PrivateDaemon`
        self._pid: int | None = None
        self._running: int | None = None

    def __enter__(self) -> HostDaemon:
        try:
            self._find_or_start()
        except BaseException:
            self._stop()
            raise
        return self

    def _find_or_start(self) -> None:
        self._process = self._pid = None
        running = read_pid(_run_folder() / "lttng-sessiond.pid")
        if self.control.answers():
            ours = read_pid(self._marker)
            self._running = running
            self._pid = running if running is not None and running == ours else None
            return
        words = [program("lttng-sessiond"), "--no-kernel"]
        self._process = spawn(words, self.control.command_env(), self._log_path)
        self._running = self._pid = self._process.pid
        self._marker.write_text(f"{self._pid}\n")
        await_ready(_run_folder(), self._process, self._log_path, self._start_timeout_s, str(self))

    def __exit__(self, *error: object) -> None:
        self._stop()

    def __str__(self) -> str:
        owner = "the machine's" if self._pid is None else f"started here, process {self._pid}"
        return f"session daemon ({owner})"

    @property
    def is_ours(self) -> bool:
        """Did we, or an earlier agent with the same `state`, start it?"""
        return self._pid is not None

    def processes(self) -> list[int]:
        """The daemon, and the consumer daemons that it has started; none if its process is not known here."""
        return (
            [self._running, *consumer_daemons(self._running)] if self._running is not None else []
        )

    def restart(self) -> None:
        """As `PrivateDaemon.restart`; one that is not ours is waited for, and replaced when it stays away.

        Raises:
            SessionError: There is none yet, or one that we may not end is of no use.
        """
        if self._pid is not None:
            end_remains(self._pid, self._process)
            log.info("it had said: %s", log_tail(self._log_path))
        elif self._running is not None:
            broken = self._running
            if is_running(broken) and self._is_useful(broken):
                return
            wait_until(lambda: self._owner_is_back(broken), OWNER_GRACE_S)
            if is_running(broken):
                raise SessionError(
                    f"the session daemon, process {broken}, hangs or has lost its consumer daemon, and was not started "
                    "here: restart it, for instance by `systemctl restart lttng-sessiond`"
                )
        self._find_or_start()

    def _is_useful(self, pid: int) -> bool:
        """It answers, and its consumer daemon, which it starts with the first session, has not died."""
        consumers = consumer_daemons(pid)
        return self.control.answers() and (not consumers or any(map(is_running, consumers)))

    def _owner_is_back(self, old: int) -> bool:
        running = read_pid(_run_folder() / "lttng-sessiond.pid")
        return running is not None and running != old and self.control.answers()

    def grant(self, folder: Path) -> None:
        """Nothing to do: this daemon writes as the user who talks to it."""

    def _stop(self) -> None:
        if self._pid is None:
            return
        stop_group(self._pid, self._process, hard=self.is_expendable)
        self._marker.unlink(missing_ok=True)
        self._log_path.unlink(missing_ok=True)
        self._pid = self._process = None


def _run_folder() -> Path:
    """Where the daemon that this user's applications find by themselves has its sockets."""
    if os.geteuid() == 0:
        return Path("/var/run/lttng")
    return Path(os.environ.get("LTTNG_HOME") or os.environ.get("HOME") or "/") / ".lttng"
