"""What fails on a node, made to fail: with a real session daemon, and a real Jaeger where it matters.

Each test counts: every span that ended arrives, and what arrives twice is within what the documentation says.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from k8s_tracing.agent.daemon_process import group_alive
from tests.integration import producer
from tests.integration.producer import no_producer_left  # noqa: F401
from tests.support.agent import PATIENCE_S, Receiver, RunningAgent, agent, ids_in
from tests.support.folder import open_folder
from tests.support.jaeger import Jaeger
from tests.support.user_agent import AS_USER
from tests.support.wait import wait_for

pytestmark = pytest.mark.alone

KILLS = 20


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture(autouse=True)
def no_exporter_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("OTEL_", "K8S_TRACING_")):
            monkeypatch.delenv(name)
    # The receivers are on this machine, whatever proxy the environment names.
    monkeypatch.setenv("NO_PROXY", "*")


def ids_in_jaeger(jaeger: Jaeger) -> Counter[int]:
    """How often Jaeger has each of the producer's spans."""
    traces = jaeger.query.find("producer", 0, time.time_ns() + 10**12, limit=100_000)
    return Counter(int(span["spanId"], 16) for spans in traces.values() for span in spans)


def figures(running: RunningAgent, name: str) -> dict[str, float]:
    """A metric's values, by the endpoint or outcome that they are of."""
    text = requests.get(f"{running.info['health']}/metrics", timeout=30).text
    return {
        " ".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"k8s_tracing_agent_{name}"
    }


