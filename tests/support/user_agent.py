"""An agent that uses a daemon of the user's, which goes on when the agent is killed.

What root's processes find is one for the whole machine. So this agent runs as a user who has LTTNG_HOME for himself.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from k8s_tracing.agent.daemon_process import group_alive

USER_ID = 65534

# Everything is loaded before: the checkout and the interpreter may lie in a home that others cannot read.
AS_USER = f"""
import os, sys
import k8s_tracing.agent.main, k8s_tracing.agent.otlp_http, k8s_tracing.agent.relay
import k8s_tracing.cli, k8s_tracing.libraries, k8s_tracing.otlp
k8s_tracing.libraries.load("relay")
if os.geteuid() == 0:
    os.setgroups([]); os.setresgid(*[{USER_ID}] * 3); os.setresuid(*[{USER_ID}] * 3)
sys.exit(k8s_tracing.cli.main(["agent", *sys.argv[1:]]))
"""


class UserAgents:
    """Agents of one user, one after another; in the end none is left, nor their daemon.

    Args:
        folder: Everything lies in it; the agents write their spans to `file`.
        environ: The agents' environment.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.spool, self.file = folder / "spool", folder / "spans.jsonl"
        home = folder / "home"
        for each in (folder, home, self.spool):
            each.mkdir(exist_ok=True)
            each.chmod(0o777)
        own = {"LTTNG_HOME": str(home), "LTTNG_UST_REGISTER_TIMEOUT": "10000"}
        self.env = {**environ, **own}
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "UserAgents":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._started:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()

    @property
    def as_user(self) -> dict[str, int]:
        """Arguments of `Popen` for a program that the agents shall record."""
        return {"user": USER_ID, "group": USER_ID} if os.geteuid() == 0 else {}

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start an agent; return when it records."""
        options = ["--spool", self.spool, "--output-file", self.file, "--rotation-s", "0.6"]
        options += ["--listen", "none"]
        started = subprocess.Popen(
            [sys.executable, "-c", AS_USER, *options, *arguments],
            env=self.env,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(started)
        assert started.stderr is not None
        said: Sequence[str] = []
        for line in started.stderr:
            said = [*said, line]
            if "sending to" in line:
                return started
        raise AssertionError(f"the agent ended: {said}")

    @property
    def daemon_pid(self) -> int:
        """The process id of the daemon, which must be alive."""
        pid = int((self.spool / "lttng-sessiond.pid").read_text())
        assert group_alive(pid)
        return pid
