# SPDX-License-Identifier: Apache-2.0
"""The native span's other half: what few spans do, in Python, put on the C types of `_core`.

Importing this module makes the native span ready: it takes OpenTelemetry's context variable over and registers the
types as OpenTelemetry's ``Span`` and ``Tracer``. It raises ImportError where the extension was not built.
"""

from __future__ import annotations

import logging
import reprlib
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace.propagation import _SPAN_KEY
from opentelemetry.util import types

from k8s_tracing import _core
from k8s_tracing.context import install, use_native
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
        if description is not None:
            _report("description", description, status)
        code, description = status.status_code, status.description
    elif isinstance(status, trace.StatusCode):
        code = status
    else:
        _report("status", status, status)
        return
    if description is not None and not isinstance(description, str):
        description = _text_of(description)
    if code is trace.StatusCode.UNSET or self._raw_status[0] == trace.StatusCode.OK.value:
        return
    self._put_status(code.value, description if code is trace.StatusCode.ERROR else None)


def _text_of(exception: object) -> str:
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
    module = kind.__module__
    described: dict[str, Any] = {
        "exception.type": f"{module}.{kind.__qualname__}"
        if module and module != "builtins"
        else kind.__qualname__,
        "exception.message": _text_of(exception),
        "exception.stacktrace": _stack_of(exception),
        "exception.escaped": str(escaped),
    }
    try:
        described.update(attributes or {})
    except Exception:
        _report("attribute", attributes, attributes)
    self.add_event("exception", described, timestamp)


def _stack_of(exception: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(exception))
    except Exception as error:  # no exception, or one with traps in its attributes
        return f"<no stack: {type(error).__name__}>"


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


#: What is said of something that was not taken as it was given; the words in C's report() calls.
_PROBLEMS = {
    "attribute": "attribute %s (%s) dropped: keys are str and not empty; values are str, bool, int, float, bytes, "
    "None, sequences and mappings of these, or have a __str__ of their own",
    "mapping": "attributes %s (%s) dropped: they are no mapping",
    "depth": "attribute %s (%s) is cut: there are too many sequences or mappings inside one another",
    "text": "attribute %s is recorded as text: %s is no type that OpenTelemetry knows",
    "time": "time %s (%s) ignored: times are int, in ns since the Unix epoch",
    "link": "link %s (%s) dropped: links are OpenTelemetry's Link, or SpanContext in add_link()",
    "description": "description %s ignored: the %s has its own",
    "status": "status %s (%s) ignored: it is OpenTelemetry's Status or StatusCode",
}
_FOLDER = __file__.rpartition("/")[0]
_reported: set[tuple[str, str, int]] = set()


def _report(what: str, subject: object, value: object) -> None:
    """Warn of something that was not taken as it was given, once for each line of code that gives it."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_FOLDER):
        frame = frame.f_back
    place = (what, frame.f_code.co_filename, frame.f_lineno)
    if place in _reported:
        return
    _reported.add(place)
    _logger.warning(
        "%s:%d: " + _PROBLEMS[what], *place[1:], _name_of(subject), type(value).__name__
    )


def _name_of(subject: object) -> str:
    try:
        return reprlib.repr(subject)
    except Exception:  # what is wrong with it may be just that
        return f"<{type(subject).__name__}>"


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
    on_invalid=_report,
)
use_native()
