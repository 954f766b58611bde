# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry's W3C propagators, at a native span's price.

What they write and accept is OpenTelemetry's: only a native span's header is formatted in C, a plain one (version 00,
no tracestate) is read there, a context without baggage is not made to find that out, and baggage that was read or
written a moment ago is remembered: who asks ten services for one request writes, and gets, the same header ten times.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from opentelemetry.baggage import _BAGGAGE_KEY
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.trace.propagation import _SPAN_KEY
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from k8s_tracing import _core
from k8s_tracing.propagation import propagate


class TraceContextPropagator(TraceContextTextMapPropagator):
    """`traceparent` and `tracestate`."""

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        """Return `context` with the span that the carrier's headers name; unchanged if they name none."""
        headers = getter.get(carrier, self._TRACEPARENT_HEADER_NAME)
        if not headers:
            return Context() if context is None else context
        if not getter.get(carrier, self._TRACESTATE_HEADER_NAME):
            span = _core.remote_span(headers[0])
            if span is not None:
                return Context({**(context or {}), _SPAN_KEY: span})
        return super().extract(carrier, context, getter)

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        """Write the context's span into the carrier; nothing if it has none."""
        span = _core.current_span() if context is None else context.get(_SPAN_KEY)
        if not isinstance(span, _core.Span) or span._traceparent is None:
            super().inject(carrier, context, setter)
            return
        setter.set(carrier, self._TRACEPARENT_HEADER_NAME, span._traceparent)
        if span._trace_state:
            setter.set(carrier, self._TRACESTATE_HEADER_NAME, span._trace_state.to_header())


class BaggagePropagator(W3CBaggagePropagator):
    """`baggage`."""

    def __init__(self) -> None:
        # By id(), with the mapping itself, which keeps that id its own.
        self._written: dict[int, tuple[Mapping[str, object], str]] = {}

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        """Return `context` with the baggage of the carrier's header added; unchanged if it has none."""
        headers = getter.get(carrier, self._BAGGAGE_HEADER_NAME)
        header = next(iter(headers), "") if headers else ""
        if context is None or len(header) > _REMEMBERED_LENGTH or context.get(_BAGGAGE_KEY):
            return super().extract(carrier, context, getter)
        baggage = _read(header) if header else None
        return Context({**context, _BAGGAGE_KEY: baggage}) if baggage else context

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        """Write the context's baggage into the carrier; nothing if it has none."""
        baggage = (
            _core.context_value(_BAGGAGE_KEY) if context is None else context.get(_BAGGAGE_KEY)
        )
        if not isinstance(baggage, Mapping) or not baggage:
            return
        known = self._written.get(id(baggage))
        if known is None:
            written: dict[str, str] = {}
            super().inject(written, Context({_BAGGAGE_KEY: baggage}))
            known = baggage, written.get(self._BAGGAGE_HEADER_NAME, "")
            if len(self._written) >= _REMEMBERED:
                self._written.clear()
            self._written[id(baggage)] = known
        if known[1]:
            setter.set(carrier, self._BAGGAGE_HEADER_NAME, known[1])


#: Headers that are remembered, and how long one may be, in characters: clients send what they like.
_REMEMBERED, _REMEMBERED_LENGTH = 128, 1024


@lru_cache(maxsize=_REMEMBERED)
def _read(header: str) -> Mapping[str, object]:
    """Return what OpenTelemetry reads from a header; nobody changes it, who adds to baggage makes a copy."""
    context = W3CBaggagePropagator().extract(
        {W3CBaggagePropagator._BAGGAGE_HEADER_NAME: header}, Context()
    )
    baggage = context.get(_BAGGAGE_KEY)
    return baggage if isinstance(baggage, Mapping) else {}


_FASTER: dict[type, type[TextMapPropagator]] = {
    TraceContextTextMapPropagator: TraceContextPropagator,
    W3CBaggagePropagator: BaggagePropagator,
}


def install() -> None:
    """Put these in the place of OpenTelemetry's own in its global propagator; others stay. Idempotent."""
    propagator = propagate.get_global_textmap()
    parts = getattr(propagator, "_propagators", None)
    if type(propagator) is CompositePropagator and parts is not None:
        ours = [_FASTER[type(part)]() if type(part) in _FASTER else part for part in parts]
        propagate.set_global_textmap(CompositePropagator(ours))
