# SPDX-License-Identifier: Apache-2.0
"""What is measured: one call is one unit of work, of so many spans."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

Work = Callable[[], object]

NAME = "GET /dispatch"
ATTRIBUTES = {
    "http.request.method": "GET",
    "url.path": "/dispatch",
    "http.response.status_code": 200,
    "hotrod.eta_s": 1.5,
}
NOT_SAMPLED = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}


@dataclass(frozen=True)
class Case:
    """A way to make spans.

    Attributes:
        make: prepares a process and returns the work.
        spans: how many spans one call of the work makes.
        recorded: whether a session of LTTng records them.
        extra: the Python package it needs beyond this project's own, if any.
    """

    make: Callable[[], Work]
    spans: int = 1
    recorded: bool = True
    extra: str = ""


def ours_bare() -> Work:
    import k8s_tracing

    k8s_tracing.init("benchmark", backend="lttng")
    span = k8s_tracing.span

    def work() -> None:
        with span(NAME):
            pass

    return work


def ours_attributes() -> Work:
    import k8s_tracing

    k8s_tracing.init("benchmark", backend="lttng")
    span = k8s_tracing.span

    def work() -> None:
        with span(NAME, ATTRIBUTES):
            pass

    return work


def ours_nested() -> Work:
    import k8s_tracing

    k8s_tracing.init("benchmark", backend="lttng")
    span = k8s_tracing.span

    def work(depth: int = 10) -> None:
        with span(NAME):
            if depth > 1:
                work(depth - 1)

    return work


def ours_event() -> Work:
    import k8s_tracing

    k8s_tracing.init("benchmark", backend="lttng")
    span = k8s_tracing.span

    def work() -> None:
        with span(NAME) as current:
            current.add_event("driver found", {"driver": "T757183C"})

    return work


def ours_api() -> Work:
    from opentelemetry import trace

    import k8s_tracing

    k8s_tracing.init("benchmark", backend="lttng")
    tracer = trace.get_tracer_provider().get_tracer("benchmark")

    def work() -> None:
        with tracer.start_as_current_span(NAME):
            pass

    return work


def ours_decorated() -> Work:
    import k8s_tracing

    k8s_tracing.init("benchmark", backend="lttng")

    @k8s_tracing.traced(NAME)
    def work() -> None:
        pass

    return work


def ours_async() -> Work:
    """A thousand coroutines one after the other in one event loop, whose start is a part of the cost."""
    import k8s_tracing

    k8s_tracing.init("benchmark", backend="lttng")

    @k8s_tracing.traced(NAME)
    async def one() -> None:
        pass

    async def many() -> None:
        for _ in range(1000):
            await one()

    return lambda: asyncio.run(many())


def ours_cpu_split() -> Work:
    """Measured at both ends, and told."""
    os.environ["K8S_TRACING_CPU_SPLIT"] = "0ns"
    return ours_bare()


def ours_cpu_split_short() -> Work:
    """Too short to be told: measured at its start only."""
    os.environ["K8S_TRACING_CPU_SPLIT"] = "1s"
    return ours_bare()


def ours_not_sampled() -> Work:
    from opentelemetry import context

    import k8s_tracing

    k8s_tracing.init("benchmark", backend="lttng")
    context.attach(k8s_tracing.extract(NOT_SAMPLED))
    span = k8s_tracing.span

    def work() -> None:
        with span(NAME):
            pass

    return work


def sdk(attributes: dict[str, object] | None = None) -> Work:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )

    class NullExporter(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(NullExporter()))
    tracer = provider.get_tracer("benchmark")

    def work() -> None:
        with tracer.start_as_current_span(NAME, attributes=attributes):  # type: ignore[arg-type]
            pass

    return work


def sdk_attributes() -> Work:
    return sdk(dict(ATTRIBUTES))


def no_op() -> Work:
    from opentelemetry import trace

    tracer = trace.NoOpTracer()

    def work() -> None:
        with tracer.start_as_current_span(NAME):
            pass

    return work


def ddtrace() -> Work:
    """Traces are dropped before they are encoded: what is left is the span itself."""
    os.environ |= {
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
        "DD_TRACE_STARTUP_LOGS": "false",
    }
    from ddtrace.trace import TraceFilter, tracer

    class Drop(TraceFilter):
        def process_trace(self, trace: object) -> None:
            return None

    tracer.configure(trace_processors=[Drop()])

    def work() -> None:
        with tracer.trace(NAME):
            pass

    return work


def logfire() -> Work:
    import logfire

    logfire.configure(send_to_logfire=False, console=False, inspect_arguments=False)

    def work() -> None:
        with logfire.span(NAME):
            pass

    return work


LIMIT = "C limit"
SDK = "OpenTelemetry SDK, null exporter"

CASES = {
    "ours, bare": Case(ours_bare),
    "ours, 4 attributes": Case(ours_attributes),
    "ours, nested 10 deep": Case(ours_nested, spans=10),
    "ours, with an event": Case(ours_event),
    "ours, through the OpenTelemetry API": Case(ours_api),
    "ours, decorated function": Case(ours_decorated),
    "ours, decorated coroutine": Case(ours_async, spans=1000),
    "ours, where its time went": Case(ours_cpu_split),
    "ours, too short for that": Case(ours_cpu_split_short),
    "ours, not sampled": Case(ours_not_sampled),
    "ours, no session records": Case(ours_bare, recorded=False),
    SDK: Case(sdk),
    "OpenTelemetry SDK, 4 attributes": Case(sdk_attributes),
    "OpenTelemetry API, no-op": Case(no_op),
    "ddtrace, dropped before encoding": Case(ddtrace, extra="ddtrace"),
    "logfire, nothing sent": Case(logfire, extra="logfire"),
}
