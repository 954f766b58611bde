# SPDX-License-Identifier: Apache-2.0
"""Traces as trees in text, for a terminal, a pipe or a file.

A row has the span's name under its parent, its duration, and a bar that shows where in the trace it lies. The service
stands before the name where it is another one than the parent's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from k8s_tracing.record import AttributeValue, EventRecord, SpanRecord
from k8s_tracing.report.cells import cells_of, clean, fit

_DURATION_WIDTH = 8
_GAP = "  "
_MIN_WIDTH = 70  # what the header's first line takes
_MIN_BAR = 16
_MAX_BAR = 60

_BOLD = "1"
_DIM = "2"
_RED = "31"
_YELLOW = "33"
# Red is left to errors. Beyond ten services colours repeat; the name is always there, too.
_SERVICE_COLORS = ("36", "35", "32", "34", "33", "96", "95", "92", "94", "93")


def render_traces(
    spans: Iterable[SpanRecord], *, color: bool, width: int, events: bool = False
) -> str:
    """Draw every trace of these spans, the oldest first, with an empty line between two.

    Args:
        spans: Spans of any traces, in any order.
        color: Use the terminal's colours (ANSI sequences).
        width: Columns to fill; fewer than 70 are taken as 70.
        events: Draw span events, too.
    """
    traces: dict[str, list[SpanRecord]] = {}
    for span in sorted(spans, key=_order):
        traces.setdefault(span.trace_id, []).append(span)
    return "\n".join(
        render_trace(trace, color=color, width=width, events=events) for trace in traces.values()
    )


def render_trace(
    spans: Sequence[SpanRecord], *, color: bool, width: int, events: bool = False
) -> str:
    """Draw the spans of one trace as a tree; every line ends in a newline.

    The arguments are those of `render_traces`. A span whose parent is not among the spans is one more root.
    """
    if not spans:
        return ""
    spans = sorted(spans, key=_order)
    paint = _Paint(color, spans)
    frame = _Frame(spans)
    rows = list(_rows(spans, events))
    layout = _Layout(max(row.cells for row in rows if row.is_span), max(width, _MIN_WIDTH))
    lines = [*_header(spans, frame, paint, layout)]
    lines += [_line(row, frame, paint, layout) for row in rows]
    return "".join(line.rstrip() + "\n" for line in lines)


def format_duration(duration_ns: int) -> str:
    """A duration in three digits and the unit that suits it: `712 ms`, `1.23 s`."""
    if duration_ns < 0:
        return f"-{format_duration(-duration_ns)}"
    for unit, size_ns in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        # what would be rounded up to 1000 of the smaller unit is already one of this
        if duration_ns >= size_ns * 0.9995:
            value = duration_ns / size_ns
            if value >= 99.95:
                return f"{value:,.0f} {unit}"
            return f"{value:.1f} {unit}" if value >= 9.995 else f"{value:.2f} {unit}"
    return f"{duration_ns} ns"


@dataclass(frozen=True, slots=True)
class _Row:
    """One line under the header.

    Attributes:
        prefix: The tree's lines before the text.
        span: Whose line it is.
        service: What stands before the name; empty where it is the parent's.
        label: The span's name, its error's text, or an event.
        note: What is unusual of the span.
        is_span: Is it the span's own line, with duration and bar?
        is_error: Is it to be red?
    """

    prefix: str
    span: SpanRecord
    service: str
    label: str
    note: str = ""
    is_span: bool = True
    is_error: bool = False

    @property
    def cells(self) -> int:
        """How many columns it takes; each character of the tree's lines takes one, and there may be thousands."""
        return len(self.prefix) + cells_of(
            " ".join(filter(None, (self.service, self.label, self.note)))
        )


