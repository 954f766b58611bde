# SPDX-License-Identifier: Apache-2.0
"""What a traced request costs at HAProxy and nginx, with our lines against without, and in the agent.

    python -m benchmarks.ingress_cost [--seconds S] [--rounds N]

wrk asks each proxy, with and without our lines in turn, for a page of an nginx behind it. What a proxy costs is the CPU
time of its processes for each request; the agent's is that of its receiver: reading the line, making spans, encoding.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hotrod.config import Address
from hotrod.ingress import haproxy_command, nginx_command

from benchmarks.span_cost import machine
from k8s_tracing.dataplane.ingress.receiver import BATCH_SPANS, IngressReceiver
from k8s_tracing.otlp import to_request
from k8s_tracing.record import SpanRecord
from tests.support.ports import free_ports
from tests.support.proxies import listens
from tests.support.wait import wait_for

_TICKS = os.sysconf("SC_CLK_TCK")
_UPSTREAM = """worker_processes 1;
daemon off;
pid {folder}/pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 ok; }} }}
}}
"""


@contextmanager
def running(command: Sequence[str], port: int) -> Iterator[int]:
    """A program that listens; its process id."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    try:
        wait_for(f"{command[0]} listens", lambda: listens(port) or process.poll() is not None)
        assert process.poll() is None, f"{command[0]} has ended"
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


def without_our_lines(command: list[str]) -> list[str]:
    """The same configuration, but for what is ours."""
    config = Path(command[command.index("-f" if "-f" in command else "-c") + 1])
    plain = re.sub(r"(?ms)^    # k8s_tracing:.*?^    log-format [^\n]*\n", "", config.read_text())
    plain = re.sub(r"(?m)^ *include .*\n", "", plain).replace("http {", "http { access_log off;")
    config.write_text(plain)
    assert "k8st" not in plain
    return command


def cpu_s(pid: int) -> float:
    """CPU time of a process and its children, which for nginx are its workers."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0.0
    for each in (str(pid), *children):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / _TICKS
    return total


def load(port: int, seconds: int, pid: int) -> float:
    """CPU time of a proxy for each request, in us."""
    before = cpu_s(pid)
    words = ["wrk", "--threads", "1", "--connections", "8", "--duration", f"{seconds}s"]
    done = subprocess.run(
        [*words, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True
    )
    used = cpu_s(pid) - before
    assert "Non-2xx" not in done.stdout, done.stdout
    requests = int(re.findall(r"(\d+) requests in", done.stdout)[0])
    return used / requests * 1e6


class Agent:
    """The agent's receiver in this process, whose CPU time is what is measured; lines are kept to be taken again."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self._spans: list[SpanRecord] = []

    def us_a_request(self) -> dict[str, float]:
        """CPU time of each part for one request, the best of several turns."""
        with IngressReceiver(self._spans.extend, udp=("127.0.0.1", 0)) as receiver:
            best: dict[str, float] = {}
            for _ in range(7):
                start = time.process_time()
                for text in self.lines:
                    receiver.receive(text, time.time_ns())
                receiver.flush()
                spans, self._spans[:] = list(self._spans), []
                made = time.process_time()
                for first in range(0, len(spans), BATCH_SPANS):
                    to_request(spans[first : first + BATCH_SPANS])
                turn = {"read, make spans": made - start, "encode": time.process_time() - made}
                for part, took_s in turn.items():
                    one = took_s / len(self.lines) * 1e6
                    best[part] = min(one, best.get(part, one))
            assert not receiver.counts.refused, receiver.counts
        return best


def caught(receiver: socket.socket, count: int) -> list[bytes]:
    """Lines that a real proxy sent, from a plain socket; not those of whoever asked whether it listens."""
    receiver.settimeout(5)
    lines: list[bytes] = []
    while len(lines) < count:
        text = receiver.recv(65536)
        if b'"status":"200"' in text:
            lines.append(text)
    return lines


def measure(
    kind: str, seconds: int, rounds: int
) -> tuple[list[float], list[float], dict[str, float]]:
    """CPU time a request at a proxy, without our lines and with them, and in the agent."""
    write = haproxy_command if kind == "haproxy" else nginx_command
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(3)]
        for folder in folders:
            folder.chmod(0o711)
        behind, plain_port, traced_port = free_ports(3)
        config = folders[0] / "nginx.conf"
        config.write_text(_UPSTREAM.format(folder=folders[0], port=behind))
        upstream = ["nginx", "-c", str(config), "-e", str(folders[0] / "log")]
        stack.enter_context(running(upstream, behind))
        receiver = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        receiver.bind(("127.0.0.1", 0))
        log_to = f"127.0.0.1:{receiver.getsockname()[1]}"
        live = Address("127.0.0.1", behind)
        plain = write(folders[1], Address("127.0.0.1", plain_port), live, log_to)
        plain_pid = stack.enter_context(running(without_our_lines(plain), plain_port))
        traced = write(folders[2], Address("127.0.0.1", traced_port), live, log_to)
        traced_pid = stack.enter_context(running(traced, traced_port))
        without, with_lines = [], []
        for _ in range(rounds):
            without.append(load(plain_port, seconds, plain_pid))
            with_lines.append(load(traced_port, seconds, traced_pid))
        agent = Agent()
        agent.lines = caught(receiver, 50)  # of which the socket holds hundreds
        agent.lines *= 40
        return without, with_lines, agent.us_a_request()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=2, help="of each load (2)")
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    given = parser.parse_args()
    print("; ".join(f"{key} {value}" for key, value in machine().items()))
    print(f"load average {os.getloadavg()[0]:.1f}\n")
    print("| proxy | us of CPU a request without | with our lines | ratio | agent, us a request |")
    print("|---|---|---|---|---|")
    for kind in ("haproxy", "nginx"):
        without, traced, agent = measure(kind, given.seconds, given.rounds)
        ratio = statistics.median(b / a for a, b in zip(without, traced, strict=True))
        parts = ", ".join(f"{part} {took:.0f}" for part, took in agent.items())
        print(
            f"| {kind} | {statistics.median(without):.1f} | {statistics.median(traced):.1f} | "
            f"{ratio:.2f} | {sum(agent.values()):.0f} ({parts}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
