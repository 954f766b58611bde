# SPDX-License-Identifier: Apache-2.0
"""What the backends with native spans share: tracers with a number for their scope."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentelemetry.util import types

from k8s_tracing import _core, w3c
from k8s_tracing.backends.processors import Processors
from k8s_tracing.native import Scope
from k8s_tracing.sampling import Sampling
from k8s_tracing.settings import Limits

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

_MAX_SCOPES = 0xFFFF  # the events carry a scope's number in 16 bits


class NativeTracers:
    """Makes native tracers, one for each instrumentation scope.

    Args:
        resource: resource attributes, for readers of a span.
        limits: what a span may hold.
        sampling: which traces are recorded.
        emit: whether spans go to LTTng.
    """

    def __init__(
        self,
        resource: Mapping[str, types.AttributeValue],
        limits: Limits,
        sampling: Sampling,
        *,
        emit: bool,
    ) -> None:
        w3c.install()
        _core.set_limits(
            limits.value_length,
            limits.attributes,
            limits.events,
            limits.links,
            limits.event_attributes,
            limits.link_attributes,
        )
        self._resource = resource
        self._sampling = sampling
        self._emit = emit
        self._processors = Processors()
        self._lock = threading.Lock()
        self._scopes: dict[tuple[str, str | None, str | None], _core.Tracer] = {}

    def tracer(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: types.Attributes = None,
    ) -> _core.Tracer:
        """Return the tracer of that scope; asked again with the same three names, the same tracer."""
        key = (name, version, schema_url)
        with self._lock:
            known = self._scopes.get(key)
            if known is not None:
                return known
            number = len(self._scopes) + 1
            if number > _MAX_SCOPES:
                number = 0  # a scope that has no name of its own
            tracer = _core.Tracer(
                Scope(name, version, schema_url, attributes),
                self._resource,
                number,
                self._emit,
                parent_based=self._sampling.parent_based,
                sampler=self._sampling.sampler,
                sample_below=self._sampling.below,
            )
            self._listen(tracer)
            self._scopes[key] = tracer
            if number:
                self._announce(number, name, version or "")
            return tracer

    def add_span_processor(self, processor: SpanProcessor) -> None:
        """Call OpenTelemetry's `processor` with every span of this provider's tracers, from now on."""
        with self._lock:
            self._processors.add(processor)
            for tracer in self._scopes.values():
                self._listen(tracer)

    def flush(self, timeout_ms: int) -> bool:
        """Let the processors hand on what they hold."""
        return self._processors.flush(timeout_ms)

    def shutdown(self) -> None:
        """Let the processors hand on what they hold, and end."""
        self._processors.shutdown()

    def _listen(self, tracer: _core.Tracer) -> None:
        """Have the tracer's spans call who wants to know of them; nobody at all costs nothing."""
        if self._processors:
            tracer.listen(self._processors.on_start, self._processors.on_end)

    def _announce(self, number: int, name: str, version: str) -> None:
        """Say which number stands for which scope."""
