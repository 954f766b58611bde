"""The backends, and which one a process gets."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from opentelemetry.util import types

from k8s_tracing.backends.base import Backend
from k8s_tracing.backends.noop import NoopBackend
from k8s_tracing.errors import BackendUnavailable, K8sTracingError
from k8s_tracing.settings import Limits

__all__ = ["NAMES", "Backend", "choose"]

NAMES = ("auto", "lttng", "otel", "memory", "noop")

_logger = logging.getLogger("k8s_tracing")


def choose(name: str, resource: Mapping[str, types.AttributeValue], limits: Limits) -> Backend:
    """Make the backend of that name; "auto" takes the best that works here and logs why.

    Raises:
        BackendUnavailable: a backend that was named, not chosen, cannot work here.
        K8sTracingError: there is no backend of that name.
    """
    if name == "auto":
        return _best(resource, limits)
    if name == "lttng":
        return _lttng(resource, limits)
    if name == "otel":
        return _otel(resource)
    if name == "memory":
        from k8s_tracing.backends.memory import MemoryBackend

        return MemoryBackend(resource, limits)
    if name == "noop":
        return NoopBackend()
    raise K8sTracingError(f"there is no backend {name!r}: choose one of {', '.join(NAMES)}")


def _best(resource: Mapping[str, types.AttributeValue], limits: Limits) -> Backend:
    try:
        from k8s_tracing.backends.lttng import daemon_socket

        socket = daemon_socket()
        if socket is not None:
            backend = _lttng(resource, limits)
            _logger.info("tracing with LTTng: a session daemon listens at %s", socket)
            return backend
        why = "no LTTng session daemon runs here (`k8s-tracing agent` starts one)"
    except BackendUnavailable as error:
        why = str(error)
    try:
        fallback = _otel(resource)
    except BackendUnavailable as error:
        _logger.info("no tracing: %s; and no fallback: %s", why, error)
        return NoopBackend()
    _logger.info("tracing with OpenTelemetry's SDK: %s", why)
    return fallback


def _lttng(resource: Mapping[str, types.AttributeValue], limits: Limits) -> Backend:
    from k8s_tracing.backends.lttng import LttngBackend

    return LttngBackend(resource, limits)


def _otel(resource: Mapping[str, types.AttributeValue]) -> Backend:
    from k8s_tracing.backends.otel import OtelBackend

    return OtelBackend(resource)
