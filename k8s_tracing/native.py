"""The native span's other half: what few spans do, in Python, put on the C types of `_core`.

Importing this module makes the native span ready: it takes OpenTelemetry's context variable over and registers the
types as OpenTelemetry's ``Span`` and ``Tracer``. It raises ImportError where the extension was not built.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace.propagation import _SPAN_KEY
from opentelemetry.util import types

from k8s_tracing import _core
from k8s_tracing.context import install
from k8s_tracing.decorator import decorate

Span = _core.Span
Tracer = _core.Tracer

_logger = logging.getLogger("k8s_tracing")
_F = TypeVar("_F", bound=Callable[..., Any])


class Event(NamedTuple):
    """A span event as OpenTelemetry's readers know it; `timestamp` in ns since the Unix epoch."""

    name: str
    timestamp: int
    attributes: dict[str, types.AttributeValue]


class Scope(NamedTuple):
    """The instrumentation scope of a tracer."""

    name: str
    version: str | None = None
    schema_url: str | None = None
    attributes: types.Attributes = None


def _set_status(
    self: Span, status: trace.Status | trace.StatusCode, description: str | None = None
) -> None:
    """Set the status by OpenTelemetry's rules: OK is final, UNSET is ignored, only ERROR has a text."""
    if isinstance(status, trace.Status):
        code, description = status.status_code, status.description
    else:
        code = status
    if code is trace.StatusCode.UNSET or self._raw_status[0] == trace.StatusCode.OK.value:
        return
    self._put_status(code.value, description if code is trace.StatusCode.ERROR else None)


def _text_of(exception: BaseException) -> str:
    try:
        return str(exception)
    except Exception as error:  # an exception whose text fails is still worth recording
        return f"<no text: {type(error).__name__}>"


def _fail(self: Span, exception: BaseException) -> None:
    """Set the status that an exception leaving the span gives it."""
    text = f"{type(exception).__name__}: {_text_of(exception)}"
    _set_status(self, trace.StatusCode.ERROR, text)


def _record_exception(
    self: Span,
    exception: BaseException,
    attributes: types.Attributes = None,
    timestamp: int | None = None,
    escaped: bool = False,
) -> None:
    """Add the event "exception" of OpenTelemetry's semantic conventions."""
    if not self.is_recording():
        return
    kind = type(exception)
    name = kind.__qualname__
    self.add_event(
        "exception",
        {
            "exception.type": name
            if kind.__module__ == "builtins"
            else f"{kind.__module__}.{name}",
            "exception.message": _text_of(exception),
            "exception.stacktrace": "".join(traceback.format_exception(exception)),
            "exception.escaped": str(escaped),
            **(attributes or {}),
        },
        timestamp,
    )


def _call(self: Span, function: _F) -> _F:
    """Decorate: ``@tracer.start_as_current_span("name")`` makes a span of each call."""
    return decorate(function, self._tracer, self.name, **self._deferred)


def _repr(self: Span) -> str:
    context = self.get_span_context()
    return f"<Span {self.name!r} trace_id={context.trace_id:032x} span_id={context.span_id:016x}>"


def _span_context(
    trace_id: int, span_id: int, is_remote: bool, flags: int, state: trace.TraceState | None
) -> trace.SpanContext:
    return trace.SpanContext(trace_id, span_id, is_remote, trace.TraceFlags(flags), state)


def _ask_sampler(
    sampler: Any,
    context: Context | None,
    trace_id: int,
    name: str,
    kind: trace.SpanKind,
    attributes: types.Attributes,
    links: Sequence[trace.Link] | None,
) -> tuple[bool, bool, types.Attributes, trace.TraceState | None]:
    """Put OpenTelemetry's question to a Sampler of the user's."""
    result = sampler.should_sample(
        context if context is not None else get_current(),
        trace_id,
        name,
        kind,
        attributes,
        links,
    )
    decision = result.decision
    return (
        decision.is_recording(),
        decision.is_sampled(),
        result.attributes,
        result.trace_state or None,
    )


_reported: set[tuple[str, int]] = set()


def _report_invalid(key: object, value: object) -> None:
    """Warn of a dropped attribute, once for each line of code that sets one."""
    frame = sys._getframe(1)
    place = (frame.f_code.co_filename, frame.f_lineno)
    if place in _reported:
        return
    _reported.add(place)
    _logger.warning(
        "%s:%d: attribute %r dropped: its value is %s, but OpenTelemetry allows str, bool, int, float, bytes and "
        "sequences of one of them, under a key that is a str and not empty",
        *place,
        key,
        type(value).__name__,
    )


def _put_on(cls: type, **members: object) -> None:
    for name, member in members.items():
        setattr(cls, name, member)


_put_on(
    Span,
    set_status=_set_status,
    record_exception=_record_exception,
    _fail=_fail,
    __call__=_call,
    __repr__=_repr,
    status=property(
        lambda self: trace.Status(trace.StatusCode(self._raw_status[0]), self._raw_status[1])
    ),
    events=property(lambda self: tuple(Event(*event) for event in self._raw_events)),
    links=property(lambda self: tuple(trace.Link(*link) for link in self._raw_links)),
    resource=property(lambda self: self._tracer.resource),
    instrumentation_scope=property(lambda self: self._tracer.scope),
)
trace.Span.register(Span)
trace.Tracer.register(Tracer)

_core.setup(
    context_variable=install(),
    context_type=Context,
    span_key=_SPAN_KEY,
    kinds=tuple(trace.SpanKind),
    make_span_context=_span_context,
    ask_sampler=_ask_sampler,
    on_invalid=_report_invalid,
)
