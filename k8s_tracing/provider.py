# SPDX-License-Identifier: Apache-2.0
"""k8s_tracing as OpenTelemetry's TracerProvider."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.util import types

from k8s_tracing import backends, cpu
from k8s_tracing.resource import detect
from k8s_tracing.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor


class TracerProvider(trace.TracerProvider):
    """Gives out the tracers of a backend.

    Args:
        backend: where spans go.
    """

    def __init__(self, backend: backends.Backend) -> None:
        self.backend = backend
        self.has_ended = False

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: types.Attributes | None = None,
    ) -> trace.Tracer:
        """Return the tracer of that instrumentation scope."""
        return self.backend.tracer(
            instrumenting_module_name or "", instrumenting_library_version, schema_url, attributes
        )

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Call OpenTelemetry's `span_processor`, and through it an exporter, with every span from now on.

        The spans then also take the slower way through Python.
        """
        self.backend.add_span_processor(span_processor)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Hand on every ended span within that time, in ms."""
        return self.backend.flush(timeout_millis)

    def shutdown(self) -> None:
        """Flush, then record no more."""
        self.has_ended = True
        self.backend.shutdown()


def make_provider(
    settings: Settings, service_name: str | None, resource: types.Attributes = None
) -> TracerProvider:
    """Return a provider for those settings.

    Raises:
        BackendUnavailable: the backend that the settings name cannot work here.
        K8sTracingError: the settings name no backend.
    """
    given = {**(settings.resource or {}), **(resource or {})}
    name = "noop" if settings.disabled else settings.backend
    backend = backends.choose(
        name,
        detect(service_name or settings.service_name, given),
        settings.limits,
        settings.sampling,
    )
    if settings.cpu_split_ns is not None:
        cpu.split(settings.cpu_split_ns, backend.name)
    return TracerProvider(backend)
