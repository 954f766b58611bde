"""What the backends with native spans share: tracers with a number for their scope."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from opentelemetry.util import types

from k8s_tracing.errors import BackendUnavailable
from k8s_tracing.settings import Limits

try:
    from k8s_tracing import _core
    from k8s_tracing.native import Scope
except ImportError as error:
    raise BackendUnavailable(
        f"the native span is missing ({error}): install a C compiler and Python's headers "
        "(Debian, Ubuntu: apt-get install gcc python3-dev) and install k8s-tracing again"
    ) from error

_MAX_SCOPES = 0xFFFF  # the events carry a scope's number in 16 bits


class NativeTracers:
    """Makes native tracers, one for each instrumentation scope.

    Args:
        resource: resource attributes, for readers of a span.
        limits: what a span may hold.
        emit: whether spans go to LTTng.
        on_end: is called with each span that ends.
    """

    def __init__(
        self,
        resource: Mapping[str, types.AttributeValue],
        limits: Limits,
        *,
        emit: bool,
        on_end: Callable[[_core.Span], None] | None = None,
    ) -> None:
        _core.set_limits(
            limits.value_length,
            limits.attributes,
            limits.events,
            limits.links,
            limits.event_attributes,
            limits.link_attributes,
        )
        self._resource = resource
        self._emit = emit
        self._on_end = on_end
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
                None,
                self._on_end,
            )
            self._scopes[key] = tracer
            if number:
                self._announce(number, name, version or "")
            return tracer

    def _announce(self, number: int, name: str, version: str) -> None:
        """Say which number stands for which scope."""
