# SPDX-License-Identifier: Apache-2.0
"""Log records as span events, and the trace in log lines."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hotrod.telemetry import LineWithTrace, SpanEvents
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext, TraceFlags

import k8s_tracing


class RecordingSpan(NonRecordingSpan):
    def __init__(self) -> None:
        super().__init__(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1)))
        self.events: list[tuple[str, Any]] = []

    def is_recording(self) -> bool:
        return True

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        self.events.append((name, attributes))


@pytest.fixture
def record() -> logging.LogRecord:
    return logging.getLogger("hotrod.test").makeRecord(
        "hotrod.test", logging.WARNING, "", 0, "found %d", (3,), None, extra={"location": "1,2"}
    )


def test_a_record_becomes_an_event(
    record: logging.LogRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    span = RecordingSpan()
    monkeypatch.setattr(k8s_tracing, "current_span", lambda: span)
    SpanEvents().emit(record)
    assert span.events == [("found 3", {"level": "warning", "location": "1,2"})]


def test_a_line_names_its_trace(record: logging.LogRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(k8s_tracing, "current_span", RecordingSpan)
    line = LineWithTrace("%(levelname)s %(message)s").format(record)
    assert line == f"WARNING found 3 location=1,2 trace_id={0xABC:032x}"


def test_a_line_outside_of_any_trace(
    record: logging.LogRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(k8s_tracing, "current_span", lambda: INVALID_SPAN)
    assert LineWithTrace("%(message)s").format(record) == "found 3 location=1,2"