class _Frame:
    """The time that a trace takes, onto which bars are drawn."""

    def __init__(self, spans: Sequence[SpanRecord]) -> None:
        self.start_ns = min(span.start_time_ns for span in spans)
        self.duration_ns = max(max(span.end_time_ns for span in spans) - self.start_ns, 0)

    def bar(self, span: SpanRecord, width: int) -> tuple[int, str]:
        """How far from the left a span's bar begins, and the bar, in half columns of a line."""
        halves = 2 * width
        scale = halves / self.duration_ns if self.duration_ns else 0.0
        first = min(int((span.start_time_ns - self.start_ns) * scale), halves - 1)
        last = halves if not scale else round((span.end_time_ns - self.start_ns) * scale)
        last = min(max(last, first + 1), halves)
        left, right = first // 2, (last + 1) // 2
        cells = ["━"] * (right - left)
        if first % 2:
            cells[0] = "╺"
        if last % 2:
            cells[-1] = "╸"
        return left, "".join(cells)


class _Layout:
    """Which columns the tree, the durations and the bars have."""

    def __init__(self, tree: int, width: int) -> None:
        beside = len(_GAP) + _DURATION_WIDTH + len(_GAP)
        self.width = width
        self.tree = min(tree, width - beside - _MIN_BAR)
        self.bar = min(width - beside - self.tree, _MAX_BAR)


class _Paint:
    """Puts colours on texts, or none."""

    def __init__(self, color: bool, spans: Sequence[SpanRecord]) -> None:
        self._color = color
        services = dict.fromkeys(span.service_name for span in spans)
        self._services = {
            service: _SERVICE_COLORS[i % len(_SERVICE_COLORS)] for i, service in enumerate(services)
        }

    def __call__(self, text: str, *codes: str) -> str:
        if not self._color or not codes or not text:
            return text
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m"

    def service(self, name: str) -> str:
        """The colour of a service."""
        return self._services[name]


def _order(span: SpanRecord) -> tuple[int, int, str]:
    """By start; of those that start at once, the longer one first, since it may be the parent."""
    return span.start_time_ns, -span.end_time_ns, span.span_id


