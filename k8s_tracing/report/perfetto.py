# SPDX-License-Identifier: Apache-2.0
"""Traces as Perfetto (ui.perfetto.dev) and chrome://tracing open them.

Written in the JSON of the Trace Event Format (the document "Trace Event Format" of the Chromium project, which
Perfetto imports): it shows services as processes, is readable, and needs no library. A process is one instance of a
service, a thread of it is one trace; spans of a trace that overlap without one being within the other get further
threads, because slices of a thread have to nest. Arrows lead from a span to its children in other processes. Times are
microseconds from the first span on, with three decimals, so that no nanosecond is lost; when that was stands in
`otherData`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from k8s_tracing.record import Attributes, SpanRecord

# What tells the instances of a service apart.
_INSTANCE = ("service.instance.id", "host.name", "k8s.pod.name", "process.pid")


def write(traces: Iterable[Sequence[SpanRecord]]) -> Iterator[str]:
    """Yield the pieces of one JSON object.

    Args:
        traces: The oldest first; only one is held at a time.
    """
    writer: _Writer | None = None
    separator = ""
    yield '{"traceEvents":['
    for spans in traces:
        writer = writer or _Writer(spans[0].start_time_ns)
        for event in writer.trace(spans):
            yield f"{separator}\n{json.dumps(event, ensure_ascii=False, separators=(',', ':'))}"
            separator = ","
    begin = {"start_time_unix_ns": str(writer.begin_ns)} if writer else {}
    yield f'\n],"displayTimeUnit":"ns","otherData":{json.dumps(begin)}}}\n'


class _Writer:
    def __init__(self, begin_ns: int) -> None:
        self.begin_ns = begin_ns
        self._processes: dict[str, int] = {}
        self._threads = 0
        self._flows = 0

    def trace(self, spans: Sequence[SpanRecord]) -> Iterator[dict[str, Any]]:
        """The events of one trace."""
        lanes: dict[int, list[_Lane]] = {}
        places: dict[str, tuple[SpanRecord, int, int]] = {}
        # Those that end last first, so that what is within a span comes after it.
        for span in sorted(spans, key=lambda span: (span.start_time_ns, -span.end_time_ns)):
            pid, is_new = self._process(span)
            if is_new:
                yield _metadata("process_name", pid, 0, name=_process_name(span.resource))
                yield _metadata("process_sort_index", pid, 0, sort_index=pid)
            own = lanes.setdefault(pid, [])
            lane = next((lane for lane in own if lane.has_room(span)), None)
            if lane is None:
                self._threads += 1
                lane = _Lane(self._threads)
                own.append(lane)
                number = f" ({len(own)})" if len(own) > 1 else ""
                yield _metadata(
                    "thread_name", pid, lane.tid, name=f"trace {span.trace_id[:8]}{number}"
                )
                yield _metadata("thread_sort_index", pid, lane.tid, sort_index=lane.tid)
            lane.put(span)
            places[span.span_id] = (span, pid, lane.tid)
            yield self._slice(span, pid, lane.tid)
            for event in span.events:
                yield {
                    "ph": "i",
                    "s": "t",
                    "cat": "event",
                    "name": event.name,
                    "pid": pid,
                    "tid": lane.tid,
                    "ts": self._us(event.time_ns),
                    "args": _plain(event.attributes),
                }
        for span, pid, tid in places.values():
            parent = places.get(span.parent_span_id)
            if parent is not None and parent[1] != pid:
                yield from self._arrow(parent, (span, pid, tid))

    def _process(self, span: SpanRecord) -> tuple[int, bool]:
        key = json.dumps([span.service_name, *(str(span.resource.get(name)) for name in _INSTANCE)])
        is_new = key not in self._processes
        return self._processes.setdefault(key, len(self._processes) + 1), is_new

    def _slice(self, span: SpanRecord, pid: int, tid: int) -> dict[str, Any]:
        about: dict[str, Any] = {
            "trace_id": span.trace_id,
            "span_id": span.span_id,
            "parent_span_id": span.parent_span_id,
            "kind": span.kind,
            "status": " ".join(filter(None, (span.status, span.status_message))),
            "scope": span.scope_name,
        }
        links = [f"{link.trace_id}/{link.span_id}" for link in span.links]
        event = {
            "ph": "X",
            "cat": span.kind.lower(),
            "name": span.name,
            "pid": pid,
            "tid": tid,
            "ts": self._us(span.start_time_ns),
            "dur": max(0, span.duration_ns) / 1000,
            "args": about | ({"links": links} if links else {}) | _plain(span.attributes),
        }
        if span.status == "ERROR":
            event["cname"] = "terrible"
        return event

    def _arrow(
        self, parent: tuple[SpanRecord, int, int], child: tuple[SpanRecord, int, int]
    ) -> Iterator[dict[str, Any]]:
        """From the moment in the parent at which the child begins, or the nearest to it."""
        self._flows += 1
        moment_ns = min(max(child[0].start_time_ns, parent[0].start_time_ns), parent[0].end_time_ns)
        both = {"cat": "flow", "name": "child", "id": self._flows}
        yield both | {
            "ph": "s",
            "pid": parent[1],
            "tid": parent[2],
            "ts": self._us(moment_ns),
        }
        yield both | {
            "ph": "f",
            "bp": "e",
            "pid": child[1],
            "tid": child[2],
            "ts": self._us(child[0].start_time_ns),
        }

    def _us(self, time_ns: int) -> float:
        return (time_ns - self.begin_ns) / 1000


class _Lane:
    """A thread, in which slices nest."""

    def __init__(self, tid: int) -> None:
        self.tid = tid
        self._open_until_ns: list[int] = []

    def has_room(self, span: SpanRecord) -> bool:
        """Is the span after, or within, what is there? Spans come in the order of their start."""
        while self._open_until_ns and self._open_until_ns[-1] <= span.start_time_ns:
            self._open_until_ns.pop()
        return not self._open_until_ns or span.end_time_ns <= self._open_until_ns[-1]

    def put(self, span: SpanRecord) -> None:
        """Take the span, for which there is room."""
        self._open_until_ns.append(span.end_time_ns)


def _metadata(kind: str, pid: int, tid: int, **args: object) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": args}


def _process_name(resource: Attributes) -> str:
    name = str(resource.get("service.name", "unknown_service"))
    instance = next((resource[key] for key in _INSTANCE if key in resource), None)
    return name if instance is None else f"{name} ({instance})"


def _plain(attributes: Attributes) -> dict[str, Any]:
    return {name: _json(value) for name, value in attributes.items()}


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return _plain(value)
    if isinstance(value, (tuple, list)):
        return [_json(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such number
    return value
