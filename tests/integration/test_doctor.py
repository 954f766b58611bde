"""`k8s-tracing doctor`, on machines that lack this or that."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from k8s_tracing.doctor import lttng
from k8s_tracing.doctor.finding import Finding, Level, problem
from tests.support import package
from tests.support.folder import open_folder
from tests.support.lttng import SessionDaemon
from tests.support.ports import free_port


def doctor(
    env: dict[str, str], *options: str, prefix: tuple[str, ...] = ()
) -> tuple[int, dict[str, Any]]:
    """Its exit status, and its findings by subject; the last one where a subject has more."""
    words = [*prefix, sys.executable, "-m", "k8s_tracing", "doctor", "--json", *options]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert answer["works"] is (done.returncode == 0)
    assert all(row["remedy"] or row["level"] == "ok" for row in answer["findings"]), answer
    return done.returncode, {row["subject"]: row for row in answer["findings"]}


@pytest.fixture
def nobody(tmp_path: Path) -> dict[str, str]:
    """An environment without a daemon."""
    return {**os.environ, "LTTNG_UST_APP_PATH": str(tmp_path), "LTTNG_HOME": str(tmp_path)}


def test_a_session_that_records(session_daemon: SessionDaemon) -> None:
    session = session_daemon.session("mine")
    status, found = doctor(session_daemon.env, "--probe")
    assert status == 0
    assert found["backend"]["text"] == "lttng: tracing with LTTng"
    assert str(session_daemon.home) in found["session daemon"]["text"]
    assert found["session"]["text"] == "mine records k8s_tracing's events"
    [event] = [event for event in session.read() if event.name == "k8s_tracing:start_span"]
    assert f"{event.fields['span_id']:016x}" in found["probe"]["text"]


def test_a_daemon_without_a_session_records_nothing(session_daemon: SessionDaemon) -> None:
    session_daemon.session("other", events=("other:*",))
    status, found = doctor(session_daemon.env, "--probe")
    assert status == 1
    assert found["session"]["level"] == found["probe"]["level"] == "problem"
    assert "k8s-tracing agent" in found["session"]["remedy"]


def test_without_the_lttng_command_the_probe_tells(session_daemon: SessionDaemon) -> None:
    session_daemon.session("mine")
    env = {**session_daemon.env, "PATH": "/nonexistent"}
    status, found = doctor(env, "--probe")
    assert status == 0
    assert "--probe" in found["session"]["text"]
    assert found["probe"]["level"] == "ok"


def test_a_daemon_of_another_protocol(session_daemon: SessionDaemon) -> None:
    run_folder = session_daemon.home / ".lttng"
    (run_folder / "lttng-ust-sock-8").rename(run_folder / "lttng-ust-sock-11")
    status, found = doctor(session_daemon.env)
    assert status == 1
    assert "speaks protocol 8" in found["liblttng-ust"]["text"]
    assert "the session daemon 11: they do not meet" in found["liblttng-ust"]["text"]


def test_a_dead_daemons_socket(nobody: dict[str, str], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "lttng-ust-sock-8"))
    _, found = doctor({**nobody, "K8S_TRACING_BACKEND": "lttng"})
    assert found["session daemon"]["level"] == "problem"
    assert "nobody answers" in found["session daemon"]["text"]


def test_a_socket_that_is_not_for_this_user() -> None:
    with open_folder() as folder, socket.socket(socket.AF_UNIX) as server:
        path = folder / "lttng-ust-sock-8"
        server.bind(str(path))
        server.listen()
        path.chmod(0o000)
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                if os.getuid() == 0:
                    os.setuid(65533)
                os.write(write, lttng._connect(path, problem).text.encode())
            finally:  # it must not go on with the tests
                os._exit(0)
        os.waitpid(child, 0)
        os.close(write)
        text = os.read(read, 4096).decode()
        os.close(read)
    assert "may not connect to" in text
    assert "mode 0" in text


def test_the_fallback_with_and_without_a_receiver(nobody: dict[str, str]) -> None:
    env = {**nobody, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://user:pw@127.0.0.1:{free_port()}"}
    status, found = doctor(env)
    assert status == 1
    assert found["backend"]["text"].startswith("otel: ")
    assert "does not accept connections" in found["OTLP endpoint"]["text"]
    with socket.create_server(("127.0.0.1", 0)) as receiver:
        port = receiver.getsockname()[1]
        env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://user:pw@127.0.0.1:{port}"
        env["OTEL_EXPORTER_OTLP_HEADERS"] = "authorization=secret"
        status, found = doctor(env)
        receiver.settimeout(10)
        connection, _ = receiver.accept()
        with connection:
            assert connection.recv(1) == b""  # it hung up, and sent nothing
    assert status == 0
    assert "accepts connections" in found["OTLP endpoint"]["text"]
    assert "secret" not in json.dumps(found)
    assert "user:pw" not in json.dumps(found)


def test_variables_that_are_wrong(nobody: dict[str, str]) -> None:
    env = {
        **nobody,
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_TRACES_SAMPLER": "sometimes",
        "OTEL_PROPAGATORS": "b4,tracecontext",
    }
    words = [sys.executable, "-m", "k8s_tracing", "doctor"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
    assert "warning  variables: OTEL_TRACES_SAMPLER=sometimes is not known here" in done.stdout
    assert "warning  variables: OTEL_PROPAGATORS names 'b4'" in done.stdout
    assert "         -> correct OTEL_PROPAGATORS" in done.stdout


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, "noop, spans do nothing"),
        ({"K8S_TRACING_BACKEND": "fast"}, "there is no backend 'fast'"),
    ],
)
def test_tracing_that_is_turned_off(
    nobody: dict[str, str], variables: dict[str, str], text: str
) -> None:
    status, found = doctor({**nobody, **variables})
    assert status == 1
    assert text in found["backend"]["text"]


def test_shared_memory_that_is_read_only(nobody: dict[str, str]) -> None:
    mount = 'mount -t tmpfs -o ro shm /dev/shm && exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", mount, "sh")
    _, found = doctor({**nobody, "OTEL_TRACES_EXPORTER": "none"}, prefix=prefix)
    assert "read-only" in found["shared memory"]["text"]
    assert "writable" in found["shared memory"]["remedy"]


def texts(findings: list[Finding]) -> list[tuple[Level, str]]:
    return [(finding.level, finding.text) for finding in findings]


def test_wait_files_by_owner_and_content(tmp_path: Path) -> None:
    mine = os.getuid()
    (tmp_path / "lttng-ust-wait-8").write_bytes(b"\1\0\0\0")
    (tmp_path / f"lttng-ust-wait-8-{mine}").write_bytes(bytes(4))
    (tmp_path / "lttng-ust-wait-8-4999").write_bytes(b"")
    polls, waits = texts(lttng.wait_files(tmp_path, mine, problem))
    assert polls[0] is waits[0] is Level.OK
    assert "holds 1: a process looks for a daemon every 5 s" in polls[1]
    assert "holds 0: a process waits for a daemon" in waits[1]
    (tmp_path / "lttng-ust-wait-8-4999").write_bytes(bytes(4))
    _, foreign = texts(lttng.wait_files(tmp_path, 4999, problem))
    assert foreign[0] is Level.PROBLEM
    assert f"is user {mine}'s and not ours" in foreign[1]
    (tmp_path / "lttng-ust-wait-8").write_bytes(b"")
    [broken, _] = texts(lttng.wait_files(tmp_path, mine, problem))
    assert broken[0] is Level.PROBLEM


def test_a_package_without_native_parts(nobody: dict[str, str], tmp_path: Path) -> None:
    for part in package.copy(tmp_path).glob("*.so"):
        part.unlink()
    program = "import sys; from k8s_tracing.cli import main; sys.exit(main(['doctor']))"
    done = package.run(tmp_path, program, {**nobody, "OTEL_TRACES_EXPORTER": "none"})
    assert done.returncode == 0, done.stderr
    assert "warning  native span: is missing" in done.stdout
    assert "apt-get install gcc python3-dev" in done.stdout
    assert "warning  relay: libk8s_tracing_relay.so is not installed" in done.stdout
    version = package.run(tmp_path, program.replace("doctor", "version"), nobody)
    assert "native span: missing" in version.stdout


def test_version(nobody: dict[str, str]) -> None:
    words = [sys.executable, "-m", "k8s_tracing", "version", "--json"]
    answer = json.loads(subprocess.check_output(words, env=nobody, timeout=60))
    assert answer["native span"] == "built"
    assert "speaks protocol" in answer["liblttng-ust"]
