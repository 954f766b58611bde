# SPDX-License-Identifier: Apache-2.0
"""`k8s_tracing.span` where the extension is missing: the chosen tracer's own spans."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from opentelemetry import trace
from opentelemetry.util import types

_tracer: trace.Tracer = trace.NoOpTracer()


def set_default(tracer: trace.Tracer) -> None:
    """Make `tracer` the one that `span` uses."""
    global _tracer
    _tracer = tracer


def span(
    name: str, attributes: types.Attributes = None, **arguments: Any
) -> AbstractContextManager[trace.Span]:
    """Return a span that is current within its ``with`` block; see OpenTelemetry's start_as_current_span."""
    return _tracer.start_as_current_span(name, attributes=attributes, **arguments)
