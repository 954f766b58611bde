"""Private session daemons and recording sessions, for real."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k8s_tracing.agent.daemon import PrivateDaemon
from k8s_tracing.agent.daemon_process import group_alive
from k8s_tracing.agent.session import Session, find_session
from k8s_tracing.errors import SessionError
from tests.integration import producer
from tests.integration.producer import no_producer_left  # noqa: F401
from tests.support.lttng import read_trace
from tests.support.wait import wait_for

OTHER_UID = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the daemon's user can come to, which pytest's own is not for root."""
    with tempfile.TemporaryDirectory(prefix="k8st-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def new_output(daemon: PrivateDaemon, folder: Path, name: str = "trace") -> Path:
    output = folder / name
    output.mkdir()
    daemon.grant(output)
    return output


def span_ids(trace: Path) -> set[int]:
    events = read_trace(trace)
    starts = [event["span_id"] for event in events if event.name == "k8s_tracing:start_span"]
    ends = [event["span_id"] for event in events if event.name == "k8s_tracing:end_span"]
    assert sorted(map(int, starts)) == sorted(map(int, ends))  # type: ignore[arg-type]
    assert len(set(map(int, starts))) == len(starts)  # type: ignore[arg-type]
    return set(map(int, starts))  # type: ignore[arg-type]


def shared_memory() -> set[str]:
    """What is in /dev/shm, but for the marks by which applications and daemons of a user find each other."""
    names = {path.name for path in Path("/dev/shm").iterdir()}
    return {name for name in names if not name.startswith("lttng-ust-wait-")}


@pytest.mark.alone
def test_a_daemon_leaves_nothing_behind(folder: Path) -> None:
    before = shared_memory()
    with PrivateDaemon(folder / "new") as daemon:
        pid = daemon.pid
        session = Session("s", new_output(daemon, folder), daemon.control)
        session.start()
        expected = producer.run(daemon.env, 1, 100)
        session.finish()
    assert span_ids(folder / "trace") == expected
    assert not group_alive(pid)
    assert not (folder / "new").exists()
    assert shared_memory() <= before


def test_the_socket_for_applications_can_be_in_a_folder_that_has_nothing_else(folder: Path) -> None:
    with PrivateDaemon(folder / "own", app_socket_dir=folder / "shared"):
        [socket] = (folder / "shared").iterdir()
        assert socket.name in ("lttng-ust-sock-8", "lttng-ust-sock-11")
        assert socket.stat().st_mode & 0o777 == 0o666  # any user's application may register
        assert not list((folder / "own").rglob("lttng-ust-sock-*"))
    assert not (folder / "shared").exists()


def test_the_folder_of_a_caller_stays(folder: Path) -> None:
    (folder / "mine").touch()
    with PrivateDaemon(folder):
        pass
    assert [path.name for path in folder.iterdir()] == ["mine"]


def test_a_long_path_is_no_obstacle(folder: Path) -> None:
    deep = folder / ("long" * 20) / ("deep" * 20)
    with PrivateDaemon(deep) as daemon:
        home = Path(daemon.env["LTTNG_HOME"])
        session = Session("s", new_output(daemon, folder), daemon.control)
        session.start()
        expected = producer.run(daemon.env, 1, 10)
        session.finish()
    assert span_ids(folder / "trace") == expected
    assert not home.parent.exists()


def test_two_daemons_side_by_side(folder: Path) -> None:
    with PrivateDaemon(folder / "a") as a, PrivateDaemon(folder / "b") as b:
        sessions = [
            Session("same name", new_output(daemon, folder, name), daemon.control)
            for daemon, name in ((a, "trace-a"), (b, "trace-b"))
        ]
        for session in sessions:
            session.start()
        expected_a = producer.run(a.env, 1, 100)
        expected_b = producer.run(b.env, 1000, 100)
        for session in sessions:
            session.finish()
    assert span_ids(folder / "trace-a") == expected_a
    assert span_ids(folder / "trace-b") == expected_b


def test_the_end_of_one_does_not_disturb_the_other(folder: Path) -> None:
    with PrivateDaemon(folder / "a") as a:
        session = Session("s", new_output(a, folder), a.control)
        session.start()
        with PrivateDaemon(folder / "b"):
            pass
        expected = producer.run(a.env, 1, 100)
        session.finish()
    assert span_ids(folder / "trace") == expected


def test_a_folder_is_used_by_one_daemon(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k8s_tracing.agent.daemon.STOP_TIMEOUT_S", 0.1)
    with PrivateDaemon(folder) as first:
        with pytest.raises(SessionError, match=f"process {first.pid}"), PrivateDaemon(folder):
            pass
        assert first.control.answers()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's daemon runs as somebody else")
def test_a_folder_that_the_daemon_cannot_reach_is_said(folder: Path) -> None:
    folder.chmod(0o700)
    with pytest.raises(SessionError, match="Choose a folder elsewhere"), PrivateDaemon(folder):
        pass
    assert list(folder.iterdir()) == []


def test_lttng_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k8s_tracing.agent.lttng.shutil.which", lambda name: None)
    with pytest.raises(SessionError, match="apt-get install lttng-tools"), PrivateDaemon(folder):
        pass


def test_a_daemon_that_does_not_start_says_why(folder: Path) -> None:
    (folder / "lttng/.lttng").mkdir(parents=True)
    (folder / "lttng/.lttng/lttng-sessiond.lck").mkdir()  # cannot be locked
    with pytest.raises(SessionError, match="lttng-sessiond"), PrivateDaemon(folder):
        pass


# Runs as the user whom the test names, without an interpreter that this user would have to reach.
AS_OTHER = """
import json, os, sys, pathlib
from k8s_tracing.agent.daemon import PrivateDaemon
from k8s_tracing.agent.host_daemon import HostDaemon
from k8s_tracing.agent.session import Session
if os.geteuid() == 0:
    os.setgroups([]); os.setresgid(UID, UID, UID); os.setresuid(UID, UID, UID)
folder = pathlib.Path(sys.argv[1])
with DAEMON as daemon:
    output = folder / "trace"
    output.mkdir()
    daemon.grant(output)
    session = Session("s", output, daemon.control)
    session.start(rotation_s=1.0)
    print(json.dumps({"env": daemon.env, "daemon": str(daemon)}), flush=True)
    sys.stdin.readline()
    session.finish()
"""


def run_script(
    folder: Path, uid: int, daemon: str = 'PrivateDaemon(folder / "d")', **env: str
) -> "subprocess.Popen[str]":
    script = AS_OTHER.replace("UID", str(uid)).replace("DAEMON", daemon)
    return subprocess.Popen(
        [sys.executable, "-c", script, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ) | env,
    )


def read_answer(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the script ended; its error is on standard error"
    answer: dict[str, Any] = json.loads(line)
    return answer


def test_any_user_can_have_a_daemon(folder: Path) -> None:
    folder.chmod(0o777)
    with run_script(folder, OTHER_UID) as script:
        env = read_answer(script)["env"]
        as_user = {"user": OTHER_UID, "group": OTHER_UID} if os.geteuid() == 0 else {}
        subprocess.run(
            [producer.program(), "1", "100", "0"],
            env=dict(os.environ) | env,
            check=True,
            **as_user,  # type: ignore[call-overload]
        )
        script.communicate("stop\n", timeout=60)
    assert script.returncode == 0
    assert span_ids(folder / "trace") == set(range(1, 101))
    assert [path.name for path in folder.iterdir()] == ["trace"]


def test_nothing_is_lost_when_the_owner_is_killed(folder: Path) -> None:
    with run_script(folder, os.geteuid()) as script:
        env = read_answer(script)["env"]
        expected = producer.run(env, 1, 3000)
        pid = int((folder / "d/lttng/.lttng/lttng-sessiond.pid").read_text())
        script.kill()
    wait_for("the daemon is gone", lambda: not group_alive(pid), timeout_s=60)
    assert span_ids(folder / "trace") == expected
    # The next one on this folder finds nothing in its way.
    with PrivateDaemon(folder / "d") as daemon:
        assert daemon.control.answers()


def test_the_users_own_daemon_is_started_and_stopped(folder: Path) -> None:
    folder.chmod(0o777)
    home = folder / "home"
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    lttng_home = {"LTTNG_HOME": str(home)}
    uid = OTHER_UID if os.geteuid() == 0 else os.geteuid()
    with run_script(folder, uid, "HostDaemon(folder)", **lttng_home) as script:
        answer = read_answer(script)
        assert "started here" in answer["daemon"]
        as_user = {"user": OTHER_UID, "group": OTHER_UID} if os.geteuid() == 0 else {}
        subprocess.run(
            [producer.program(), "1", "100", "0"],
            env=dict(os.environ) | lttng_home,
            check=True,
            **as_user,  # type: ignore[call-overload]
        )
        pid = int((folder / "lttng-sessiond.pid").read_text())
        script.communicate("stop\n", timeout=60)
    assert script.returncode == 0
    assert not group_alive(pid)
    assert span_ids(folder / "trace") == set(range(1, 101))


def test_a_daemon_that_was_there_is_not_stopped(folder: Path) -> None:
    folder.chmod(0o777)
    uid = OTHER_UID if os.geteuid() == 0 else os.geteuid()
    other = folder / "other"
    other.mkdir()
    other.chmod(0o777)
    with run_script(other, uid) as owner:
        env = read_answer(owner)["env"]
        with run_script(folder, uid, "HostDaemon(folder)", **env) as script:
            # Its session would have the same name.
            assert script.stdout is not None
            assert script.stdout.readline() == ""
        assert owner.poll() is None
        owner.communicate("stop\n", timeout=60)
    assert owner.returncode == 0


def test_chunks_appear_complete(folder: Path) -> None:
    with PrivateDaemon(folder / "d") as daemon:
        session = Session("s", new_output(daemon, folder), daemon.control)
        session.start(rotation_s=0.6)
        first_seen: dict[str, dict[str, int]] = {}
        with producer.start(daemon.env, 1, 6000, interval_us=200) as process:
            while process.poll() is None or len(first_seen) < 3:
                for chunk in session.archives.glob("*"):
                    first_seen.setdefault(chunk.name, sizes(chunk))
                time.sleep(0.001)
        session.finish()
        assert len(first_seen) >= 3
        for name, seen in first_seen.items():
            assert sizes(session.archives / name) == seen
        assert [path.name for path in session.output.iterdir()] == ["archives"]
        assert span_ids(session.archives) == set(range(1, 6001))


def sizes(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def test_the_buffers_are_as_asked_for(folder: Path) -> None:
    with PrivateDaemon(folder / "d") as daemon:
        session = Session("s", new_output(daemon, folder), daemon.control)
        session.start()
        expected = producer.run(daemon.env, 1, 1)
        text = daemon.control.run("list", "s")
        session.finish()
    assert "524288 bytes" in text
    assert "Sub-buffer count: 8" in text
    (event, *_) = read_trace(folder / "trace")
    assert set(event.context) == {"vpid", "vtid", "pid_ns", "cgroup_ns"}
    assert expected == {1}


def test_a_session_is_taken_over(folder: Path) -> None:
    with PrivateDaemon(folder / "d") as daemon:
        output = new_output(daemon, folder)
        Session("s", output, daemon.control).start(rotation_s=5.0)
        expected = producer.run(daemon.env, 1, 100)
        session = Session("s", output, daemon.control)
        session.adopt(rotation_s=0.7)
        found = find_session(daemon.control, "s")
        assert found is not None
        assert found.rotation_us == 700_000
        assert found.output == output
        expected |= producer.run(daemon.env, 1000, 100)
        session.finish()
        assert find_session(daemon.control, "s") is None
    assert span_ids(output) == expected


def test_a_session_that_was_stopped_records_again(folder: Path) -> None:
    with PrivateDaemon(folder / "d") as daemon:
        output = new_output(daemon, folder)
        Session("s", output, daemon.control).start(rotation_s=1.0)
        daemon.control.run("stop", "s")
        session = Session("s", output, daemon.control)
        session.adopt(rotation_s=1.0)
        expected = producer.run(daemon.env, 1, 100)
        session.finish()
    assert span_ids(output) == expected


def test_a_session_that_was_half_set_up_is_made_anew(folder: Path) -> None:
    with PrivateDaemon(folder / "d") as daemon:
        output = new_output(daemon, folder)
        daemon.control.run("create", "s", f"--output={output}")
        session = Session("s", output, daemon.control)
        session.adopt(rotation_s=1.0)
        expected = producer.run(daemon.env, 1, 100)
        session.finish()
    assert span_ids(output) == expected


def test_a_session_that_cannot_be_set_up_is_not_left(folder: Path) -> None:
    with PrivateDaemon(folder / "d") as daemon:
        session = Session("s", new_output(daemon, folder), daemon.control)
        with pytest.raises(SessionError, match="enable-rotation"):
            session.start(rotation_s=1e-9)
        assert find_session(daemon.control, "s") is None


def test_finish_neither_hangs_nor_raises(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with PrivateDaemon(folder / "d") as daemon:
        session = Session("s", new_output(daemon, folder), daemon.control)
        session.start()
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            session.finish(timeout_s=0.3)
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
    assert "what its buffers hold is lost" in caplog.text
