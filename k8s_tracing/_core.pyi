# SPDX-License-Identifier: Apache-2.0
"""The span path in C (see _native/core.h), with what native.py puts on its types."""

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from os import PathLike
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.util import types

class Span(trace.Span):
    name: str
    _tracer: Tracer
    @property
    def context(self) -> trace.SpanContext: ...
    @property
    def parent(self) -> trace.SpanContext | None: ...
    @property
    def _traceparent(self) -> str | None: ...
    @property
    def _trace_state(self) -> trace.TraceState | None: ...
    @property
    def kind(self) -> trace.SpanKind: ...
    @property
    def attributes(self) -> dict[str, types.AttributeValue]: ...
    @property
    def start_time(self) -> int | None: ...
    @property
    def end_time(self) -> int | None: ...
    @property
    def _raw_events(self) -> tuple[tuple[str, int, dict[str, types.AttributeValue]], ...]: ...
    @property
    def _raw_links(
        self,
    ) -> tuple[tuple[trace.SpanContext, dict[str, types.AttributeValue]], ...]: ...
    @property
    def _raw_status(self) -> tuple[int, str | None]: ...
    @property
    def _dropped(self) -> tuple[int, int, int]: ...
    @property
    def _deferred(self) -> dict[str, Any]: ...
    def _put_status(self, code: int, message: str | None) -> None: ...
    def get_span_context(self) -> trace.SpanContext: ...
    def is_recording(self) -> bool: ...
    def set_attribute(self, key: str, value: types.AttributeValue) -> None: ...
    def set_attributes(self, attributes: Mapping[str, types.AttributeValue]) -> None: ...
    def add_event(
        self, name: str, attributes: types.Attributes = None, timestamp: int | None = None
    ) -> None: ...
    def add_link(self, context: trace.SpanContext, attributes: types.Attributes = None) -> None: ...
    def update_name(self, name: str) -> None: ...
    def end(self, end_time: int | None = None) -> None: ...
    # put on the type by native.py
    def set_status(
        self, status: trace.Status | trace.StatusCode, description: str | None = None
    ) -> None: ...
    def record_exception(
        self,
        exception: BaseException,
        attributes: types.Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None: ...

class Tracer(trace.Tracer):
    scope: Any
    resource: Any
    def __init__(
        self,
        scope: object,
        resource: object,
        scope_id: int,
        emit: bool,
        parent_based: bool = True,
        sampler: object = None,
        sample_below: int = ...,
    ) -> None: ...
    def listen(
        self,
        on_start: Callable[[Span, Context | None], None] | None,
        on_end: Callable[[Span], None] | None,
        /,
    ) -> None: ...
    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: trace.SpanKind = ...,
        attributes: types.Attributes = None,
        links: Sequence[trace.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span: ...
    # A Span is a context manager and a decorator, as OpenTelemetry's return type is.
    def start_as_current_span(  # type: ignore[override]
        self,
        name: str,
        context: Context | None = None,
        kind: trace.SpanKind = ...,
        attributes: types.Attributes = None,
        links: Sequence[trace.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Span: ...

def span(
    name: str,
    attributes: types.Attributes = None,
    *,
    context: Context | None = None,
    kind: trace.SpanKind = ...,
    links: Sequence[trace.Link] | None = None,
    start_time: int | None = None,
    record_exception: bool = True,
    set_status_on_exception: bool = True,
    end_on_exit: bool = True,
) -> Span: ...
def current_context() -> Context: ...
def current_span() -> trace.Span | None: ...
def remote_span(header: str, /) -> Span | None: ...
def context_value(key: str, /) -> object: ...
def setup(
    context_variable: ContextVar[Any],
    context_type: type[Context],
    span_key: str,
    kinds: tuple[trace.SpanKind, ...],
    make_span_context: Callable[[int, int, bool, int, trace.TraceState | None], trace.SpanContext],
    ask_sampler: Callable[..., tuple[bool, bool, types.Attributes, trace.TraceState | None]],
    on_invalid: Callable[[str, object, object], None],
) -> None: ...
def connect(path: str | PathLike[str]) -> None: ...
def set_default(tracer: object) -> None: ...
def set_limits(
    value_length: int,
    attributes: int,
    events: int,
    links: int,
    event_attributes: int,
    link_attributes: int,
) -> None: ...
def split_cpu(shortest_ns: int, cpu_stat: str | PathLike[str] | None, /) -> None: ...
def random_id() -> int: ...
def encode_resource(attributes: Mapping[str, types.AttributeValue]) -> bytes: ...
def fix_ids(first: int, /) -> None: ...
def fix_clock(next_ns: int, step_ns: int, /) -> int: ...
