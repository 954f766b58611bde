"""Trees of traces: whole pictures against golden files, and what no picture shows.

    K8S_TRACING_UPDATE_GOLDEN=1 pytest tests/unit/report

writes the golden files anew; look at them before they are committed.
"""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from k8s_tracing.otlp import read_json_lines
from k8s_tracing.record import EventRecord, SpanRecord
from k8s_tracing.report.text import format_duration, render_trace, render_traces

GOLDEN = Path(__file__).parents[2] / "golden" / "report"
HOTROD = read_json_lines(GOLDEN / "hotrod.jsonl")
MS = 1_000_000
COLOR = re.compile(r"\x1b\[[0-9;]*m")


def span(number: int, parent: int = 0, start: int = 0, end: int = 10, **fields) -> SpanRecord:
    """A span of one trace; times in ms."""
    known = {
        "trace_id": "ab" * 16,
        "span_id": f"{number:016x}",
        "parent_span_id": f"{parent:016x}" if parent else "",
        "name": f"s{number}",
        "start_time_ns": start * MS,
        "end_time_ns": end * MS,
        "resource": {"service.name": "shop"},
    }
    return SpanRecord(**{**known, **fields})


def draw(*spans: SpanRecord, width: int = 80, events: bool = False) -> list[str]:
    """The lines under the header."""
    text = render_trace(spans, color=False, width=width, events=events)
    lines = text.splitlines()
    return lines[next(n for n, line in enumerate(lines) if line.lstrip().startswith("0 ")) + 1 :]


def tree(*spans: SpanRecord) -> list[str]:
    """What stands before the durations."""
    return [re.split(r"  +[\d.,]+ [nµm]?s", line)[0].rstrip() for line in draw(*spans)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hotrod-80.txt", {"color": False, "width": 80}),
        ("hotrod-120-events.txt", {"color": False, "width": 120, "events": True}),
        ("hotrod-160-color.txt", {"color": True, "width": 160}),
    ],
)
def test_golden(name, options):
    picture = render_traces(HOTROD, **options)
    if os.environ.get("K8S_TRACING_UPDATE_GOLDEN"):
        (GOLDEN / name).write_text(picture, encoding="utf-8")
    assert (GOLDEN / name).read_text(encoding="utf-8") == picture


@pytest.mark.parametrize("width", [70, 80, 100, 120, 160])
@pytest.mark.parametrize("color", [True, False])
def test_no_line_is_wider_than_asked(width, color):
    for line in render_traces(HOTROD, color=color, width=width, events=True).splitlines():
        # 顧客 takes four columns, not two
        assert len(COLOR.sub("", line)) + 2 * ("顧客" in line) <= width


def test_color_changes_nothing_else():
    colored = render_traces(HOTROD, color=True, width=100, events=True)
    assert COLOR.sub("", colored) == render_traces(HOTROD, color=False, width=100, events=True)


def test_the_order_of_the_spans_does_not_matter():
    assert render_trace(HOTROD[::-1], color=False, width=80) == render_trace(
        HOTROD, color=False, width=80
    )


def test_children_stand_under_their_parents_by_their_start():
    spans = [span(4, 2, 3), span(3, 1, 2), span(2, 1, 1), span(5, 2, 4), span(1)]
    assert tree(*spans) == ["shop s1", "├─ s2", "│  ├─ s4", "│  └─ s5", "└─ s3"]


def test_the_service_is_named_where_it_changes():
    other = {"service.name": "other"}
    spans = [span(1), span(2, 1, 1, resource=other), span(3, 2, 2, resource=other), span(4, 3, 3)]
    assert tree(*spans) == ["shop s1", "└─ other s2", "   └─ s3", "      └─ shop s4"]


def test_a_span_without_its_parent_is_a_root_that_says_so():
    assert tree(span(2, 9)) == ["shop s2 (parent not recorded)"]


def test_spans_that_are_each_others_parents_are_drawn_once():
    assert tree(span(1, 2), span(2, 1, 1)) == ["shop s1", "└─ s2"]
    assert tree(span(3, 3)) == ["shop s3"]


def test_a_span_that_came_twice_is_drawn_twice():
    assert tree(span(1), span(1), span(2, 1, 1)) == ["shop s1", "└─ s2", "shop s1"]


def test_a_deep_tree_keeps_its_names():
    spans = [span(1), *(span(n, n - 1, n, 3000) for n in range(2, 3000))]
    lines = draw(*spans)
    assert len(lines) == 2999
    assert "s2999" in lines[-1]
    assert max(map(len, lines)) <= 80


def test_errors_and_events():
    failed = span(
        1,
        status="ERROR",
        status_message="no such table\nTraceback",
        events=(EventRecord("retry", 5 * MS, {"n": 1, "text": "two\nlines"}),),
    )
    lines = draw(failed, span(2, 1, 1), events=True)
    assert lines[0].startswith("shop ✗ s1 ")
    assert lines[1:3] == ["│  no such table", "│  · +5.00 ms retry n=1 text=two"]
    assert "1 error" in render_trace([failed], color=False, width=80)


def test_unfinished_spans_say_so():
    unfinished = span(1, attributes={"k8s_tracing.unfinished": True})
    assert tree(unfinished) == ["shop s1 (unfinished)"]


def test_what_could_drive_the_terminal_is_not_printed():
    wild = span(
        1,
        name="a\x1b[31mb\r\n\x07",
        resource={"service.name": "\x9b5m"},
        status="ERROR",
        status_message="\x1b]0;title\x07",
        events=(EventRecord("\x00", 0, {"\x1b": "\x1b"}),),
    )
    text = render_trace([wild], color=False, width=80, events=True)
    assert all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize(
    ("start", "end", "bar"),
    [
        (0, 1000, "━" * 16),
        (0, 500, "━" * 8),
        (500, 1000, " " * 8 + "━" * 8),
        (32, 63, "╺"),
        (0, 0, "╸"),
        (1000, 1000, " " * 15 + "╺"),
        (469, 531, " " * 7 + "╺╸"),
    ],
)
def test_bars_lie_where_the_span_does(start, end, bar):
    name = "n" * 80  # so that the bars have the least room
    _, line = draw(span(1, 0, 0, 1000, name=name), span(2, 1, start, end))
    assert line.split("s  ", 1)[1] == bar


def test_a_trace_that_takes_no_time():
    (line,) = draw(span(1, 0, 5, 5))
    assert "0 ns  ━━━━" in line


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1.00 µs"),
        (9_994, "9.99 µs"),
        (9_996, "10.0 µs"),
        (99_940, "99.9 µs"),
        (99_960, "100 µs"),
        (999_499, "999 µs"),
        (999_600, "1.00 ms"),
        (712_400_000, "712 ms"),
        (1_234_000_000, "1.23 s"),
        (3_600_000_000_000, "3,600 s"),
        (-1_500, "-1.50 µs"),
    ],
)
def test_durations_have_three_digits(duration_ns, text):
    assert format_duration(duration_ns) == text


def test_traces_are_drawn_oldest_first():
    early, late = span(1, start=5), replace(span(2, start=9), trace_id="cd" * 16)
    text = render_traces([late, early], color=False, width=80)
    assert re.findall(r"^Trace (..)", text, re.M) == ["ab", "cd"]
    assert text.count("\n\n") == 1


def test_nothing():
    assert render_trace([], color=True, width=80) == render_traces([], color=True, width=80) == ""
