"""Every backend behind one fixture: a test runs once on each and reads what was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from opentelemetry import trace

from k8s_tracing import backends
from k8s_tracing.provider import TracerProvider
from k8s_tracing.record import SpanRecord
from k8s_tracing.settings import Limits
from k8s_tracing.testing import using
from tests.support.lttng import SessionDaemon

RESOURCE = {"service.name": "contract"}


class Recording(Protocol):
    """A backend in use, and what it recorded."""

    provider: TracerProvider

    def spans(self) -> list[SpanRecord]:
        """Return the finished spans; ends the recording."""


class InMemory:
    def __init__(self) -> None:
        self.backend = backends.choose("memory", RESOURCE, Limits())
        self.provider = TracerProvider(self.backend)

    def spans(self) -> list[SpanRecord]:
        from k8s_tracing.backends.memory import MemoryBackend

        assert isinstance(self.backend, MemoryBackend)
        return self.backend.records


class Sdk:
    """OpenTelemetry's SDK; its spans come back through the OTLP that it would send."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        from k8s_tracing.backends.otel import OtelBackend

        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(OtelBackend(RESOURCE, self.exporter))

    def spans(self) -> list[SpanRecord]:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

        from k8s_tracing.otlp import parse_request

        self.provider.shutdown()
        spans = self.exporter.get_finished_spans()
        return parse_request(encode_spans(spans).SerializeToString()) if spans else []


class Lttng:
    """A session of a real daemon, read by the relay."""

    def __init__(self, daemon: SessionDaemon, name: str) -> None:
        self.session = daemon.session(name)
        self.provider = TracerProvider(backends.choose("lttng", RESOURCE, Limits()))

    def spans(self) -> list[SpanRecord]:
        from k8s_tracing.agent.relay import Relay
        from k8s_tracing.otlp import parse_request

        self.session.stop()
        with Relay() as relay:
            requests = [*relay.read(self.session.output), *relay.finish()]
        return [span for request in requests for span in parse_request(request.body)]


@pytest.fixture(params=["memory", "otel", "lttng"])
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Recording]:
    """A backend that `k8s_tracing.span` and a global OpenTelemetry tracer record into."""
    if request.param == "memory":
        recording: Recording = InMemory()
    elif request.param == "otel":
        recording = Sdk()
    else:
        daemon = request.getfixturevalue("registered_daemon")
        recording = Lttng(daemon, f"contract-{tmp_path.name}")
    with using(recording.provider):
        yield recording


@pytest.fixture
def tracer(recording: Recording) -> trace.Tracer:
    return recording.provider.get_tracer("contract.scope", "1.2")
