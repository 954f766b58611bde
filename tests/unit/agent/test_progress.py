"""The line in a terminal."""

import io

import pytest

from k8s_tracing.agent import progress
from k8s_tracing.agent.progress import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_only_a_terminal_gets_a_line() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)
    assert not line.is_on
    assert not line.due()
    line.clear()
    assert stream.getvalue() == ""


def test_what_the_line_says(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    stream = Terminal()
    line = ProgressLine(stream)
    assert not line.due()
    now += 1.0
    assert line.due()
    line.show(spans=12_000, chunks=3, backlog_bytes=2_500_000, lost=4)
    assert not line.due()
    text = stream.getvalue().removeprefix(progress.ERASE_LINE)
    assert text == "12,000 spans, 3,600/s; backlog 3 chunks, 2.5 MB; lost 4 events"
    line.clear()
    assert stream.getvalue().endswith(progress.ERASE_LINE)
