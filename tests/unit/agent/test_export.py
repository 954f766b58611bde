"""What becomes of requests: attempts and their waits, what is refused, and the file that takes them."""

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from k8s_tracing.agent.export import Delivery, FileExporter, RefusedError, RetryableError
from k8s_tracing.agent.stopping import Stop
from k8s_tracing.errors import ExportError

REQUEST = ExportTraceServiceRequest(resource_spans=[{"schema_url": "x" * 100}]).SerializeToString()


def finish(delivery: Delivery) -> tuple[int, int]:
    delivery.exporter.close()
    return delivery.total.accepted, delivery.total.refused


class Unreliable:
    """Fails a number of times."""

    name = "unreliable"

    def __init__(self, errors: list[Exception]) -> None:
        self.errors = errors

    def send(self, request: bytes, timeout_s: float) -> int:
        if self.errors:
            raise self.errors.pop(0)
        return 0

    def close(self) -> None:
        pass


class Waits:
    """A Stop that only notes how long it was to wait."""

    requested = expired = False

    def __init__(self) -> None:
        self.waits: list[float] = []

    def within(self, wanted_s: float) -> float:
        return wanted_s

    def wait(self, wanted_s: float) -> None:
        self.waits.append(wanted_s)


def test_waits_grow_and_end_at_a_limit() -> None:
    stop: Any = Waits()
    errors: list[Exception] = [RetryableError("down")] * 10
    delivery = Delivery(Unreliable(errors), stop, jitter=lambda: 1.0)
    assert delivery.deliver(REQUEST, 1)
    assert stop.waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]


def test_waits_are_spread() -> None:
    stop: Any = Waits()
    delivery = Delivery(Unreliable([RetryableError("down")]), stop, jitter=lambda: 0.25)
    assert delivery.deliver(REQUEST, 1)
    assert stop.waits == [0.125]


def test_the_receivers_wish_is_a_minimum_with_a_limit() -> None:
    stop: Any = Waits()
    errors: list[Exception] = [RetryableError("down", 7.0), RetryableError("down", 1e9)]
    delivery = Delivery(Unreliable(errors), stop, jitter=lambda: 0.5)
    assert delivery.deliver(REQUEST, 1)
    assert stop.waits == [7.25, 300.5]


def test_more_rejected_than_sent_is_all_of_them() -> None:
    stop: Any = Waits()
    exporter = Unreliable([])
    exporter.send = lambda request, timeout_s: 7  # type: ignore[method-assign]
    delivery = Delivery(exporter, stop)
    assert delivery.deliver(REQUEST, 3)
    assert finish(delivery) == (0, 3)


def test_each_reason_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    stop: Any = Waits()
    errors: list[Exception] = [RefusedError("a"), RefusedError("a"), RefusedError("b")]
    delivery = Delivery(Unreliable(errors), stop)
    for _ in range(3):
        assert delivery.deliver(REQUEST, 1)
    assert finish(delivery) == (0, 3)
    assert len(caplog.records) == 2


def test_the_file_gets_a_line_a_request(tmp_path: Path, stop: Stop) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text("before\n")
    delivery = Delivery(FileExporter(path), stop)
    assert delivery.deliver(REQUEST, 1)
    assert delivery.deliver(REQUEST, 1)
    assert finish(delivery) == (2, 0)
    lines = path.read_text().splitlines()
    assert lines[0] == "before"
    assert len(lines) == 3
    assert lines[1] == lines[2]
    assert "resourceSpans" in lines[1]


def test_a_line_that_a_kill_cut_short_is_taken_away(tmp_path: Path, stop: Stop) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text('{"resourceSpans":[]}\n{"resourceSpans":[{' + "x" * 3_000_000)
    FileExporter(path).close()
    assert path.read_text() == '{"resourceSpans":[]}\n'
    path.write_text('{"resou')
    FileExporter(path).close()
    assert path.read_text() == ""


def test_what_somebody_else_wrote_stays(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text("no newline")
    FileExporter(path).close()
    assert path.read_text() == "no newline"


def test_a_disk_that_fills_up_in_a_line(tmp_path: Path, stop: Stop) -> None:
    """The part of a line that had room is taken back, and all of it is written later."""
    path = tmp_path / "spans.jsonl"
    exporter = FileExporter(path)
    exporter.send(REQUEST, 1.0)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(RetryableError, match="File too large"):
            exporter.send(REQUEST, 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    exporter.send(REQUEST, 1.0)
    assert path.read_bytes() == before * 2
    exporter.close()


def test_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    exporter = FileExporter(Path("-"))
    assert exporter.name == "standard output"
    exporter.send(REQUEST, 1.0)
    exporter.close()
    assert capfd.readouterr().out.startswith('{"resourceSpans":[{"schemaUrl"')


def test_whoever_read_standard_output_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        exporter = FileExporter(Path("-"))
        os.close(read)
        with pytest.raises(ExportError, match="gone away"):
            exporter.send(REQUEST, 1.0)
        exporter.close()


def test_attempts_are_told(stop: Stop) -> None:
    told: list[bool] = []
    errors: list[Exception] = [RetryableError("down"), RefusedError("no")]
    delivery = Delivery(
        Unreliable(errors), stop, jitter=lambda: 0.0, on_attempt=lambda _, done: told.append(done)
    )
    assert delivery.deliver(REQUEST, 1)
    assert delivery.deliver(REQUEST, 1)
    assert told == [False, True, True]


def test_what_is_not_wanted_any_more_is_let_go(stop: Stop) -> None:
    errors: list[Exception] = [RetryableError("down")] * 3
    delivery = Delivery(Unreliable(errors), stop, jitter=lambda: 0.0)
    assert not delivery.deliver(REQUEST, 1, wanted=lambda: len(errors) > 1)
    assert delivery.down_s > 0
    assert finish(delivery) == (0, 0)


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="--output-file"):
        FileExporter(tmp_path / "missing/spans.jsonl")
