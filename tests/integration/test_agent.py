"""The agent as a program: what is recorded arrives, whatever is killed or away in between."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from k8s_tracing.agent.daemon_process import group_alive
from k8s_tracing.agent.otlp_grpc import METHOD
from k8s_tracing.otlp import parse_request, read_json_lines
from tests.integration import producer
from tests.integration.producer import no_producer_left  # noqa: F401
from tests.support.agent import PATIENCE_S, Receiver, agent, ids_in
from tests.support.ports import free_port
from tests.support.user_agent import UserAgents
from tests.support.wait import wait_for


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="k8st-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(autouse=True)
def no_exporter_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    # The receivers are on this machine, whatever proxy the environment names.
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def arrived(path: Path, span_id: int) -> bool:
    """The last line may be half written."""
    return path.exists() and f'"{span_id:016x}"' in path.read_text()


def test_spans_arrive_while_it_runs_and_nothing_is_left(folder: Path, receiver: Receiver) -> None:
    file = folder / "spans.jsonl"
    arguments = ["--endpoint", receiver.url, "--output-file", str(file)]
    with agent(folder / "agent", *arguments) as running:
        expected = producer.run(running.env, 1, 5000)
        wait_for("all spans arrive", lambda: set(receiver.seen) == expected, PATIENCE_S)
        late = producer.run(running.env, 10_000, 50)
        assert running.end() == 0
    assert receiver.seen == dict.fromkeys(expected | late, 1)
    assert ids_in(file) == sorted(expected | late)
    assert "5050 spans" in running.log
    assert not group_alive(running.info["daemon_pid"])
    assert [path.name for path in folder.iterdir()] == ["spans.jsonl"]


def test_what_a_span_looks_like(folder: Path) -> None:
    file = folder / "spans.jsonl"
    with agent(folder / "agent", "--output-file", str(file)) as running:
        producer.run(running.env, 7, 1)
        assert running.end() == 0
    (span,) = read_json_lines(file)
    assert (span.name, span.service_name, span.scope_name) == ("work", "producer", "test")
    assert span.trace_id == f"{1:016x}{7:016x}"


def test_grpc(folder: Path) -> None:
    seen: Counter[int] = Counter()

    def export(request: bytes, context: Any) -> bytes:
        seen.update(int(span.span_id, 16) for span in parse_request(request))
        return b""

    service, _, method = METHOD.lstrip("/").partition("/")
    handler = grpc.method_handlers_generic_handler(
        service, {method: grpc.unary_unary_rpc_method_handler(export)}
    )
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        arguments = ["--endpoint", f"http://127.0.0.1:{port}", "--protocol", "grpc"]
        with agent(folder / "agent", *arguments) as running:
            expected = producer.run(running.env, 1, 1000)
            assert running.end() == 0
        server.stop(None).wait()
    assert seen == dict.fromkeys(expected, 1)


def test_a_receiver_that_is_not_there_yet_costs_disk_not_spans(folder: Path) -> None:
    port = free_port()
    arguments = ["--endpoint", f"http://127.0.0.1:{port}", "--rotation-s", "0.6"]
    with agent(folder / "agent", *arguments) as running:
        expected = producer.run(running.env, 1, 8000, interval_us=500)
        wait_for("batches pile up", lambda: len(running.batches()) >= 3, PATIENCE_S)
        with Receiver(port) as receiver:
            wait_for("all spans arrive", lambda: set(receiver.seen) == expected, PATIENCE_S)
            assert running.end() == 0
    assert receiver.seen == dict.fromkeys(expected, 1)
    assert "does not take spans" in running.log


def test_a_kill_of_the_agent_loses_nothing(folder: Path, receiver: Receiver) -> None:
    receiver.down = True
    private = folder / "agent"
    arguments = ["--endpoint", receiver.url, "--rotation-s", "0.6"]
    with agent(private, *arguments) as running:
        expected = producer.run(running.env, 1, 2000, interval_us=500)
        wait_for("an attempt is made", lambda: receiver.refused > 0, PATIENCE_S)
        expected |= producer.run(running.env, 10_000, 500)
        running.end(signal.SIGKILL)
    assert not receiver.seen
    receiver.down = False
    with agent(private, *arguments) as running:
        expected |= producer.run(running.env, 20_000, 500)
        wait_for("all spans arrive", lambda: set(receiver.seen) >= expected, PATIENCE_S)
        assert running.end() == 0
    assert receiver.seen == dict.fromkeys(expected, 1)
    assert "an earlier run left" in running.log
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_the_users_daemon_goes_on_while_the_agent_is_dead(folder: Path) -> None:
    with UserAgents(folder, os.environ) as agents:

        def produce(first: int) -> set[int]:
            with producer.start(agents.env, first, 500, **agents.as_user) as process:
                process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0
            return set(range(first, first + 500))

        first = agents.start()
        expected = produce(1)
        first.kill()
        first.wait()
        pid = agents.daemon_pid
        expected |= produce(1000)
        second = agents.start()
        expected |= produce(2000)
        second.send_signal(signal.SIGTERM)
        log = second.communicate(timeout=PATIENCE_S)[1]
        assert second.returncode == 0, log
    assert set(ids_in(agents.file)) == expected
    assert not group_alive(pid)
    # The next agent would go on with spans that are open.
    assert [path.name for path in agents.spool.iterdir()] == ["relay.state"]


def test_spans_that_are_open_when_the_agent_is_killed_arrive_whole(folder: Path) -> None:
    """Their starts were in chunks that are long deleted."""
    with UserAgents(folder, os.environ) as agents:
        first = agents.start()
        held = producer.start(agents.env, 1, 20, keep_open=True, **agents.as_user)
        assert producer.is_done(held)
        opened_before_ns = time.time_ns()
        # these are recorded after the others, so the chunks with the starts have been read when they arrive
        for number in (100, 200, 300):
            with producer.start(agents.env, number, 10, **agents.as_user) as process:
                process.communicate(timeout=PATIENCE_S)
            last = number + 9
            wait_for("their spans", partial(arrived, agents.file, last), PATIENCE_S)
        first.kill()
        first.wait()
        assert not set(range(1, 21)) & set(ids_in(agents.file))
        closed_after_ns = time.time_ns()
        held.communicate(timeout=PATIENCE_S)  # its input ends, and so do its spans
        second = agents.start()
        second.send_signal(signal.SIGTERM)
        log = second.communicate(timeout=PATIENCE_S)[1]
        assert second.returncode == 0, log
    spans = [span for span in read_json_lines(agents.file) if int(span.span_id, 16) <= 20]
    assert sorted(int(span.span_id, 16) for span in spans) == list(range(1, 21))
    for span in spans:
        assert not span.unfinished
        assert (span.name, span.service_name, span.scope_name) == ("work", "producer", "test")
        assert span.start_time_ns < opened_before_ns < closed_after_ns < span.end_time_ns


def test_what_cannot_be_sent_stays_on_disk(folder: Path, receiver: Receiver) -> None:
    receiver.down = True
    private = folder / "agent"
    with agent(private, "--endpoint", receiver.url) as running:
        expected = producer.run(running.env, 1, 100)
        running.process.send_signal(signal.SIGTERM)
        wait_for("an attempt is made", lambda: receiver.refused > 0, PATIENCE_S)
        assert running.end() == 1  # in a hurry
    assert "could not be sent in time" in running.log
    assert not group_alive(running.info["daemon_pid"])
    receiver.down = False
    with agent(private, "--endpoint", receiver.url) as running:
        wait_for("all spans arrive", lambda: set(receiver.seen) == expected, PATIENCE_S)
        assert running.end() == 0


def test_a_chunk_that_cannot_be_read_does_not_hold_up_the_rest(folder: Path) -> None:
    spool, file = folder / "spool", folder / "spans.jsonl"
    broken = spool / "20260101T000000.000000000Z/archives/20260101T000000+0000-x-0/ust"
    broken.mkdir(parents=True)
    (broken / "metadata").write_bytes(b"no metadata")
    (broken / "spans_0").write_bytes(b"no packet")
    arguments = ["--spool", str(spool), "--output-file", str(file)]
    with agent(folder / "agent", *arguments) as running:
        expected = producer.run(running.env, 1, 100)
        assert running.end() == 0
    assert ids_in(file) == sorted(expected)
    assert len(list((spool / "bad").iterdir())) == 1
    assert "1 chunks could not be read" in running.log


def test_agents_side_by_side(folder: Path) -> None:
    files = [folder / name for name in ("a.jsonl", "b.jsonl")]
    with (
        agent(folder / "a", "--output-file", str(files[0])) as a,
        agent(folder / "b", "--output-file", str(files[1])) as b,
    ):
        expected = [producer.run(a.env, 1, 500), producer.run(b.env, 1000, 500)]
        assert (a.end(), b.end()) == (0, 0)
    assert [ids_in(file) for file in files] == [sorted(ids) for ids in expected]


def test_a_second_agent_on_the_same_folder_is_told(folder: Path) -> None:
    with agent(folder / "agent", "--output-file", str(folder / "spans")) as running:
        command = [sys.executable, "-m", "k8s_tracing", "agent", "--private", running.private]
        second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        assert second.returncode == 1
        assert "another agent" in second.stderr
        assert running.end() == 0


def test_a_process_that_is_killed_loses_no_finished_span(folder: Path) -> None:
    file = folder / "spans.jsonl"
    with agent(folder / "agent", "--output-file", str(file)) as running:
        with producer.start(running.env, 1, 1000, hold=True) as process:
            assert producer.is_done(process)
            process.kill()
        assert running.end() == 0
    assert ids_in(file) == list(range(1, 1001))


def test_what_a_killed_process_left_open_is_reported_while_the_agent_runs(folder: Path) -> None:
    file = folder / "spans.jsonl"
    arguments = ["--output-file", str(file), "--rotation-s", "0.6"]
    with agent(folder / "agent", *arguments) as running:
        with producer.start(running.env, 1, 5, keep_open=True) as process:
            assert producer.is_done(process)
            process.kill()
        wait_for("its open spans", lambda: file.exists() and arrived(file, 5), PATIENCE_S)
        assert running.end() == 0
    spans = read_json_lines(file)
    assert sorted(int(span.span_id, 16) for span in spans) == [1, 2, 3, 4, 5]
    for span in spans:
        assert (span.unfinished, span.status, span.service_name) == (True, "ERROR", "producer")
        assert span.status_message == "process ended before the span ended"


def test_a_wrong_endpoint_is_said_before_anything_is_started(folder: Path) -> None:
    command = [sys.executable, "-m", "k8s_tracing", "agent", "--private", folder / "agent"]
    done = subprocess.run(
        [*command, "--endpoint", "jaeger:4318"], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 1
    assert "http://HOST:4318" in done.stderr
    assert list(folder.iterdir()) == []
