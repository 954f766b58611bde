"""The memory backend, as what `k8s_tracing.span` and a global OpenTelemetry tracer record into."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k8s_tracing.backends.memory import MemoryBackend
from k8s_tracing.provider import make_provider
from k8s_tracing.record import SpanRecord
from k8s_tracing.settings import Settings
from k8s_tracing.testing import using

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


@pytest.fixture
def spans() -> Iterator[list[SpanRecord]]:
    """The spans that have ended so far, in that order."""
    provider = make_provider(Settings(backend="memory"), "unit")
    assert isinstance(provider.backend, MemoryBackend)
    with using(provider):
        yield provider.backend.records
