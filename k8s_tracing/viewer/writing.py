# SPDX-License-Identifier: Apache-2.0
"""One request's transaction: the rows of its spans, and what they change in their traces."""

from __future__ import annotations

import json
import sqlite3
import zlib
from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from k8s_tracing.viewer import schema
from k8s_tracing.viewer.ingest import Part, SpanRow
from k8s_tracing.viewer.schema import ERROR, SPAN_BITS, UNFINISHED

MAX_SPANS_OF_A_TRACE = 100_000
#: A span that comes again, other than before, takes a number as well.
_MAX_NUMBER = 4 * MAX_SPANS_OF_A_TRACE
#: Spans that one index of tags has, about: small enough that dropping whole ones keeps the bounds.
SEGMENT_SPANS = 65_536
#: More of a span's tags are not found.
_MAX_TAGS = 1024
_HAS_PARENT = 1 << 62


@dataclass(slots=True)
class _Trace:
    """A row of `trace`."""

    id: int = 0
    start_ns: int = 2**63 - 1
    end_ns: int = 0
    spans: int = 0
    errors: int = 0
    unfinished: int = 0
    next_span: int = 0
    root: int = 0
    root_rank: int = 2**63 - 1
    services: dict[int, list[int]] = field(default_factory=dict)

    def count(
        self,
        parent: int | None,
        start_ns: int,
        duration_ns: int,
        flags: int,
        service: int,
        operation: int,
    ) -> None:
        """Let a span be seen in what is said of the whole trace."""
        self.start_ns = min(self.start_ns, start_ns)
        self.end_ns = max(self.end_ns, start_ns + duration_ns)
        self.spans += 1
        failed = flags & ERROR
        self.errors += failed
        self.unfinished += (flags & UNFINISHED) >> 1
        counts = self.services.setdefault(service, [0, 0])
        counts[0] += 1
        counts[1] += failed
        # The root is the first span without a parent, or the first at all; a parent may be still to come.
        rank = min(start_ns, _HAS_PARENT - 1) + (_HAS_PARENT if parent is not None else 0)
        if rank < self.root_rank:
            self.root_rank, self.root = rank, operation

    def row(self) -> tuple[int | str, ...]:
        """Return the columns that change, and the id last."""
        services = [[service, *counts] for service, counts in self.services.items()]
        return (
            self.start_ns,
            self.end_ns,
            self.spans,
            self.errors,
            self.unfinished,
            self.next_span,
            self.root,
            self.root_rank,
            json.dumps(services, separators=(",", ":")),
            self.id,
        )


