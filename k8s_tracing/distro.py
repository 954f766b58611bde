# SPDX-License-Identifier: Apache-2.0
"""`opentelemetry-instrument` with k8s_tracing, by environment variables alone.

OTEL_PYTHON_TRACER_PROVIDER, OTEL_PYTHON_DISTRO or OTEL_PYTHON_CONFIGURATOR set to `k8s_tracing` chooses it. Being
installed does not: `opentelemetry-instrument` takes the first distro and the first configurator that it comes across
when no variable names one, in the order in which the file system lists them. So both stand back here unless they are
asked for, and where another configurator came first although OTEL_PYTHON_TRACER_PROVIDER names us, we come after it.

Only needed, and only importable, where opentelemetry-instrumentation is: ``pip install 'k8s-tracing[auto]'``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from opentelemetry import trace
from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]  # it has no types

NAME = "k8s_tracing"
_CONFIGURATORS = "opentelemetry_configurator"

_logger = logging.getLogger("k8s_tracing")


def is_chosen(environ: Mapping[str, str] = os.environ) -> bool:
    """Does a variable of `opentelemetry-instrument` or of OpenTelemetry name k8s_tracing?"""
    names = ("OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_DISTRO", "OTEL_PYTHON_CONFIGURATOR")
    return any(environ.get(name, "").strip() == NAME for name in names)


class Distro(BaseDistro):  # type: ignore[misc]
    """Sees to it that the configurator below is the one that is called."""

    def _configure(self, **kwargs: Any) -> None:
        os.environ.setdefault("OTEL_PYTHON_CONFIGURATOR", NAME)


def distro() -> Distro | None:
    """Return the distro if it is chosen; `opentelemetry-instrument` passes over what is none."""
    return Distro() if is_chosen() else None


class Configurator:
    """Starts tracing before the application is imported.

    Traces only: OpenTelemetry's meters and loggers stay as they are.
    """

    def configure(self, **kwargs: Any) -> None:
        """Make k8s_tracing's provider OpenTelemetry's; if it is not chosen, let another configurator work."""
        if is_chosen():
            from k8s_tracing.api import tracer_provider

            trace.set_tracer_provider(tracer_provider())
            return
        for entry in entry_points(group=_CONFIGURATORS):
            if entry.name != NAME:
                _logger.debug("k8s_tracing is not chosen: %s configures OpenTelemetry", entry.name)
                entry.load()().configure(**kwargs)
                return


def after_instrumentations() -> None:
    """Let the instrumentations' CLIENT spans say which connections they used: the agent joins them by that."""
    if is_chosen():
        from k8s_tracing.instrument.connections import record_connections

        record_connections()


def before_instrumentations() -> None:
    """Make OTEL_PYTHON_TRACER_PROVIDER=k8s_tracing true, whoever configured OpenTelemetry.

    OpenTelemetry reads the variable only where nobody has set a provider, and the SDK's configurator always sets one.
    No tracer has been given out yet: the instrumentations come next.
    """
    if os.environ.get("OTEL_PYTHON_TRACER_PROVIDER", "").strip() != NAME:
        return
    from k8s_tracing.api import tracer_provider

    other, ours = getattr(trace, "_TRACER_PROVIDER", None), tracer_provider()
    if other is None:
        trace.set_tracer_provider(ours)
    elif other is not ours:
        trace._TRACER_PROVIDER = ours
        other.shutdown()
