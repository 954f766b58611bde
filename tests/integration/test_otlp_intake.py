"""The agent takes OTLP from others: what it acknowledged arrives, whatever happens to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from k8s_tracing.otlp import to_request
from k8s_tracing.record import SpanRecord
from tests.support.agent import PATIENCE_S, Receiver, RunningAgent, agent
from tests.support.folder import open_folder
from tests.support.ports import free_port
from tests.support.wait import wait_for

OTLP = ("--otlp-http", "127.0.0.1:0", "--otlp-grpc", "127.0.0.1:0")
HEADERS = {"content-type": "application/x-protobuf"}

FALLBACK = """
import k8s_tracing
k8s_tracing.init("fallback", backend="otel")
for number in range(20):
    with k8s_tracing.span(f"work {number}"):
        pass
k8s_tracing.shutdown()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


class Sender:
    """Sends requests of one span each to an agent, until there is no agent or `stop`."""

    def __init__(self, url: str, first: int) -> None:
        self.acknowledged: list[int] = []
        self.stopping = threading.Event()
        self._url, self._first = f"{url}/v1/traces", first
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = self._first
        with requests.Session() as session:
            while not self.stopping.is_set():
                now_ns = time.time_ns()
                span = SpanRecord(
                    trace_id=f"{number:032x}",
                    span_id=f"{number:016x}",
                    name="sent",
                    kind="SERVER",
                    start_time_ns=now_ns,
                    end_time_ns=now_ns,
                )
                try:
                    answer = session.post(
                        self._url, to_request([span]), headers=HEADERS, timeout=PATIENCE_S
                    )
                except requests.RequestException:
                    return
                if answer.status_code != 200:
                    assert answer.status_code == 503
                    return
                self.acknowledged.append(number)
                number += 1

    def join(self) -> None:
        self.stopping.set()
        self._thread.join()


def senders_of(running: RunningAgent, round_: int = 0) -> list[Sender]:
    http = running.info["otlp"][0]
    return [Sender(http, (3 * round_ + number) * 1_000_000 + 1) for number in range(3)]


def some_acknowledged(senders: list[Sender]) -> None:
    wait_for(
        "some are acknowledged",
        lambda: sum(len(sender.acknowledged) for sender in senders) > 50,
        PATIENCE_S,
    )


def acknowledged(senders: list[Sender]) -> set[int]:
    for sender in senders:
        sender.join()
    return {number for sender in senders for number in sender.acknowledged}


def test_what_was_acknowledged_survives_sigkill(folder: Path) -> None:
    with Receiver() as receiver:
        receiver.down = True
        sent: set[int] = set()
        for round_ in range(3):
            with agent(folder / "agent", "--endpoint", receiver.url, *OTLP) as running:
                senders = senders_of(running, round_)
                some_acknowledged(senders)
                running.end(signal.SIGKILL)
                sent |= acknowledged(senders)
        receiver.down = False
        with agent(folder / "agent", "--endpoint", receiver.url) as running:
            wait_for("all arrive", lambda: sent <= receiver.seen.keys(), PATIENCE_S)
            assert running.end() == 0


def test_sigterm_delivers_what_was_acknowledged(folder: Path) -> None:
    with (
        Receiver() as receiver,
        agent(folder / "a", "--endpoint", receiver.url, *OTLP) as running,
    ):
        senders = senders_of(running)
        some_acknowledged(senders)
        assert running.end() == 0
        assert acknowledged(senders) <= receiver.seen.keys()


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_an_application_without_lttng_sends_to_the_agent(folder: Path, protocol: str) -> None:
    with (
        Receiver() as receiver,
        agent(folder / "a", "--endpoint", receiver.url, *OTLP) as running,
    ):
        http, grpc = running.info["otlp"]
        endpoint = http if protocol != "grpc" else grpc.replace("grpc://", "http://")
        env = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        }
        subprocess.run([sys.executable, "-c", FALLBACK], env=env, check=True, timeout=PATIENCE_S)
        assert running.end() == 0
    assert sorted(span.name for span in receiver.spans) == sorted(
        f"work {number}" for number in range(20)
    )
    assert {span.service_name for span in receiver.spans} == {"fallback"}


def test_the_agent_does_not_send_to_itself(folder: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "k8s_tracing", "agent", "--private", str(folder / "a")]
    command += ["--otlp-http", f"127.0.0.1:{port}", "--endpoint", f"http://localhost:{port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert "would send it there, to itself" in done.stderr
