"""The programs that the other integration tests stand on: do they start, record, answer and end."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.support.jaeger import Jaeger
from tests.support.lttng import DAEMON_UID, LttngError, SessionDaemon
from tests.support.wait import wait_for

PROGRAM = r"""
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "probe.h"
#include <stdlib.h>
int main(int argc, char **argv)
{
	for (int i = 0; i < atoi(argv[1]); i++)
		lttng_ust_tracepoint(support_test, tick, i, "say \"hi\"\n");
	return argc != 2;
}
"""

PROBE = """
#undef LTTNG_UST_TRACEPOINT_PROVIDER
#define LTTNG_UST_TRACEPOINT_PROVIDER support_test
#undef LTTNG_UST_TRACEPOINT_INCLUDE
#define LTTNG_UST_TRACEPOINT_INCLUDE "./probe.h"
#if !defined(PROBE_H) || defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)
#define PROBE_H
#include <lttng/tracepoint.h>
LTTNG_UST_TRACEPOINT_EVENT(support_test, tick,
	LTTNG_UST_TP_ARGS(int, number, const char *, text),
	LTTNG_UST_TP_FIELDS(
		lttng_ust_field_integer(int, number, number)
		lttng_ust_field_string(text, text)))
#endif
#include <lttng/tracepoint-event.h>
"""


@pytest.fixture(scope="module")
def program() -> Iterator[Path]:
    """A C program that fires as many events as its argument says."""
    # Not in pytest's folder: other users run it, too, and that one is closed to them.
    with tempfile.TemporaryDirectory(prefix="k8st-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "probe.h").write_text(PROBE)
        (folder / "program.c").write_text(PROGRAM)
        command = ["cc", "-I.", "program.c", "-o", "program", "-llttng-ust", "-ldl"]
        subprocess.run(command, cwd=folder, check=True)
        yield folder / "program"


def users() -> list[int]:
    """The user ids that a program is run with: root can take any, everybody else has one."""
    return [0, DAEMON_UID, 4242] if os.geteuid() == 0 else [os.geteuid()]


@pytest.mark.parametrize("uid", users())
def test_a_private_daemon_records_programs_of_every_user(
    session_daemon: SessionDaemon, program: Path, uid: int
) -> None:
    session = session_daemon.session("one", events=["support_test:*"])
    before_ns = time.time_ns()
    process = subprocess.Popen([program, "3"], env=session_daemon.env, user=uid)
    assert process.wait() == 0
    events = session.read()
    assert [event["number"] for event in events] == [0, 1, 2]
    assert events[0].name == "support_test:tick"
    assert events[0]["text"] == 'say "hi"\n'
    assert events[0].context["vpid"] == process.pid
    assert set(events[0].context) == {"vpid", "vtid", "pid_ns", "cgroup_ns"}
    assert before_ns < events[0].timestamp_ns < time.time_ns()


def test_two_daemons_side_by_side_do_not_mix(program: Path) -> None:
    with SessionDaemon() as first, SessionDaemon() as second:
        sessions = [
            each.session("same-name", events=["support_test:*"]) for each in (first, second)
        ]
        subprocess.run([program, "1"], env=first.env, check=True)
        subprocess.run([program, "5"], env=second.env, check=True)
        assert [len(session.read()) for session in sessions] == [1, 5]


def test_a_trace_with_gaps_is_not_taken_for_a_short_one(
    session_daemon: SessionDaemon, program: Path
) -> None:
    session = session_daemon.session(
        "small",
        events=["support_test:*"],
        channel_options=["--subbuf-size=4k", "--num-subbuf=2"],
    )
    subprocess.run([program, "100000"], env=session_daemon.env, check=True)
    with pytest.raises(LttngError, match="discarded"):
        session.read()


def test_a_command_that_fails_says_what_lttng_said(session_daemon: SessionDaemon) -> None:
    with pytest.raises(LttngError, match=r"(?s)start no-such-session.* failed.*not found"):
        session_daemon.lttng("start", "no-such-session")


def test_a_daemon_ends_with_its_block_and_leaves_nothing() -> None:
    with SessionDaemon() as daemon:
        daemon.session("one")
        processes = descendants(daemon.pid)
        assert "lttng-consumerd" in {comm(pid) for pid in processes}
    assert not daemon.home.exists()
    wait_for("the daemon's processes to end", lambda: not any(comm(pid) for pid in processes))


def test_a_daemon_ends_when_the_test_run_is_killed() -> None:
    script = (
        "import sys; from tests.support.lttng import SessionDaemon\n"
        "with SessionDaemon() as daemon:\n"
        "    daemon.session('one'); print(daemon.pid, daemon.home, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        pid, home = run.stdout.readline().split()
        processes = descendants(int(pid))
        run.send_signal(signal.SIGKILL)
        run.wait()
    wait_for("the daemon's processes to end", lambda: not any(comm(pid) for pid in processes))
    shutil.rmtree(Path(home.decode()).parent)  # which nobody was left to remove


def test_jaeger_finds_a_span_that_was_sent_by_id_and_by_time(jaeger: Jaeger) -> None:
    trace_id, now_ns = uuid.uuid4().hex, time.time_ns()
    span = {
        "traceId": trace_id,
        "spanId": "00f067aa0ba902b7",
        "name": "hello",
        "kind": 2,
        "startTimeUnixNano": str(now_ns),
        "endTimeUnixNano": str(now_ns + 5_000_000),
        "attributes": [{"key": "answer", "value": {"intValue": "42"}}],
    }
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "support"}}]}
    body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}
    requests.post(
        f"{jaeger.otlp_http_endpoint}/v1/traces", json=body, timeout=10
    ).raise_for_status()

    (found,) = jaeger.query.wait_for_trace(trace_id, spans=1)
    assert (found["name"], found["service"]) == ("hello", "support")
    assert found["attributes"]["answer"] == 42
    assert int(found["endTimeUnixNano"]) - int(found["startTimeUnixNano"]) == 5_000_000
    assert "support" in jaeger.query.services()
    second_ns = 1_000_000_000
    traces = jaeger.query.find("support", now_ns - second_ns, now_ns + second_ns)
    assert [span["name"] for span in traces[trace_id]] == ["hello"]
    assert jaeger.query.find("support", now_ns - 9 * second_ns, now_ns - 8 * second_ns) == {}
    assert jaeger.query.trace("f" * 32) == []


def test_waiting_for_a_trace_says_how_much_of_it_is_there(jaeger: Jaeger) -> None:
    with pytest.raises(TimeoutError, match="Jaeger has 0 of 3 spans"):
        jaeger.query.wait_for_trace(uuid.uuid4().hex, spans=3, timeout_s=0.2)


def test_a_jaeger_that_cannot_start_shows_its_log(jaeger: Jaeger) -> None:
    second = Jaeger()
    second.otlp_grpc_port = jaeger.otlp_grpc_port
    with pytest.raises(RuntimeError, match=r"(?s)Jaeger does not start.*address already in use"):
        second.__enter__()


def descendants(pid: int) -> list[int]:
    """Return `pid` and all processes below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += descendants(int(child))
    return found


def comm(pid: int) -> str | None:
    """Return the name of a process that runs, None for one that ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    name, state = text[text.index("(") + 1 :].rsplit(") ", 1)
    return None if state.startswith("Z") else name
