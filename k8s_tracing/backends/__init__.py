"""The backends, and which one a process gets."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from opentelemetry.util import types

from k8s_tracing.backends.base import Backend
from k8s_tracing.backends.noop import NoopBackend
from k8s_tracing.errors import BackendUnavailable, K8sTracingError
from k8s_tracing.sampling import Sampling
from k8s_tracing.settings import Limits

__all__ = ["NAMES", "Backend", "choose"]

NAMES = ("auto", "lttng", "otel", "memory", "noop")

_logger = logging.getLogger("k8s_tracing")


def choose(
    name: str,
    resource: Mapping[str, types.AttributeValue],
    limits: Limits,
    sampling: Sampling | None = None,
) -> Backend:
    """Make the backend of that name; "auto" takes the best that works here and logs why.

    Args:
        name: one of `NAMES`.
        resource: resource attributes.
        limits: what a span may hold.
        sampling: which traces are recorded; what the OTEL_TRACES_SAMPLER variables say for the SDK, and all others'
            default, when None.

    Raises:
        BackendUnavailable: a backend that was named, not chosen, cannot work here.
        K8sTracingError: there is no backend of that name.
    """
    if name == "auto":
        return _best(resource, limits, sampling)
    if name == "lttng":
        return _lttng(resource, limits, sampling)
    if name == "memory":
        return _memory(resource, limits, sampling)
    if name == "otel":
        return _otel(resource, sampling)
    if name == "noop":
        return NoopBackend()
    raise K8sTracingError(f"there is no backend {name!r}: choose one of {', '.join(NAMES)}")


def _best(
    resource: Mapping[str, types.AttributeValue], limits: Limits, sampling: Sampling | None
) -> Backend:
    try:
        backend = _lttng(resource, limits, sampling, only_with_daemon=True)
        _logger.info("tracing with LTTng")
        return backend
    except BackendUnavailable as error:
        why = error
    try:
        fallback = _otel(resource, sampling)
    except BackendUnavailable as error:
        _logger.info("no tracing: %s; and no fallback: %s", why, error)
        return NoopBackend()
    _logger.info("tracing with OpenTelemetry's SDK: %s", why)
    return fallback


def _lttng(
    resource: Mapping[str, types.AttributeValue],
    limits: Limits,
    sampling: Sampling | None,
    *,
    only_with_daemon: bool = False,
) -> Backend:
    try:
        from k8s_tracing.backends.lttng import LttngBackend, daemon_socket
    except ImportError as error:
        raise _no_extension(error) from error
    if only_with_daemon and daemon_socket() is None:
        raise BackendUnavailable(
            "no LTTng session daemon runs here; `k8s-tracing agent` starts one"
        )
    return LttngBackend(resource, limits, sampling or Sampling())


def _memory(
    resource: Mapping[str, types.AttributeValue], limits: Limits, sampling: Sampling | None
) -> Backend:
    try:
        from k8s_tracing.backends.memory import MemoryBackend
    except ImportError as error:
        raise _no_extension(error) from error
    return MemoryBackend(resource, limits, sampling or Sampling())


def _otel(resource: Mapping[str, types.AttributeValue], sampling: Sampling | None) -> Backend:
    from k8s_tracing.backends.otel import OtelBackend

    return OtelBackend(resource, sampling=sampling)


def _no_extension(error: ImportError) -> BackendUnavailable:
    return BackendUnavailable(
        f"the native span is missing ({error}): install a C compiler and Python's headers "
        "(Debian, Ubuntu: apt-get install gcc python3-dev) and install k8s-tracing again"
    )
