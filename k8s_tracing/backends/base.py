# SPDX-License-Identifier: Apache-2.0
"""What a backend is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from opentelemetry import trace
from opentelemetry.util import types

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor


class Backend(Protocol):
    """Makes tracers whose spans end up somewhere."""

    name: str

    def tracer(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: types.Attributes = None,
    ) -> trace.Tracer:
        """Return a tracer for that instrumentation scope."""

    def add_span_processor(self, processor: SpanProcessor) -> None:
        """Call one of OpenTelemetry's SpanProcessors with every span from now on."""

    def flush(self, timeout_ms: int) -> bool:
        """Hand on every ended span; False when the time did not suffice."""

    def shutdown(self) -> None:
        """Flush, then record no more. May be called twice."""
