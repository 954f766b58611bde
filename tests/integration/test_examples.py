"""The examples, as a newcomer runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.lttng import SessionDaemon

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_babeltrace2_prints_the_first_trace_with_its_names_and_parents(
    session_daemon: SessionDaemon,
) -> None:
    session = session_daemon.session("first")
    subprocess.run(
        [sys.executable, EXAMPLES / "first_trace.py"], env=session_daemon.env, check=True
    )
    session.stop()
    events = session.read()
    outer, inner = [event for event in events if event.name == "k8s_tracing:start_span"]
    assert (outer["op_name"], inner["op_name"]) == ("dispatch", "find_driver")
    assert outer["parent_span_id"] == 0
    assert inner["parent_span_id"] == outer["span_id"]
    assert inner["trace_id_high"] == outer["trace_id_high"]
    assert inner["trace_id_low"] == outer["trace_id_low"]
    assert [event["name"] for event in events if event.name == "k8s_tracing:span_event"] == [
        "looking for a driver"
    ]
