# SPDX-License-Identifier: Apache-2.0
"""The public functions."""

from __future__ import annotations

import atexit
import dataclasses
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, overload

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.util import types

from k8s_tracing import backends
from k8s_tracing.backends.noop import NoopBackend
from k8s_tracing.decorator import decorate, default_name
from k8s_tracing.errors import K8sTracingError
from k8s_tracing.propagation import propagate
from k8s_tracing.provider import TracerProvider, make_provider
from k8s_tracing.resource import version
from k8s_tracing.sampling import from_argument
from k8s_tracing.settings import from_environment

try:
    from k8s_tracing._core import set_default
    from k8s_tracing._core import span as span
except ImportError:  # not CPython, or not built: the fallback's own spans
    from k8s_tracing.pure import set_default  # type: ignore[assignment]
    from k8s_tracing.pure import span as span  # type: ignore[assignment]

_logger = logging.getLogger("k8s_tracing")
_F = TypeVar("_F", bound=Callable[..., object])

_lock = threading.RLock()
_provider: TracerProvider | None = None
_initialised = False  # by `init`, not by the environment


class _FirstTracer(trace.Tracer):
    """The tracer before `init`, where OTEL_PYTHON_TRACER_PROVIDER=k8s_tracing stands for that call.

    The first span starts tracing, as OpenTelemetry's first tracer does.
    """

    def start_span(self, *args: Any, **kwargs: Any) -> trace.Span:
        return self._start().start_span(*args, **kwargs)

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        return self._start().start_as_current_span(*args, **kwargs)

    def _start(self) -> trace.Tracer:
        trace.get_tracer_provider()  # which calls tracer_provider(), which makes another tracer the default
        return trace.NoOpTracer() if _tracer is self else _tracer


_tracer: trace.Tracer = (
    _FirstTracer()
    if os.environ.get("OTEL_PYTHON_TRACER_PROVIDER") == "k8s_tracing"
    else trace.NoOpTracer()
)
set_default(_tracer)


def init(
    service_name: str | None = None,
    *,
    backend: str | None = None,
    resource: Mapping[str, types.AttributeValue] | None = None,
    sampler: Any = None,
    propagators: Sequence[TextMapPropagator] | None = None,
) -> None:
    """Start tracing in this process. Call it once, early; a second call changes nothing.

    A k8s_tracing provider that is OpenTelemetry's already, as under `opentelemetry-instrument`, stays the only one: it
    was made from the environment, and a service name, backend, resource or sampler given here is too late.

    Args:
        service_name: `service.name` of this process's spans; OTEL_SERVICE_NAME when None.
        backend: "lttng", "otel", "memory", "noop", or "auto" for the best that works here;
            K8S_TRACING_BACKEND, or "auto", when None.
        resource: more resource attributes; they win over those of OTEL_RESOURCE_ATTRIBUTES.
        sampler: the share of traces to record, from 0 to 1, decided where a trace begins; or an OpenTelemetry
            Sampler; OTEL_TRACES_SAMPLER, or every trace, when None.
        propagators: OpenTelemetry's propagators for `inject` and `extract`; OTEL_PROPAGATORS, or W3C trace context
            and baggage, when None.

    Raises:
        BackendUnavailable: the named backend cannot work here.
        K8sTracingError: an argument is wrong.
    """
    global _initialised
    if service_name is not None and not (isinstance(service_name, str) and service_name):
        raise K8sTracingError(f"a service's name is a str and not empty, not {service_name!r}")
    sampling = from_argument(sampler) if sampler is not None else None
    with _lock:
        if _initialised and _provider is not None:
            _logger.info("init() was called again: the first call's settings stay")
            return
        provider = _provider or _global_provider()
        if provider is not None:
            given = {
                "service_name": service_name,
                "backend": backend,
                "resource": resource,
                "sampler": sampler,
            }
            late = ", ".join(name for name, value in given.items() if value is not None)
            if late:
                _logger.warning(
                    "init(): %s came too late: OpenTelemetry's tracer provider is k8s_tracing already, made from the "
                    "environment; set OTEL_SERVICE_NAME, K8S_TRACING_BACKEND, OTEL_RESOURCE_ATTRIBUTES or "
                    "OTEL_TRACES_SAMPLER there",
                    late,
                )
        else:
            settings = from_environment()
            if backend is not None:
                settings = dataclasses.replace(settings, backend=backend)
            if sampling is not None:
                settings = dataclasses.replace(settings, sampling=sampling)
            provider = make_provider(settings, service_name, resource)
            trace.set_tracer_provider(provider)
        if propagators is not None:
            propagate.set_global_textmap(CompositePropagator(list(propagators)))
        _initialised = True
        _begin(provider)


def tracer_provider() -> TracerProvider:
    """Return the provider in use, one made from the environment if there is none.

    OpenTelemetry calls it for ``OTEL_PYTHON_TRACER_PROVIDER=k8s_tracing``. Nobody who could read an exception called
    `init`, and a wrong variable must not stop the application: that is logged, and nothing is recorded.
    """
    with _lock:
        if _provider is not None:
            return _provider
        try:
            provider = make_provider(from_environment(), None)
        except K8sTracingError as error:
            _logger.error("no tracing: %s", error)
            provider = TracerProvider(NoopBackend())
        _begin(provider)
        return provider


