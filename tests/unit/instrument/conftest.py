"""The memory backend, as what `k8s_tracing.span` and a global OpenTelemetry tracer record into."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k8s_tracing import api
from k8s_tracing.backends.memory import MemoryBackend
from k8s_tracing.provider import TracerProvider
from k8s_tracing.record import SpanRecord
from k8s_tracing.settings import Limits

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


@pytest.fixture
def spans() -> Iterator[list[SpanRecord]]:
    """The spans that have ended so far, in that order."""
    backend = MemoryBackend({"service.name": "unit"}, Limits())
    api._use(TracerProvider(backend))
    yield backend.records
    api._use(None)
