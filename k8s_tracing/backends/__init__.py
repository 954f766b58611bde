# SPDX-License-Identifier: Apache-2.0
"""The backends, and which one a process gets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

from opentelemetry.util import types

from k8s_tracing.backends.base import Backend
from k8s_tracing.backends.daemon import daemon_sockets
from k8s_tracing.backends.noop import NoopBackend
from k8s_tracing.errors import BackendUnavailable, K8sTracingError
from k8s_tracing.sampling import Sampling
from k8s_tracing.settings import Limits

__all__ = ["NAMES", "Backend", "choose"]

NAMES = ("auto", "lttng", "otel", "memory", "noop")

#: The native span is a CPython type.
_IS_OTHER_PYTHON = sys.implementation.name != "cpython"

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
        backend, why, is_expected = best(resource, limits, sampling)
        _logger.log(logging.INFO if is_expected else logging.WARNING, "%s", why)
        return backend
    if name == "lttng":
        return _lttng(resource, limits, sampling)
    if name == "memory":
        return _memory(resource, limits, sampling)
    if name == "otel":
        return _otel(resource, sampling)
    if name == "noop":
        return NoopBackend()
    raise K8sTracingError(f"there is no backend {name!r}: choose one of {', '.join(NAMES)}")


def best(
    resource: Mapping[str, types.AttributeValue], limits: Limits, sampling: Sampling | None
) -> tuple[Backend, str, bool]:
    """Make the best backend that works here.

    Returns:
        the backend, why it is this one, and whether such a thing is to be expected: a machine without LTTng is, a
        CPython for which the native span was not built is not.
    """
    try:
        return _lttng(resource, limits, sampling, only_with_daemon=True), "tracing with LTTng", True
    except BackendUnavailable as error:
        why = error
    is_expected = not isinstance(why.__cause__, ImportError) or _IS_OTHER_PYTHON
    try:
        fallback = _otel(resource, sampling)
    except BackendUnavailable as error:
        return NoopBackend(), f"no tracing: {why}; and no fallback: {error}", is_expected
    return fallback, f"tracing with OpenTelemetry's SDK: {why}", is_expected


def _lttng(
    resource: Mapping[str, types.AttributeValue],
    limits: Limits,
    sampling: Sampling | None,
    *,
    only_with_daemon: bool = False,
) -> Backend:
    try:
        from k8s_tracing.backends.lttng import LttngBackend
    except ImportError as error:
        raise no_extension(error) from error
    if only_with_daemon and not daemon_sockets():
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
        raise no_extension(error) from error
    return MemoryBackend(resource, limits, sampling or Sampling())


def _otel(resource: Mapping[str, types.AttributeValue], sampling: Sampling | None) -> Backend:
    from k8s_tracing.backends.otel import OtelBackend

    return OtelBackend(resource, sampling=sampling)


def no_extension(error: ImportError) -> BackendUnavailable:
    """Say what to do about an extension that cannot be imported."""
    return BackendUnavailable(
        f"the native span is missing ({error}): install a C compiler and Python's headers "
        "(Debian, Ubuntu: apt-get install gcc python3-dev) and install k8s-tracing again, with pip's "
        "--force-reinstall --no-cache-dir, because pip keeps what it built"
    )
