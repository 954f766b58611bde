# SPDX-License-Identifier: Apache-2.0
"""What the page asks for and Jaeger has no API for: lists of traces without their spans, live news, critical paths."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

from anyio.to_thread import run_sync
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from k8s_tracing import jaeger
from k8s_tracing.analysis.critical_path import critical_path
from k8s_tracing.otlp import records
from k8s_tracing.viewer import parameters
from k8s_tracing.viewer.api import as_json, legacy_errors, of, path_trace_id
from k8s_tracing.viewer.parameters import ParameterError
from k8s_tracing.viewer.search import Search, Summary

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_LISTENERS = 64
#: A listener that is behind by more traces is told to ask again.
MAX_NEWS = 1000
_BETWEEN_NEWS_S = 0.25
_HEARTBEAT_S = 15.0


class News:
    """Tells pages of traces that grew. `publish` may be called by any thread, all else by the event loop's."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: set[_Listener] = set()

    def publish(self, trace_ids: Iterable[bytes]) -> None:
        """Let every page know that these traces changed."""
        if self._loop is not None and self._listeners:
            self._loop.call_soon_threadsafe(self._publish, tuple(trace_ids))

    def _publish(self, trace_ids: tuple[bytes, ...]) -> None:
        for listener in self._listeners:
            listener.take(trace_ids)

    def listen(self) -> _Listener | None:
        """Return a new listener, None if there are too many."""
        self._loop = asyncio.get_running_loop()
        if len(self._listeners) >= MAX_LISTENERS:
            return None
        listener = _Listener()
        self._listeners.add(listener)
        return listener

    def leave(self, listener: _Listener) -> None:
        """Forget a listener."""
        self._listeners.discard(listener)


class _Listener:
    def __init__(self) -> None:
        self._grown: dict[bytes, None] = {}
        self._missed = False
        self._some = asyncio.Event()

    def take(self, trace_ids: tuple[bytes, ...]) -> None:
        self._grown.update(dict.fromkeys(trace_ids))
        if len(self._grown) > MAX_NEWS:
            self._grown.clear()
            self._missed = True
        self._some.set()

    async def wait(self) -> tuple[list[bytes], bool]:
        """Return the traces that grew, and whether there were more; neither after a while without news."""
        try:
            await asyncio.wait_for(self._some.wait(), _HEARTBEAT_S)
        except asyncio.TimeoutError:
            return [], False
        news = list(self._grown), self._missed
        self._grown.clear()
        self._missed = False
        self._some.clear()
        return news


class PageApi:
    """The routes of the page alone."""

    def __init__(self, search: Search, news: News) -> None:
        self._search = search
        self._news = news

    def routes(self) -> list[BaseRoute]:
        """Return what it answers to."""
        return [
            Route("/api/trace-summaries", legacy_errors(self.summaries)),
            Route("/api/trace-summaries/{trace_id}", legacy_errors(self.one_summary)),
            Route("/api/traces/{trace_id}/critical-path", legacy_errors(self.critical_path)),
            Route("/api/counters", self.counters),
            Route("/api/live", self.live),
        ]

    def summaries(self, request: Request) -> Response:
        """Answer as `/api/traces` does, with a summary in the place of each trace; a service need not be named."""
        query = parameters.legacy_query(of(request), time.time_ns(), any_service=True)
        return as_json(request, jaeger.answer([summary(each) for each in self._search.find(query)]))

    def one_summary(self, request: Request) -> Response:
        """Answer with the summary of one trace, or with none where it has not arrived."""
        found = self._search.summary(path_trace_id(request))
        return as_json(request, jaeger.answer([] if found is None else [summary(found)]))

    def critical_path(self, request: Request) -> Response:
        """Answer with the parts of a trace's critical path, in their order."""
        trace = self._search.trace(path_trace_id(request))
        if trace is None:
            raise ParameterError("trace not found", status=404)
        path = [
            {"spanID": each.span_id, "startNs": str(each.start_ns), "endNs": str(each.end_ns)}
            for each in critical_path(list(records(trace)))
        ]
        return as_json(request, jaeger.answer(path))

    def counters(self, request: Request) -> Response:
        """Answer with what the store holds, refused, cut and let go."""
        return as_json(request, self._search.counters())

    async def live(self, request: Request) -> Response:
        """Answer with server-sent events: `trace`, whose data is a summary, and `missed`."""
        listener = self._news.listen()
        if listener is None:
            return Response("too many pages listen; close some", 503, {"Retry-After": "30"})

        async def events() -> AsyncIterator[str]:
            try:
                yield ": live\n\n"
                while True:
                    grown, missed = await listener.wait()
                    yield "event: missed\ndata: {}\n\n" if missed else ": \n\n"
                    for trace_id in grown:
                        found = await run_sync(self._search.summary, trace_id)
                        if found is not None:
                            yield f"event: trace\ndata: {json.dumps(summary(found))}\n\n"
                    await asyncio.sleep(_BETWEEN_NEWS_S)
            finally:
                self._news.leave(listener)

        return StreamingResponse(events(), media_type="text/event-stream")


def summary(found: Summary) -> dict[str, Any]:
    """Return what the page's lists show of a trace; times are microseconds, as in Jaeger's JSON."""
    return {
        "traceID": found.trace_id.hex(),
        "startTime": found.start_ns // 1000,
        "duration": max(0, found.end_ns - found.start_ns) // 1000,
        "spans": found.spans,
        "errors": found.errors,
        "unfinished": found.unfinished,
        "root": {"serviceName": found.root_service, "operationName": found.root_operation},
        "services": [
            {"name": name, "spans": spans, "errors": errors}
            for name, (spans, errors) in sorted(found.services.items())
        ],
    }
