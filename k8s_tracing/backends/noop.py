# SPDX-License-Identifier: Apache-2.0
"""Records nothing, and passes trace contexts on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.util import types

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor


class NoopBackend:
    """OpenTelemetry's own no-op tracer."""

    name = "noop"

    def tracer(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: types.Attributes = None,
    ) -> trace.Tracer:
        """Return the no-op tracer."""
        return trace.NoOpTracer()

    def add_span_processor(self, processor: SpanProcessor) -> None:
        """There are no spans to call it with."""

    def flush(self, timeout_ms: int) -> bool:
        """There is nothing to hand on."""
        return True

    def shutdown(self) -> None:
        """There is nothing to end."""