def _header(
    spans: Sequence[SpanRecord], frame: _Frame, paint: _Paint, layout: _Layout
) -> Iterator[str]:
    counts = Counter(span.service_name for span in spans)
    errors = sum(span.status == "ERROR" for span in spans)
    start = datetime.fromtimestamp(frame.start_ns // 10**9, timezone.utc)
    milliseconds = frame.start_ns // 10**6 % 1000
    yield " ".join(
        (
            paint("Trace", _BOLD),
            paint(spans[0].trace_id, _BOLD),
            paint(f"{start:%Y-%m-%d %H:%M:%S}.{milliseconds:03d} UTC", _DIM),
        )
    )
    facts = [
        _plural(len(spans), "span"),
        _plural(len(counts), "service"),
        format_duration(frame.duration_ns),
    ]
    if errors:
        facts.append(paint(_plural(errors, "error"), _RED))
    yield " · ".join(facts)
    if len(counts) > 1:
        yield from _legend(counts, paint, layout.width)
    end = format_duration(frame.duration_ns)
    axis = "0" + end.rjust(layout.bar - 1)
    yield paint(" " * (layout.tree + len(_GAP) * 2 + _DURATION_WIDTH) + axis, _DIM)


def _legend(counts: Mapping[str, int], paint: _Paint, width: int) -> Iterator[str]:
    """The services in their colours with their numbers of spans, in as many lines as it takes."""
    line, used = "", 0
    for service, count in counts.items():
        name = fit(clean(service), width // 2)
        item = f"{paint(name, paint.service(service))} {count}"
        cells = cells_of(name) + 1 + len(str(count))
        if used and used + 3 + cells > width:
            yield line
            line, used = "", 0
        line += f"   {item}" if used else item
        used += cells + (3 if used else 0)
    yield line


def _rows(spans: Sequence[SpanRecord], events: bool) -> Iterator[_Row]:
    """The lines of the tree from top to bottom; no recursion, for a tree may be deep."""
    ids = {span.span_id for span in spans}
    children: dict[str, list[SpanRecord]] = {}
    roots = []
    for span in spans:
        if span.parent_span_id in ids and span.parent_span_id != span.span_id:
            children.setdefault(span.parent_span_id, []).append(span)
        else:
            roots.append(span)
    drawn: set[int] = set()
    # Spans that are each other's ancestors hang from no root: the earliest of them then is one.
    for root in (*roots, *spans):
        if id(root) in drawn:
            continue
        waiting = [(root, "", "", "")]
        while waiting:
            span, prefix, indent, service_above = waiting.pop()
            if id(span) in drawn:
                continue
            drawn.add(id(span))
            below = [child for child in children.get(span.span_id, ()) if id(child) not in drawn]
            yield _span_row(span, prefix, service_above, ids)
            yield from _detail_rows(span, indent + ("│  " if below else "   "), events)
            for i, child in enumerate(reversed(below)):
                branch, further = ("└─ ", "   ") if i == 0 else ("├─ ", "│  ")
                waiting.append((child, indent + branch, indent + further, span.service_name))


def _span_row(span: SpanRecord, prefix: str, service_above: str, ids: set[str]) -> _Row:
    notes = []
    if span.unfinished:
        notes.append("(unfinished)")
    if span.parent_span_id and span.parent_span_id not in ids:
        notes.append("(parent not recorded)")
    is_error = span.status == "ERROR"
    return _Row(
        prefix=prefix,
        span=span,
        service="" if span.service_name == service_above else clean(span.service_name),
        label=("✗ " if is_error else "") + (clean(span.name) or "(no name)"),
        note=" ".join(notes),
        is_error=is_error,
    )


def _detail_rows(span: SpanRecord, prefix: str, events: bool) -> Iterator[_Row]:
    if span.status == "ERROR" and span.status_message:
        message = clean(span.status_message.partition("\n")[0])
        yield _Row(prefix, span, "", message, is_span=False, is_error=True)
    if events:
        for event in span.events:
            yield _Row(prefix, span, "", _event_text(span, event), is_span=False)


def _event_text(span: SpanRecord, event: EventRecord) -> str:
    attributes = " ".join(
        f"{clean(key)}={clean(_short(value))}" for key, value in event.attributes.items()
    )
    after = format_duration(max(event.time_ns - span.start_time_ns, 0))
    return f"· +{after} {clean(event.name)} {attributes}".rstrip()


def _short(value: AttributeValue) -> str:
    return str(value).partition("\n")[0]


def _line(row: _Row, frame: _Frame, paint: _Paint, layout: _Layout) -> str:
    width = layout.tree if row.is_span else layout.width
    # a deep tree leaves at least half of the room to names
    prefix = _fit_end(row.prefix, max(width // 2, width - row.cells + len(row.prefix)))
    room = width - len(prefix)
    if not row.is_span:
        return paint(prefix, _DIM) + paint(fit(row.label, room), _RED if row.is_error else _DIM)
    color = paint.service(row.span.service_name)
    line = paint(prefix, _DIM)
    for text, codes in _parts(row, color):
        if text and room > 0:
            shown = fit(text, room)
            line += paint(shown, *codes) + " "
            room -= cells_of(shown) + 1
    left, bar = frame.bar(row.span, layout.bar)
    line += " " * max(room, 0) + _GAP[: min(room, 0) + len(_GAP)]
    line += format_duration(row.span.duration_ns).rjust(_DURATION_WIDTH) + _GAP
    return line + " " * left + paint(bar, _RED if row.is_error else color)


def _parts(row: _Row, color: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return (
        (row.service, (color, _BOLD)),
        (row.label, (_RED,) if row.is_error else ()),
        (row.note, (_YELLOW,)),
    )


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _fit_end(prefix: str, cells: int) -> str:
    """Cut a tree's lines that are too long, at their beginning."""
    return prefix if len(prefix) <= cells else "…" + prefix[len(prefix) - cells + 1 :]
