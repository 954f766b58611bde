# SPDX-License-Identifier: Apache-2.0
"""The critical path: at each moment of a request, the span that the request was waiting for.

Shortening any other span does not shorten the request. The idea is that of CRISP (Zhang et al., "CRISP: Critical Path
Analysis of Large-Scale Microservice Architectures", USENIX ATC 2022) and of Jaeger's page: from a span's end one goes
back in time to the child that ended last, through that child to its start, and on to the child that ended last before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from k8s_tracing.record import SpanRecord


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a span's time that is on the critical path; both ends in ns since the Unix epoch."""

    span_id: str
    start_ns: int
    end_ns: int


def critical_path(spans: Iterable[SpanRecord]) -> list[Section]:
    """Return the critical path of one trace.

    A span whose parent is not among the spans is a root. Each root has its own: sections in order of time, which do
    not overlap and together last as long as the root.

    - A child counts as long as its parent runs: what it does before or after that, nobody in this trace waits for.
    - A consumer of messages does not hold up who sent them: a child of kind CONSUMER is not on its parent's path.
    - Clocks are taken as they are. Where those of two nodes differ, so does the path.

    Args:
        spans: The spans of one trace, in any order.
    """
    known = sorted(spans, key=lambda span: (span.start_time_ns, span.span_id))
    children = _children(known)
    path: list[Section] = []
    for root in _roots(known, children):
        path += reversed(list(_backwards(root, children)))
    return path


def _children(spans: Sequence[SpanRecord]) -> dict[str, list[SpanRecord]]:
    """Each span's children, the last to end last; of those that end at once, the longest last."""
    children: dict[str, list[SpanRecord]] = {}
    for span in spans:
        children.setdefault(span.parent_span_id, []).append(span)
    for siblings in children.values():
        siblings.sort(key=lambda span: (span.end_time_ns, -span.start_time_ns))
    return children


def _roots(
    spans: Sequence[SpanRecord], children: Mapping[str, Sequence[SpanRecord]]
) -> Iterator[SpanRecord]:
    """The spans without a parent; then, of each ring of parents (a fault), the one that starts first."""
    ids = {span.span_id for span in spans}
    reached: set[str] = set()
    orphans = [span for span in spans if span.parent_span_id not in ids]
    for span in [*orphans, *spans]:
        if span.span_id in reached:
            continue
        yield span
        todo = [span.span_id]
        while todo:
            span_id = todo.pop()
            if span_id not in reached:
                reached.add(span_id)
                todo += [child.span_id for child in children.get(span_id, ())]


class _Visit:
    """A span on the way back in time.

    Attributes:
        start_ns: Where the part of it that counts starts, as `end_ns` is where it ends.
        cursor_ns: What comes after this is on the path already.
    """

    def __init__(
        self, span: SpanRecord, start_ns: int, end_ns: int, children: Sequence[SpanRecord]
    ) -> None:
        self.span_id = span.span_id
        self.start_ns, self.end_ns, self.cursor_ns = start_ns, end_ns, end_ns
        self._ahead = list(children)

    def take_child(self) -> tuple[SpanRecord, int, int] | None:
        """Take the child that was waited for last before the cursor, with the part of it that counts."""
        while self._ahead:
            child = self._ahead.pop()
            start_ns = max(child.start_time_ns, self.start_ns)
            end_ns = min(child.end_time_ns, self.end_ns)
            if child.kind != "CONSUMER" and start_ns < end_ns <= self.cursor_ns:
                return child, start_ns, end_ns
        return None


def _backwards(root: SpanRecord, children: Mapping[str, Sequence[SpanRecord]]) -> Iterator[Section]:
    """The path of one root, its last section first.

    It keeps a stack of its own, since traces may be deeper than Python's, and passes each span once, since parents may
    form a ring.
    """
    passed = {root.span_id}
    stack = [_Visit(root, root.start_time_ns, root.end_time_ns, children.get(root.span_id, ()))]
    while stack:
        visit = stack[-1]
        taken = visit.take_child()
        while taken and taken[0].span_id in passed:
            taken = visit.take_child()
        begin_ns = taken[2] if taken else visit.start_ns
        if begin_ns < visit.cursor_ns:
            yield Section(visit.span_id, begin_ns, visit.cursor_ns)
        if taken is None:
            stack.pop()
            continue
        child, visit.cursor_ns, end_ns = taken
        passed.add(child.span_id)
        stack.append(_Visit(child, visit.cursor_ns, end_ns, children.get(child.span_id, ())))