def _global_provider() -> TracerProvider | None:
    """OpenTelemetry's global provider, if it is one of ours that still works; makes none."""
    provider = getattr(trace, "_TRACER_PROVIDER", None)
    return provider if isinstance(provider, TracerProvider) and not provider.has_ended else None


def _begin(provider: TracerProvider) -> None:
    _use(provider)
    atexit.unregister(shutdown)
    atexit.register(shutdown)


def _use(provider: TracerProvider | None) -> None:
    global _provider, _tracer
    _provider = provider
    _tracer = (
        provider.get_tracer("k8s_tracing", version())
        if provider is not None
        else trace.NoOpTracer()
    )
    set_default(_tracer)


@contextmanager
def _instead(provider: TracerProvider) -> Iterator[None]:
    """Put `provider` in the place of what `init` made or will make: for tests."""
    global _provider, _tracer, _initialised
    before = _provider, _tracer, _initialised
    _use(provider)
    _initialised = True
    try:
        yield
    finally:
        _provider, _tracer, _initialised = before
        set_default(_tracer)


def backend_name() -> str:
    """Return the name of the backend in use; "noop" before `init`."""
    return _provider.backend.name if _provider is not None else "noop"


def backend() -> backends.Backend | None:
    """Return the backend in use, None before `init`."""
    return _provider.backend if _provider is not None else None


def start_span(
    name: str,
    attributes: types.Attributes = None,
    *,
    context: Context | None = None,
    kind: trace.SpanKind = trace.SpanKind.INTERNAL,
    links: Sequence[trace.Link] | None = None,
    start_time: int | None = None,
) -> trace.Span:
    """Start a span without making it current; end it with `end_span` or its own ``end()``.

    Args:
        name: what is done, one of few names ("GET /dispatch", not "GET /dispatch?id=7").
        attributes: str, bool, int, float, bytes, or sequences of one of them, by key.
        context: where to find the parent; the current context when None.
        kind: the span's role, OpenTelemetry's SpanKind.
        links: other spans that led to this one.
        start_time: ns since the Unix epoch; now when None.
    """
    return _tracer.start_span(name, context, kind, attributes, links, start_time)


def end_span(span: trace.Span, end_time: int | None = None) -> None:
    """End a span, at `end_time` (ns since the Unix epoch) or now."""
    span.end(end_time)


class _DefaultTracer:
    """The tracer in use when a function is called, not when it was decorated."""

    def start_span(self, name: str, **arguments: Any) -> trace.Span:
        return _tracer.start_span(name, **arguments)

    start_as_current_span = staticmethod(span)


_DEFAULT_TRACER: Any = _DefaultTracer()


@overload
def traced(function: _F, /) -> _F: ...
@overload
def traced(
    name: str | None = None, /, attributes: types.Attributes = None
) -> Callable[[_F], _F]: ...
def traced(
    function: _F | str | None = None, /, attributes: types.Attributes = None
) -> _F | Callable[[_F], _F]:
    """Make a span of each call of a function, method, coroutine function or generator function.

    ``@traced`` names the span after the function, ``@traced("name", {"key": "value"})`` as told. An exception that
    leaves the function is recorded and sets the span's status. A generator's span lasts from its first step to its
    end, and is current only within it.

    Raises:
        TypeError: what is decorated is no function.
    """
    if function is not None and not isinstance(function, str):
        return decorate(function, _DEFAULT_TRACER, default_name(function), attributes=attributes)

    def decorator(decorated: _F) -> _F:
        name = function or default_name(decorated)
        return decorate(decorated, _DEFAULT_TRACER, name, attributes=attributes)

    return decorator


def current_span() -> trace.Span:
    """Return the current span, ours or another OpenTelemetry span; an invalid one when there is none."""
    return trace.get_current_span()


def inject(carrier: MutableMapping[str, str], context: Context | None = None) -> None:
    """Write the current trace context and baggage into headers, in the formats of OTEL_PROPAGATORS."""
    propagate.inject(carrier, context)


def extract(carrier: Mapping[str, str]) -> Context:
    """Return the context that headers carry, to be given to `start_span` or `extracted`.

    Bad headers give a context without a span: a new trace begins.
    """
    # Never None, which is what OpenTelemetry's gives with OTEL_PROPAGATORS=none and no context to begin with.
    return propagate.extract(carrier, Context())


@contextmanager
def extracted(carrier: Mapping[str, str]) -> Iterator[Context]:
    """Continue the trace that headers carry: its span is the current one within the block."""
    context = extract(carrier)
    token = context_api.attach(context)
    try:
        yield context
    finally:
        context_api.detach(token)


def flush(timeout_ms: int = 30_000) -> bool:
    """Hand on every ended span within that time; False when it did not suffice."""
    return _provider is None or _provider.force_flush(timeout_ms)


def shutdown() -> None:
    """Flush and stop tracing; spans are no-ops from now on. Called at exit by itself."""
    global _initialised
    with _lock:
        provider = _provider
        if provider is None:
            return
        atexit.unregister(shutdown)
        _initialised = False
        _use(None)
    provider.shutdown()
