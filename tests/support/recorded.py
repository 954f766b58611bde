"""What OpenTelemetry's instrumentations recorded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from k8s_tracing.record import SpanRecord
from tests.contract.conftest import Recording


class Recorded:
    """What a backend recorded, oldest first."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def spans(self) -> list[SpanRecord]:
        """Return the spans; ends the recording."""
        spans = self._recording.spans()
        assert not any(span.unfinished for span in spans)
        return sorted(spans, key=lambda span: span.start_time_ns)

    def pair(self) -> tuple[SpanRecord, SpanRecord]:
        """Return the only two spans: a client's, and the server's that is its child."""
        client, server = self.spans()
        assert (client.kind, server.kind) == ("CLIENT", "SERVER")
        assert server.trace_id == client.trace_id
        assert server.parent_span_id == client.span_id
        return client, server


@contextlib.contextmanager
def instrumented(*instrumentors: Any) -> Iterator[None]:
    for instrumentor in instrumentors:
        instrumentor.instrument()
    try:
        yield
    finally:
        for instrumentor in instrumentors:
            instrumentor.uninstrument()


def attributes_of(span: SpanRecord, expected: Iterable[str]) -> dict[str, object]:
    return {key: span.attributes.get(key) for key in expected}
