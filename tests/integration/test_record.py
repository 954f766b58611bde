"""`k8s-tracing record`: one command, nothing set up before, nothing left after."""

import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8s_tracing.agent.leftovers import shared_folder
from k8s_tracing.agent.recording import recording
from k8s_tracing.agent.relay import Relay
from k8s_tracing.cli import main
from k8s_tracing.otlp import read_json_lines
from tests.integration import producer
from tests.integration.producer import no_producer_left  # noqa: F401
from tests.support.folder import open_folder
from tests.support.ports import free_port
from tests.support.wait import wait_for

RECORD = [sys.executable, "-m", "k8s_tracing", "record"]
PATIENCE_S = 60.0


@pytest.fixture
def temp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the command makes its temporary folder, also when a test calls it in this process."""
    producer.program()
    for name in list(os.environ):
        if name.startswith(("OTEL_", "K8S_TRACING_")):
            monkeypatch.delenv(name)
    with open_folder() as folder:
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        yield folder


def record(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*RECORD, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def test_traces_are_printed_as_trees(temp: Path) -> None:
    done = record("--", str(producer.program()), "1", "3", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("work") == 3
    assert "producer" in done.stdout
    assert "spans: 3; traces: 3" in done.stderr
    assert list(temp.iterdir()) == []


def test_a_python_program_needs_nothing_but_the_library(temp: Path) -> None:
    program = (
        "import k8s_tracing; k8s_tracing.init('shop')\n"
        "with k8s_tracing.span('outer'):\n"
        "    with k8s_tracing.span('inner', {'key': 'value'}): print('hello')\n"
    )
    done = record("--color", "never", "--", sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hello\n")
    assert "shop" in done.stdout
    assert done.stdout.index("outer") < done.stdout.index("inner")
    assert "spans: 2; traces: 1" in done.stderr


def test_spans_go_to_a_file(temp: Path) -> None:
    file = temp / "spans.jsonl"
    done = record("-o", str(file), "--", str(producer.program()), "1", "100", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"
    assert sorted(int(span.span_id, 16) for span in read_json_lines(file)) == list(range(1, 101))


def test_a_receiver_that_is_not_there_is_said(
    temp: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("k8s_tracing.agent.recording.SEND_TIMEOUT_S", 1.0)
    url = f"http://127.0.0.1:{free_port()}"
    assert main(["record", "--endpoint", url, "--", str(producer.program()), "1", "5", "0"]) == 1
    assert "0 spans of 5" in capfd.readouterr().err
    assert list(temp.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "status"), [("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_the_exit_status_is_the_programs(temp: Path, script: str, status: int) -> None:
    done = record("--", "sh", "-c", script)
    assert done.returncode == status
    assert "no spans were recorded" in done.stderr
    assert list(temp.iterdir()) == []


def test_a_program_that_dies_in_the_middle_of_an_event(temp: Path) -> None:
    file = temp / "spans.jsonl"
    done = record("-o", str(file), "--", str(producer.program()), "1", "20000", "0", "crash")
    assert done.returncode == 128 + signal.SIGSEGV, done.stderr
    spans = sorted(int(span.span_id, 16) for span in read_json_lines(file))
    assert spans == list(range(1, 20001))
    assert "what its buffers hold is fetched" in done.stderr
    assert list(temp.iterdir()) == [file]


def test_what_a_killed_one_left_in_shared_memory_is_not_in_the_way(
    temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="k8st-") as shared:
        Path(shared).chmod(0o711)
        left = Path(shared) / "k8s-tracing-fe00-1"
        (left / "trace").mkdir(parents=True)
        (left / "trace/channel_0").write_text("old")
        monkeypatch.setattr("k8s_tracing.agent.recording.shared_folder", lambda folder: left)
        with recording() as recorded, Relay() as relay:
            assert not (left / "trace/channel_0").exists()
            with producer.start(recorded.env, 1, 10) as process:
                process.communicate()
            assert sum(request.spans for request in recorded.finish(relay)) == 10
        assert not left.exists()


def test_nothing_is_left_in_shared_memory(temp: Path) -> None:
    with recording() as recorded, Relay() as relay:
        buffers = shared_folder(next(temp.iterdir()))
        with producer.start(recorded.env, 1, 10, crash=True) as process:
            process.communicate()
        assert any(path.is_file() for path in buffers.rglob("*"))
        assert sum(request.spans for request in recorded.finish(relay)) == 10
    assert not buffers.exists()
    assert list(temp.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_go_to_the_program(temp: Path, number: signal.Signals) -> None:
    script = "trap 'echo got it; exit 5' INT TERM HUP; echo ready; while :; do sleep 0.1; done"
    process = subprocess.Popen(
        [*RECORD, "--", "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        process.send_signal(number)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert output == "got it\n"
    assert process.returncode == 5
    assert list(temp.iterdir()) == []


def test_ctrl_c_reaches_the_program_once(temp: Path) -> None:
    script = "n=0; trap 'n=$((n+1))' INT; echo ready; sleep 1; sleep 1; echo interrupts: $n"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(RECORD[0], [*RECORD, "--", "sh", "-c", script])
    output = b""

    def has(text: bytes) -> bool:
        nonlocal output
        try:
            output += os.read(terminal, 4096)
        except OSError:  # the other end is closed
            return True
        return text in output

    try:
        wait_for("the program runs", lambda: has(b"ready"), PATIENCE_S)
        os.write(terminal, b"\x03")
        wait_for("the program ends", lambda: has(b"no spans"), PATIENCE_S)
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    assert b"interrupts: 1" in output
    assert list(temp.iterdir()) == []


def test_a_program_that_does_not_exist(temp: Path) -> None:
    done = record("--", "/does/not/exist")
    assert done.returncode == 1
    assert "cannot run /does/not/exist" in done.stderr
    assert list(temp.iterdir()) == []


def test_nothing_to_run(temp: Path) -> None:
    done = record("--")
    assert done.returncode == 1
    assert "nothing to run" in done.stderr
