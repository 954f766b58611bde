# SPDX-License-Identifier: Apache-2.0
"""The fallback: OpenTelemetry's SDK, exporting OTLP from within the process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from opentelemetry import trace
from opentelemetry.util import types

from k8s_tracing.errors import BackendUnavailable
from k8s_tracing.sampling import ALL, Sampling

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.sdk.trace.sampling import Sampler


class OtelBackend:
    """OpenTelemetry's TracerProvider with a BatchSpanProcessor.

    Args:
        resource: resource attributes.
        exporter: where spans go; from the OTEL_* variables when None.
        sampling: which traces are recorded; from the OTEL_* variables when None.

    Raises:
        BackendUnavailable: the SDK is not installed.
    """

    name = "otel"

    def __init__(
        self,
        resource: Mapping[str, types.AttributeValue],
        exporter: SpanExporter | None = None,
        sampling: Sampling | None = None,
    ) -> None:
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.version import __version__
        except ImportError as error:
            raise BackendUnavailable(
                f"OpenTelemetry's SDK is missing ({error}): pip install 'k8s-tracing[otlp]'"
            ) from error
        # The SDK makes the spans here: its own telemetry.sdk.* are the true ones.
        sdk = {"telemetry.sdk.name": "opentelemetry", "telemetry.sdk.version": __version__}
        self._provider = TracerProvider(_sampler(sampling), Resource({**resource, **sdk}))
        exporter = exporter or _exporter()
        if exporter is not None:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))

    def tracer(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: types.Attributes = None,
    ) -> trace.Tracer:
        """Return the SDK's tracer."""
        return self._provider.get_tracer(name, version, schema_url, attributes)

    def add_span_processor(self, processor: SpanProcessor) -> None:
        """Call `processor` with every span from now on."""
        self._provider.add_span_processor(processor)

    def flush(self, timeout_ms: int) -> bool:
        """Export what was batched."""
        return self._provider.force_flush(timeout_ms)

    def shutdown(self) -> None:
        """Export what was batched and stop the SDK's thread."""
        self._provider.shutdown()


def _sampler(sampling: Sampling | None) -> Sampler | None:
    if sampling is None:
        return None
    if sampling.sampler is not None:
        return cast("Sampler", sampling.sampler)
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    root = TraceIdRatioBased(min(sampling.below / ALL, 1.0))
    return ParentBased(root) if sampling.parent_based else root


def _exporter() -> SpanExporter | None:
    """Return the exporter that OTEL_TRACES_EXPORTER and OTEL_EXPORTER_OTLP_*PROTOCOL name."""
    kind = os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip() or "otlp"
    if kind == "none":
        return None
    if kind == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if kind != "otlp":
        raise BackendUnavailable(
            f"OTEL_TRACES_EXPORTER={kind} is not supported: use otlp, console or none"
        )
    protocol = (
        os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "http/protobuf"
    )
    try:
        if protocol == "grpc":
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
                OTLPSpanExporter as GrpcExporter,
            )

            return GrpcExporter()
        if protocol == "http/protobuf":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
                OTLPSpanExporter as HttpExporter,
            )

            return HttpExporter()
    except ImportError as error:
        raise BackendUnavailable(
            f"OpenTelemetry's OTLP exporter is missing ({error}): pip install 'k8s-tracing[otlp]'"
        ) from error
    raise BackendUnavailable(
        f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol} is not supported: use grpc or http/protobuf"
    )
