"""What users test their own tracing with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry import trace

import k8s_tracing
from k8s_tracing import api
from k8s_tracing.testing import DEFAULT_START_NS, Clock, capture

S = 1_000_000_000
#: Got before anybody has set a provider up, as modules do.
MODULE_TRACER = trace.get_tracer("module", "1.0")


def test_spans_of_both_apis_are_captured_in_the_order_in_which_they_end() -> None:
    with capture() as captured, k8s_tracing.span("outer", {"n": 1}):
        with trace.get_tracer("late").start_as_current_span("late"):
            pass
        with MODULE_TRACER.start_as_current_span("early"):
            k8s_tracing.start_span("inner").end()
    assert captured.names == ["late", "inner", "early", "outer"]
    outer = captured.find("outer")
    assert outer.attributes == {"n": 1}
    assert captured.children(outer) == [captured.find("late"), captured.find("early")]
    assert captured.find("early").scope_name == "module"
    assert captured.children(captured.find("early")) == captured.find_all("inner")


def test_after_the_block_nothing_is_captured_and_all_is_as_before() -> None:
    before = api._provider, api._tracer, trace.get_tracer_provider()
    with capture() as captured:
        MODULE_TRACER.start_span("in").end()
    MODULE_TRACER.start_span("after").end()
    k8s_tracing.start_span("after").end()
    assert captured.names == ["in"]
    assert (api._provider, api._tracer, trace.get_tracer_provider()) == before
    with capture() as second:
        MODULE_TRACER.start_span("second").end()
    assert (captured.names, second.names) == (["in"], ["second"])


def test_an_inner_block_has_its_own_spans() -> None:
    with capture() as outer:
        with capture() as inner:
            k8s_tracing.start_span("a").end()
        k8s_tracing.start_span("b").end()
    assert (inner.names, outer.names) == (["a"], ["b"])


def test_init_within_the_block_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with capture() as captured:
        k8s_tracing.init("mine", backend="noop")
        k8s_tracing.start_span("a").end()
    assert captured.names == ["a"]
    assert k8s_tracing.backend_name() == "noop"
    assert caplog.records == []


def test_fixed_ids_and_clock() -> None:
    def run() -> list[object]:
        with capture(fixed=True) as captured:
            with k8s_tracing.span("outer") as span:
                span.add_event("event")
                k8s_tracing.start_span("inner").end()
            k8s_tracing.start_span("next").end()
        return list(captured.spans)

    assert run() == run()
    with capture(fixed=True) as captured:
        with k8s_tracing.span("outer") as span:
            span.add_event("event")
        k8s_tracing.start_span("next").end()
    outer, following = captured.spans
    assert outer.trace_id == f"{1:016x}{2:016x}"
    assert (outer.span_id, following.span_id) == (f"{3:016x}", f"{6:016x}")
    assert (outer.start_time_ns, outer.duration_ns) == (DEFAULT_START_NS, 2 * S)
    assert outer.events[0].time_ns == DEFAULT_START_NS + S
    assert following.start_time_ns == DEFAULT_START_NS + 3 * S


def test_ids_are_random_and_time_is_real_again_after_the_block() -> None:
    with capture(fixed=True):
        k8s_tracing.start_span("fixed").end()
    with capture() as captured:
        for _ in range(100):
            k8s_tracing.start_span("real").end()
    assert len({span.span_id for span in captured.spans}) == 100
    assert all(int(span.span_id, 16) > 1000 for span in captured.spans)
    assert all(span.start_time_ns > DEFAULT_START_NS + 86400 * S for span in captured.spans)


def test_a_clock_as_told() -> None:
    clock = Clock(1000, step_ns=0)
    with capture(clock=clock) as captured, k8s_tracing.span("work"):
        clock.advance(25)
    assert captured.clock is clock
    [span] = captured.spans
    assert (span.start_time_ns, span.end_time_ns) == (1000, 1025)
    assert int(span.span_id, 16) > 1000


def test_a_name_that_is_not_there_is_told_with_those_that_are() -> None:
    with capture() as captured:
        k8s_tracing.start_span("a").end()
    with pytest.raises(AssertionError, match="0 spans are called 'b'; the spans are: 'a'"):
        captured.find("b")
    captured.clear()
    with pytest.raises(AssertionError, match="the spans are: none"):
        captured.find("b")


def test_the_fixture(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["k8s_tracing.testing_plugin"]\n')
    (tmp_path / "test_app.py").write_text(
        """
import k8s_tracing

def test_first(k8s_tracing_spans):
    with k8s_tracing.span("a"):
        pass
    assert k8s_tracing_spans.find("a").span_id == f"{3:016x}"

def test_second(k8s_tracing_spans):
    assert k8s_tracing_spans.spans == []
"""
    )
    words = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    alone = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [*words, tmp_path], capture_output=True, text=True, cwd=tmp_path, env=alone
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_pytest_does_not_import_us_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "test_app.py").write_text(
        "import sys\n\ndef test():\n    assert 'k8s_tracing' not in sys.modules\n"
    )
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
