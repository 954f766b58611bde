# SPDX-License-Identifier: Apache-2.0
"""How a service starts tracing, and how its log joins the trace."""

from __future__ import annotations

import logging
import os
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

import k8s_tracing

# What every record has; the rest of a record's fields came from the caller, by `extra=`.
_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def start(service: str, *instrumentations: BaseInstrumentor) -> None:
    """Trace this process as `service`, and the libraries it uses."""
    # They read the variable once, so it is set before.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")
    k8s_tracing.init(service)
    for instrumentation in instrumentations:
        instrumentation.instrument()

    log = logging.getLogger("hotrod")
    console = logging.StreamHandler()
    console.setFormatter(LineWithTrace(f"%(asctime)s %(levelname)-7s {service:8}  %(message)s"))
    log.handlers = [console, SpanEvents()]
    log.setLevel(logging.INFO)
    log.propagate = False


class SpanEvents(logging.Handler):
    """Adds each log record to the span it was written in, so that a trace carries its own log."""

    def emit(self, record: logging.LogRecord) -> None:
        span = k8s_tracing.current_span()
        if span.is_recording():
            fields = {"level": record.levelname.lower(), **fields_of(record)}
            span.add_event(record.getMessage(), fields)


class LineWithTrace(logging.Formatter):
    """A log line with its fields and the trace it belongs to, so that a log leads to the trace."""

    def format(self, record: logging.LogRecord) -> str:
        fields = fields_of(record)
        context = k8s_tracing.current_span().get_span_context()
        if context.is_valid:
            fields["trace_id"] = f"{context.trace_id:032x}"
        return " ".join(
            [super().format(record), *(f"{key}={value}" for key, value in fields.items())]
        )


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _OWN_FIELDS}
