"""The critical path of traces whose path is known, and what is true of every path."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from k8s_tracing.analysis.critical_path import Section, critical_path
from k8s_tracing.record import SpanRecord


def span(
    span_id: str, start: int, end: int, parent: str = "", kind: str = "INTERNAL"
) -> SpanRecord:
    return SpanRecord(
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        span_id=span_id,
        name=span_id,
        start_time_ns=start,
        end_time_ns=end,
        parent_span_id=parent,
        kind=kind,
    )


def path(*spans: SpanRecord) -> list[tuple[str, int, int]]:
    return [(part.span_id, part.start_ns, part.end_ns) for part in critical_path(spans)]


def test_a_span_alone_is_its_own_path() -> None:
    assert path(span("a", 10, 20)) == [("a", 10, 20)]


def test_no_spans_have_no_path() -> None:
    assert path() == []


def test_children_one_after_the_other_are_all_on_it() -> None:
    assert path(span("a", 0, 100), span("b", 10, 40, "a"), span("c", 50, 90, "a")) == [
        ("a", 0, 10),
        ("b", 10, 40),
        ("a", 40, 50),
        ("c", 50, 90),
        ("a", 90, 100),
    ]


def test_of_parallel_children_the_one_that_ends_last_is_on_it() -> None:
    """And the one that it overlaps is not, though it ran while nothing else did, too."""
    assert path(span("a", 0, 100), span("b", 10, 60, "a"), span("c", 40, 90, "a")) == [
        ("a", 0, 40),
        ("c", 40, 90),
        ("a", 90, 100),
    ]


def test_of_children_that_end_at_once_the_longest_is_on_it() -> None:
    for_b = path(span("a", 0, 10), span("b", 1, 9, "a"), span("c", 5, 9, "a"))
    assert for_b == [("a", 0, 1), ("b", 1, 9), ("a", 9, 10)]


def test_it_goes_through_grandchildren() -> None:
    spans = [span("a", 0, 10), span("b", 1, 9, "a"), span("c", 2, 5, "b"), span("d", 5, 8, "b")]
    assert path(*reversed(spans)) == [
        ("a", 0, 1),
        ("b", 1, 2),
        ("c", 2, 5),
        ("d", 5, 8),
        ("b", 8, 9),
        ("a", 9, 10),
    ]


def test_a_child_counts_as_long_as_its_parent_runs() -> None:
    assert path(span("a", 10, 20), span("b", 5, 30, "a")) == [("b", 10, 20)]
    assert path(span("a", 10, 20), span("b", 20, 30, "a"), span("c", 1, 10, "a")) == [("a", 10, 20)]
    # The grandchild, too, is cut to what counts of its own parent.
    late = [span("a", 0, 10), span("b", 5, 30, "a"), span("c", 6, 28, "b")]
    assert path(*late) == [("a", 0, 5), ("b", 5, 6), ("c", 6, 10)]


def test_a_consumer_is_not_waited_for() -> None:
    publish = [span("a", 0, 10), span("publish", 1, 3, "a", "PRODUCER")]
    consumer = [span("consume", 2, 9, "publish", "CONSUMER"), span("work", 3, 9, "consume")]
    assert path(*publish, *consumer) == [("a", 0, 1), ("publish", 1, 3), ("a", 3, 10)]
    assert path(*consumer) == [("consume", 2, 3), ("work", 3, 9)]


def test_each_root_has_its_path() -> None:
    assert path(span("b", 5, 9, "lost"), span("a", 0, 4)) == [("a", 0, 4), ("b", 5, 9)]


def test_parents_in_a_ring_end_and_have_a_path() -> None:
    assert path(span("a", 0, 10, "b"), span("b", 2, 8, "a")) == [
        ("a", 0, 2),
        ("b", 2, 8),
        ("a", 8, 10),
    ]
    assert path(span("a", 0, 10, "a")) == [("a", 0, 10)]


def test_a_span_that_ends_before_it_starts_has_none() -> None:
    assert path(span("a", 10, 5)) == []
    assert path(span("a", 0, 10), span("b", 8, 3, "a")) == [("a", 0, 10)]


def test_a_trace_deeper_than_the_interpreters_stack() -> None:
    depth = 5_000
    spans = [
        span(str(level), level, 3 * depth - level, str(level - 1) if level else "")
        for level in range(depth)
    ]
    assert len(path(*spans)) == 2 * depth - 1


@st.composite
def traces(draw: st.DrawFn) -> list[SpanRecord]:
    """Spans whose parents are any of them, themselves and nobody included."""
    size = draw(st.integers(1, 12))
    names = [str(number) for number in range(size)]
    spans = []
    for name in names:
        start, end = draw(st.integers(0, 30)), draw(st.integers(0, 30))
        parent = draw(st.sampled_from(["", *names]))
        kind = draw(st.sampled_from(["INTERNAL", "CONSUMER"]))
        spans.append(span(name, start, end, parent, kind))
    return spans


@given(traces())
def test_sections_lie_in_their_spans(spans: list[SpanRecord]) -> None:
    by_id = {one.span_id: one for one in spans}
    for part in critical_path(spans):
        inside = by_id[part.span_id]
        assert inside.start_time_ns <= part.start_ns < part.end_ns <= inside.end_time_ns


@given(traces())
def test_a_roots_sections_fill_it_without_gap_or_overlap(spans: list[SpanRecord]) -> None:
    root = span("root", 0, 40)
    spans = [s for s in spans if s.parent_span_id != ""]
    ids = {s.span_id for s in spans}
    joined = [s if s.parent_span_id in ids else span(s.span_id, *times(s), "root") for s in spans]
    ours = [part for part in critical_path([root, *joined]) if in_tree(part, joined)]
    assert ours[0].start_ns == 0
    assert ours[-1].end_ns == 40
    assert all(a.end_ns == b.start_ns for a, b in pairwise(ours))


def times(one: SpanRecord) -> tuple[int, int]:
    return one.start_time_ns, one.end_time_ns


def in_tree(part: Section, spans: list[SpanRecord]) -> bool:
    """Is it under `root`, and not in a ring of its own?"""
    parents = {one.span_id: one.parent_span_id for one in spans}
    at, seen = part.span_id, set()
    while at not in seen and at in parents:
        seen.add(at)
        at = parents[at]
    return at == "root"