class Writing:
    """Writes the parts of one request, within a transaction of the caller's.

    Args:
        db: The store's writing connection.
        now_s: When the request came.
    """

    def __init__(self, db: sqlite3.Connection, now_s: int) -> None:
        self._db = db
        self._now_s = now_s
        self._services: dict[str, int] = {}
        self._operations: dict[tuple[int, str, int], int] = {}
        self._span_rows: list[tuple[int | None, ...]] = []
        self._tag_rows: dict[int, list[tuple[int, str]]] = {}
        self._new_traces: set[int] = set()
        self._replaced: dict[int, _Trace] = {}
        #: Spans that were there already.
        self.duplicates = 0
        #: Spans for which their trace has no room.
        self.overflowed = 0

    def write(self, part: Part) -> bool:
        """Take up the spans of one trace; did it change?"""
        trace, known = self._trace(part.trace_id)
        kept = self._choose(part, trace, known)
        if not kept:
            if trace.id in self._new_traces:
                self._db.execute("DELETE FROM trace WHERE id = ?", (trace.id,))
            return False
        tags = self._tag_rows.setdefault(trace.id, [])
        for span in kept:
            service = self._service(span.service)
            operation = self._operation(service, span.name, span.kind)
            number = (trace.id << SPAN_BITS) + trace.next_span
            trace.next_span += 1
            trace.count(
                span.parent, span.start_ns, span.duration_ns, span.flags, service, operation
            )
            self._span_rows.append(
                (
                    number,
                    span.span_id,
                    span.parent,
                    service,
                    operation,
                    span.start_ns,
                    span.duration_ns,
                    span.flags,
                )
            )
            words = (f"s{service}", f"o{operation}", *span.tags[:_MAX_TAGS])
            tags.append((number, " ".join(words)))
        self._update(trace)
        body = zlib.compress(part.request.SerializeToString(), 1)
        self._db.execute("INSERT INTO chunk (trace, body) VALUES (?, ?)", (trace.id, body))
        return True

    def finish(self) -> None:
        """Write what was taken up."""
        self._db.executemany("INSERT INTO span VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self._span_rows)
        for trace in self._replaced.values():
            self._count_again(trace)
        last = max(self._tag_rows, default=0)
        for table, cache in (("service", self._services), ("operation", self._operations)):
            self._db.executemany(
                f"UPDATE {table} SET last_trace = max(last_trace, ?) WHERE id = ?",
                [(last, number) for number in cache.values()],
            )
        by_segment: dict[int, list[tuple[int, str]]] = {}
        segments = self._db.execute(
            "SELECT id, first_trace, spans FROM segment ORDER BY id"
        ).fetchall()
        for trace_id in sorted(self._tag_rows):
            full = not segments or segments[-1][2] >= SEGMENT_SPANS
            if full and trace_id in self._new_traces:
                segments.append((segments[-1][0] + 1 if segments else 1, trace_id, 0))
                schema.create_segment(self._db, *segments[-1][:2])
            number = next(each[0] for each in reversed(segments) if each[1] <= trace_id)
            by_segment.setdefault(number, []).extend(self._tag_rows[trace_id])
        for number, rows in by_segment.items():
            self._db.executemany(f"INSERT INTO tags_{number} (rowid, tags) VALUES (?, ?)", rows)
            self._db.execute(
                "UPDATE segment SET spans = spans + ? WHERE id = ?", (len(rows), number)
            )

    def _trace(self, trace_id: bytes) -> tuple[_Trace, dict[int, tuple[int, ...]]]:
        """The trace's row, and its spans by their ids."""
        row = self._db.execute(
            "SELECT id, start_ns, end_ns, spans, errors, unfinished, next_span, root, root_rank, "
            "services FROM trace WHERE trace_id = ?",
            (trace_id,),
        ).fetchone()
        if row is None:
            cursor = self._db.execute(
                "INSERT INTO trace VALUES (NULL, ?, ?, 0, 0, 0, 0, 0, 0, 0, 0, '')",
                (trace_id, self._now_s),
            )
            assert cursor.lastrowid is not None
            self._new_traces.add(cursor.lastrowid)
            return _Trace(cursor.lastrowid), {}
        counts = {service: [spans, errors] for service, spans, errors in json.loads(row[-1])}
        trace = _Trace(*(*row[:-1], counts))
        spans = self._db.execute(
            "SELECT span_id, id, flags, start_ns, duration_ns FROM span WHERE id >= ? AND id < ?",
            (trace.id << SPAN_BITS, (trace.id + 1) << SPAN_BITS),
        )
        return trace, {span_id: tuple(rest) for span_id, *rest in spans}

    def _choose(
        self, part: Part, trace: _Trace, known: dict[int, tuple[int, ...]]
    ) -> list[SpanRow]:
        """Leave out of a part what is there already, or too much; what replaces another removes that."""
        kept: dict[int, int] = {}  # position by span id
        room = MAX_SPANS_OF_A_TRACE - trace.spans
        for position, span in enumerate(part.rows):
            before = part.rows[kept[span.span_id]] if span.span_id in kept else None
            stored = known.get(span.span_id)
            if before or stored:
                self.duplicates += 1
                flags, start_ns, duration_ns = (
                    stored[1:] if stored and not before else _compared(before or span)
                )
                same = (flags, start_ns, duration_ns) == _compared(span)
                worse = span.flags & UNFINISHED and not flags & UNFINISHED
                if same or worse:
                    continue
            elif len(kept) >= room:
                self.overflowed += 1
                continue
            if trace.next_span + len(kept) >= _MAX_NUMBER:
                self.overflowed += 1
                continue
            kept[span.span_id] = position
        if replaced := [(known[span_id][0],) for span_id in kept if span_id in known]:
            self._db.executemany("DELETE FROM span WHERE id = ?", replaced)
            self._replaced[trace.id] = trace
        if len(kept) < len(part.rows):
            _keep_only(part.request, set(kept.values()))
        return [part.rows[position] for position in sorted(kept.values())]

    def _update(self, trace: _Trace) -> None:
        self._db.execute(
            "UPDATE trace SET start_ns = ?, end_ns = ?, spans = ?, errors = ?, unfinished = ?, "
            "next_span = ?, root = ?, root_rank = ?, services = ? WHERE id = ?",
            trace.row(),
        )

    def _count_again(self, trace: _Trace) -> None:
        counted = _Trace(trace.id, next_span=trace.next_span)
        for row in self._db.execute(
            "SELECT parent, start_ns, duration_ns, flags, service, operation FROM span "
            "WHERE id >= ? AND id < ?",
            (trace.id << SPAN_BITS, (trace.id + 1) << SPAN_BITS),
        ):
            counted.count(*row)
        self._update(counted)

    def _service(self, name: str) -> int:
        if name not in self._services:
            (self._services[name],) = self._db.execute(
                "INSERT INTO service (name, last_trace) VALUES (?, 0) "
                "ON CONFLICT DO UPDATE SET name = name RETURNING id",
                (name,),
            ).fetchone()
        return self._services[name]

    def _operation(self, service: int, name: str, kind: int) -> int:
        key = (service, name, kind)
        if key not in self._operations:
            (self._operations[key],) = self._db.execute(
                "INSERT INTO operation (service, name, kind, last_trace) VALUES (?, ?, ?, 0) "
                "ON CONFLICT DO UPDATE SET name = name RETURNING id",
                key,
            ).fetchone()
        return self._operations[key]


def _compared(span: SpanRow) -> tuple[int, int, int]:
    return span.flags, span.start_ns, span.duration_ns


def _keep_only(request: ExportTraceServiceRequest, positions: set[int]) -> None:
    """Remove the other spans of a request, which are counted through its scopes."""
    position = 0
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            spans = scope_spans.spans
            kept = [span for number, span in enumerate(spans, position) if number in positions]
            position += len(spans)
            copies = [type(span).FromString(span.SerializeToString()) for span in kept]
            del spans[:]
            spans.extend(copies)
