# SPDX-License-Identifier: Apache-2.0
"""The store's reading side: searches, traces, and what there is to search for. It never waits for a writer."""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from k8s_tracing.viewer import schema
from k8s_tracing.viewer.ingest import MAX_TIME_NS, kind_name, tag
from k8s_tracing.viewer.schema import ERROR, SPAN_BITS


@dataclass(frozen=True, slots=True)
class Query:
    """What a trace is searched by: one of its spans has all of it.

    Attributes:
        tags: Values as `k8s_tracing.jaeger.as_text` writes them, of the span, its events, scope or resource.
        start_ns: The span starts then or later, and not later than `end_ns`; ns since the Unix epoch.
        limit: How many traces at most, of which there are more the newest.
    """

    service: str = ""
    operation: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    min_duration_ns: int = 0
    max_duration_ns: int = MAX_TIME_NS
    start_ns: int = 0
    end_ns: int = MAX_TIME_NS
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list of traces says of each.

    Attributes:
        id: The store's own.
        services: Spans, and failed ones among them, by service.
    """

    id: int
    trace_id: bytes
    start_ns: int
    end_ns: int
    spans: int
    errors: int
    unfinished: int
    root_service: str
    root_operation: str
    services: Mapping[str, tuple[int, int]]


class Search:
    """Reads a store. Each thread has its own connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        self._calls = _Calls()

    def services(self) -> list[str]:
        """Return the names of all services, sorted."""
        return [name for (name,) in self._db.execute("SELECT name FROM service ORDER BY name")]

    def operations(self, service: str) -> list[tuple[str, str]]:
        """Return name and kind, as Jaeger writes that, of a service's operations, sorted."""
        rows = self._db.execute(
            "SELECT o.name, o.kind FROM operation o JOIN service s ON s.id = o.service "
            "WHERE s.name = ? ORDER BY o.name, o.kind",
            (service,),
        )
        return [(name, kind_name(kind)) for name, kind in rows]

    def find(self, query: Query) -> list[Summary]:
        """Return the newest traces that a query finds, the newest first."""
        with self._snapshot() as db:
            found: dict[int, None] = {}
            if query.limit > 0:
                for trace in _matching(db, query):
                    found[trace] = None
                    if len(found) == query.limit:
                        break
            return sorted(_summaries(db, found), key=lambda each: -each.start_ns)

    def trace(self, trace_id: bytes) -> ExportTraceServiceRequest | None:
        """Return the spans of a trace, None if there is none with that id."""
        with self._snapshot() as db:
            row = db.execute(
                "SELECT id, spans FROM trace WHERE trace_id = ?", (trace_id,)
            ).fetchone()
            return _trace(db, *row) if row else None

    def traces(self, summaries: Iterable[Summary]) -> Iterator[ExportTraceServiceRequest]:
        """Yield the spans of traces that were found, without those that have gone meanwhile."""
        for summary in summaries:
            found = self.trace(summary.trace_id)
            if found is not None:
                yield found

    def summary(self, trace_id: bytes) -> Summary | None:
        """Return what a list says of a trace, None if there is none with that id."""
        with self._snapshot() as db:
            row = db.execute("SELECT id FROM trace WHERE trace_id = ?", (trace_id,)).fetchone()
            return next(_summaries(db, row), None) if row else None

    def dependencies(self, start_ns: int, end_ns: int) -> Counter[tuple[str, str]]:
        """Count the spans by their parents' and their own services, of the traces that lie within that time."""
        with self._snapshot() as db:
            calls = self._calls.count(db, start_ns, end_ns)
            names = dict(db.execute("SELECT id, name FROM service"))
        return Counter(
            {(names[parent], names[child]): number for (parent, child), number in calls.items()}
        )

    def counters(self) -> dict[str, int]:
        """Return what was refused, cut, evicted or there already, since the store was made, and what it holds."""
        with self._snapshot() as db:
            traces, spans = db.execute(
                "SELECT count(*), coalesce(sum(spans), 0) FROM trace"
            ).fetchone()
            return {
                "traces": traces,
                "spans": spans,
                **dict(db.execute("SELECT name, value FROM counter ORDER BY name")),
            }

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    @property
    def _db(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = schema.connect(self._path, durable=False, writes=False)
            self._local.connection = connection
            with self._lock:
                self._connections.append(connection)
        return connection

    def _snapshot(self) -> _Snapshot:
        return _Snapshot(self._db)


class _Snapshot:
    """A read transaction: all its statements see the same state."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> sqlite3.Connection:
        self._db.execute("BEGIN")
        return self._db

    def __exit__(self, *error: object) -> None:
        self._db.execute("COMMIT")


class _Calls:
    """Calls between services by trace. Counting a trace is looking at each of its spans, so it is done once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[int, tuple[int, Counter[tuple[int, int]]]] = {}

    def count(self, db: sqlite3.Connection, start_ns: int, end_ns: int) -> Counter[tuple[int, int]]:
        total: Counter[tuple[int, int]] = Counter()
        rows = db.execute("SELECT id, next_span, start_ns, end_ns FROM trace").fetchall()
        with self._lock:
            self._known = {row[0]: self._known[row[0]] for row in rows if row[0] in self._known}
            for trace, next_span, start, end in rows:
                if start_ns <= start and end <= end_ns:
                    known = self._known.get(trace)
                    if known is None or known[0] != next_span:
                        known = self._known[trace] = (next_span, _calls(db, trace))
                    total.update(known[1])
        return total


def _calls(db: sqlite3.Connection, trace: int) -> Counter[tuple[int, int]]:
    spans = db.execute(
        "SELECT span_id, parent, service FROM span WHERE id >= ? AND id < ?", _span_ids(trace)
    ).fetchall()
    services = {span_id: service for span_id, _, service in spans}
    return Counter(
        (services[parent], service) for _, parent, service in spans if parent in services
    )


def _span_ids(trace: int) -> tuple[int, int]:
    return trace << SPAN_BITS, (trace + 1) << SPAN_BITS


def _matching(db: sqlite3.Connection, query: Query) -> Iterator[int]:
    """Yield the ids of traces, some more than once."""
    service = None
    if query.service:
        row = db.execute("SELECT id FROM service WHERE name = ?", (query.service,)).fetchone()
        if row is None:
            return
        service = row[0]
    operations = None
    if query.operation:
        operations = [
            number
            for (number,) in db.execute(
                "SELECT id FROM operation WHERE name = ? AND (service = ? OR ? IS NULL)",
                (query.operation, service, service),
            )
        ]
        if not operations:
            return
    times = (query.start_ns, query.end_ns, query.min_duration_ns, query.max_duration_ns)
    tags = dict(query.tags)
    # A span that did not fail has no tag that says so.
    succeeded = tags.get("error") == "false" and tags.pop("error")
    flags = f" AND flags & {ERROR} = 0" if succeeded else ""
    if tags or (operations and service is None):
        words = _words(tags, service, operations)
        yield from _by_tags(db, words, times, flags)
    elif service is not None:
        chosen = f" AND operation IN ({','.join(map(str, operations))})" if operations else ""
        for (span,) in db.execute(
            "SELECT id FROM span INDEXED BY span_search WHERE service = ? AND start_ns BETWEEN ? AND ? "
            f"AND duration_ns BETWEEN ? AND ?{chosen}{flags} ORDER BY start_ns DESC",
            (service, *times),
        ):
            yield span >> SPAN_BITS
    else:
        for (span,) in db.execute(
            "SELECT id FROM span WHERE start_ns BETWEEN ? AND ? AND duration_ns BETWEEN ? AND ?"
            f"{flags} ORDER BY id DESC",
            times,
        ):
            yield span >> SPAN_BITS


def _words(tags: Mapping[str, str], service: int | None, operations: list[int] | None) -> str:
    """Return FTS5's expression for them."""
    words = [tag(key, value) for key, value in tags.items()]
    if operations:
        words.append("(" + " OR ".join(f"o{number}" for number in operations) + ")")
    if service is not None:
        words.append(f"s{service}")
    return " AND ".join(words)


def _by_tags(
    db: sqlite3.Connection, words: str, times: tuple[int, ...], flags: str
) -> Iterator[int]:
    for (number,) in db.execute("SELECT id FROM segment ORDER BY id DESC").fetchall():
        for (span,) in db.execute(
            f"SELECT s.id FROM tags_{number} t CROSS JOIN span s ON s.id = t.rowid "
            f"WHERE tags_{number} MATCH ? AND s.start_ns BETWEEN ? AND ? "
            f"AND s.duration_ns BETWEEN ? AND ?{flags} ORDER BY t.rowid DESC",
            (words, *times),
        ):
            yield span >> SPAN_BITS


def _summaries(db: sqlite3.Connection, traces: Iterable[int]) -> Iterator[Summary]:
    names: dict[int, str] = {}
    for trace in traces:
        row = db.execute(
            "SELECT t.id, trace_id, start_ns, end_ns, spans, errors, unfinished, s.name, o.name, services "
            "FROM trace t JOIN operation o ON o.id = root JOIN service s ON s.id = o.service "
            "WHERE t.id = ?",
            (trace,),
        ).fetchone()
        if row is None:
            continue
        services = json.loads(row[9])
        if any(number not in names for number, *_ in services):
            names.update(db.execute("SELECT id, name FROM service").fetchall())
        counts = {names[number]: (spans, errors) for number, spans, errors in services}
        yield Summary(*(*row[:9], counts))


def _trace(db: sqlite3.Connection, trace: int, spans: int) -> ExportTraceServiceRequest:
    merged = ExportTraceServiceRequest()
    for (body,) in db.execute("SELECT body FROM chunk WHERE trace = ? ORDER BY id", (trace,)):
        merged.MergeFromString(zlib.decompress(body))
    found = sum(len(scope.spans) for each in merged.resource_spans for scope in each.scope_spans)
    if found > spans:
        _drop_replaced(merged)
    return merged


def _drop_replaced(request: Any) -> None:
    """Of spans with the same id the last is the one to keep."""
    seen: set[bytes] = set()
    for resource_spans in reversed(request.resource_spans):
        for scope_spans in reversed(resource_spans.scope_spans):
            spans = scope_spans.spans
            for position in range(len(spans) - 1, -1, -1):
                if spans[position].span_id in seen:
                    del spans[position]
                else:
                    seen.add(spans[position].span_id)