def test_twenty_kills_of_the_agent_under_load(
    folder: Path, jaeger: Jaeger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any moment, in its start as well: all arrives, and at most one request a kill arrives twice."""
    folder.chmod(0o777)
    home, spool, file = folder / "home", folder / "spool", folder / "spans.jsonl"
    for each in (home, spool):
        each.mkdir()
        each.chmod(0o777)
    monkeypatch.setenv("LTTNG_HOME", str(home))
    monkeypatch.setenv("LTTNG_UST_REGISTER_TIMEOUT", "10000")
    as_user = {"user": 65534, "group": 65534} if os.geteuid() == 0 else {}
    log = (folder / "agent.log").open("a+")
    arguments = ["--spool", spool, "--output-file", file, "--endpoint", jaeger.otlp_http_endpoint]
    arguments += ["--rotation-s", "0.6", "--listen", "none"]
    command = [sys.executable, "-c", AS_USER, *arguments]
    program = str(producer.program())
    moments = random.Random(5)
    first, count = 500_000, 200_000  # more than are made until it is told to stop

    def start() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(command, stderr=log)

    running = start()
    load = None
    try:
        wait_for("the agent records", lambda: "sending to" in _alive(running, log.name), 60)
        load = subprocess.Popen(
            [program, str(first), str(count), "2000"], stdout=subprocess.DEVNULL, **as_user
        )  # type: ignore[call-overload]
        for _ in range(KILLS):
            time.sleep(moments.uniform(0.0, 2.0))
            running.kill()
            running.wait()
            said = len(Path(log.name).read_text())
            running = start()
        # It ends between two spans or in one: all that it ended counts, and the last may be half recorded.
        load.send_signal(signal.SIGTERM)
        load.wait()
        wait_for("the agent records", lambda: "sending to" in _alive(running, log.name, said), 60)
        running.send_signal(signal.SIGTERM)
        assert running.wait(PATIENCE_S) == 0
    finally:
        for process in (load, running):
            if process is not None:
                process.kill()
                process.wait()
        log.close()
        pid = (spool / "lttng-sessiond.pid") if spool.exists() else None
        if pid is not None and pid.exists() and group_alive(int(pid.read_text())):
            os.killpg(int(pid.read_text()), signal.SIGTERM)
    lines = Counter(file.read_text().splitlines())
    in_file = Counter(ids_in(file))
    last = max(in_file)
    assert last - first > 1000
    everything = set(range(first, last + 1))
    assert set(in_file) == everything
    # A request that comes twice is the same request.
    assert sum(times - 1 for times in lines.values()) <= KILLS
    assert max(Counter(id for line in lines for id in _ids(line)).values()) == 1
    in_jaeger = ids_in_jaeger(jaeger)
    assert everything - set(in_jaeger) == set()


def _alive(process: "subprocess.Popen[bytes]", log: str, offset: int = 0) -> str:
    text = Path(log).read_text()[offset:]
    assert process.poll() is None, text
    return text


def _ids(line: str) -> list[str]:
    return [part[:16] for part in line.split('"spanId":"')[1:]]


def test_jaeger_is_killed_and_comes_back(folder: Path) -> None:
    file = folder / "spans.jsonl"
    with Jaeger() as jaeger:
        arguments = ["--endpoint", jaeger.otlp_http_endpoint, "--output-file", str(file)]
        with agent(folder / "agent", *arguments, "--rotation-s", "0.6") as running:
            before = producer.run(running.env, 1, 500)
            wait_for("Jaeger has them", lambda: set(ids_in_jaeger(jaeger)) == before, PATIENCE_S)
            jaeger.kill()
            with producer.start(running.env, 10_000, 3000, interval_us=1000) as load:
                name = f"{jaeger.otlp_http_endpoint}/v1/traces (http/protobuf)"
                wait_for(
                    "they wait", lambda: figures(running, "backlog_spans")[name] > 0, PATIENCE_S
                )
                jaeger.start()
                assert producer.is_done(load)
            after = set(range(10_000, 13_000))
            wait_for("the rest arrives", lambda: set(ids_in_jaeger(jaeger)) == after, PATIENCE_S)
            assert running.end() == 0
        assert ids_in_jaeger(jaeger) == dict.fromkeys(after, 1)
    assert ids_in(file) == sorted(before | after)
    assert "takes spans again" in running.log


def test_one_receiver_is_down_the_other_is_not(folder: Path) -> None:
    with Receiver() as up, Receiver() as down:
        down.down = True
        arguments = ["--endpoint", up.url, "--endpoint", down.url, "--rotation-s", "0.6"]
        with agent(folder / "agent", *arguments) as running:
            expected = producer.run(running.env, 1, 2000, interval_us=500)
            wait_for("all to the one", lambda: set(up.seen) == expected, PATIENCE_S)
            wait_for("tried with the other", lambda: down.refused > 0, PATIENCE_S)
            names = [f"{each.url}/v1/traces (http/protobuf)" for each in (up, down)]
            assert figures(running, "backlog_spans") == {names[0]: 0, names[1]: 2000}
            assert figures(running, "endpoint_down_seconds")[names[1]] > 0
            assert requests.get(f"{running.info['health']}/readyz", timeout=30).text == "ok\n"
            assert not down.seen
            down.down = False
            wait_for("all to the other", lambda: set(down.seen) == expected, PATIENCE_S)
            assert running.end() == 0
        assert up.seen == down.seen == dict.fromkeys(expected, 1)


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    if os.geteuid() != 0:
        pytest.skip("a file system can be mounted by root only")
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0711", "k8s-tracing-test", str(disk)]
    subprocess.run(mount, check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_what_waits_fills_the_disk(folder: Path, small_disk: Path) -> None:
    """It goes on, and what is missing is counted."""
    (small_disk / "of others").write_bytes(bytes(15 << 20))
    with Receiver() as receiver:
        receiver.down = True
        name = f"{receiver.url}/v1/traces (http/protobuf)"
        arguments = ["--spool", str(small_disk / "spool"), "--spool-max-bytes", "1Gi"]
        arguments += ["--endpoint", receiver.url, "--rotation-s", "0.6"]
        with agent(folder / "agent", *arguments) as running:
            made: set[int] = set()
            deadline = time.monotonic() + PATIENCE_S
            while not figures(running, "exported_spans_total")[f"{name} dropped"]:
                assert time.monotonic() < deadline
                made |= producer.run(running.env, 1 + len(made), 10_000, interval_us=20)
            # A twentieth of it stays free.
            wait_for("there is room", lambda: shutil.disk_usage(small_disk).free > 1_000_000, 30)
            receiver.down = False
            # What is recorded while the disk is full may be lost, counted; what comes later is not.
            deadline = time.monotonic() + PATIENCE_S
            newest = max(made)
            while newest not in receiver.seen:
                assert time.monotonic() < deadline
                made |= producer.run(running.env, 1 + len(made), 100, interval_us=20)
                newest = len(made)
                with suppress(TimeoutError):
                    wait_for("the newest arrives", lambda n=newest: n in receiver.seen, 5)
            wait_for(
                "all arrives", lambda: figures(running, "backlog_spans")[name] == 0, PATIENCE_S
            )
            dropped = figures(running, "exported_spans_total")[f"{name} dropped"]
            # While the disk is full, LTTng's own buffers may overflow as well, and that is counted by it.
            lost = sum(
                figures(running, f"{counter}_total")[""]
                for counter in ("discarded_events", "lost_packets")
            )
            lost += figures(running, "chunks_total")["unreadable"]
            missing = len(made) - len(receiver.seen) - dropped
            assert set(receiver.seen) <= made
            assert missing == 0 or (missing > 0 and lost > 0), (missing, lost)
            assert running.end() == 0
    assert max(receiver.seen.values()) == 1
    assert "is full" in running.log
