# SPDX-License-Identifier: Apache-2.0
"""The whole way of a span, for benchmarks: an agent with a session daemon of its own, told to send to a real Jaeger."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from k8s_tracing.agent.daemon import DAEMON_UID
from k8s_tracing.agent.lttng import Control
from tests.support.jaeger import Jaeger
from tests.support.wait import wait_for

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 60.0


def environment() -> dict[str, str]:
    """Return our environment without what would change how spans are sent; all receivers are on this machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return kept | {"NO_PROXY": "*", "no_proxy": "*"}


@dataclass
class RunningAgent:
    """An agent that is ready.

    Attributes:
        env: What an application needs in its environment.
        log: What the agent logged, from its end on.
    """

    process: subprocess.Popen[bytes]
    env: dict[str, str]
    daemon_pid: int
    session: str
    log: str = ""

    def discarded(self) -> int:
        """Return how many events LTTng discarded for want of room, as the session daemon counts them."""
        home = Path(self.env["LTTNG_HOME"])
        control = Control(home, DAEMON_UID if os.geteuid() == 0 else None)
        nodes = control.query("list", self.session).iter()
        return sum(int(node.text or 0) for node in nodes if node.tag.endswith("discarded_events"))

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU time so far of the agent and of LTTng's daemons, by the name of the program."""
        used = {"agent": 0.0, "lttng-sessiond": 0.0, "lttng-consumerd": 0.0}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                name, rest = stat.read_text().split(" (", 1)[1].rsplit(") ", 1)
            except OSError:  # it has ended
                continue
            fields = rest.split()
            ticks = int(fields[11]) + int(fields[12])
            if int(stat.parent.name) == self.process.pid:
                name = "agent"
            elif int(fields[2]) != self.daemon_pid:  # its process group
                continue
            name = "lttng-consumerd" if "consumer" in name else name
            key = name if name in used else "lttng-sessiond"
            used[key] += ticks / os.sysconf("SC_CLK_TCK")
        return used

    def summary(self) -> list[str]:
        """Return what the agent counted, from the end of its log; its complaints as well."""
        lines = [line.split(" ", 2)[2] for line in self.log.splitlines() if line.count(" ") > 2]
        counts = [line for line in lines if re.match(r"INFO .*\b(spans from|accepted)\b", line)]
        return counts + [line for line in lines if not line.startswith("INFO ")]


@contextmanager
def running_agent(jaeger: Jaeger) -> Iterator[RunningAgent]:
    """Start an agent as a node has it, but with a session daemon of its own, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="k8st-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        private = folder / "agent"
        words = [sys.executable, "-m", "k8s_tracing", "agent", "--private", str(private)]
        words += ["--endpoint", jaeger.otlp_http_endpoint]
        log = folder / "agent.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(words, env=environment(), stderr=stream, cwd=ROOT)
        ready = private / "env.json"
        try:
            wait_for("agent", lambda: ready.exists() or process.poll() is not None, PATIENCE_S)
            if not ready.exists():
                raise RuntimeError(f"the agent did not start: {log.read_text()}")
            info = json.loads(ready.read_text())
            env = environment() | info["environment"] | {"K8S_TRACING_BACKEND": "lttng"}
            agent = RunningAgent(process, env, info["daemon_pid"], info["session"])
            yield agent
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        agent.log = log.read_text()


def start_child(module: str, words: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    """Start `python -m module --child words`; its input and output are pipes."""
    command = [sys.executable, "-m", module, "--child", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)


def paced(
    work: Callable[[int], object], per_s: float, until: Callable[[], bool], tick_s: float
) -> int:
    """Call `work` with a number of spans to make, every `tick_s`, so that `per_s` are made in the long run.

    Returns:
        How many were made.
    """
    begin = time.monotonic()
    made = 0
    while not until():
        due = int((time.monotonic() - begin) * per_s) - made
        work(due)
        made += due
        time.sleep(tick_s)
    return made
