# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry's `propagate`, in spite of a propagator in OTEL_PROPAGATORS that is not there.

That module reads OTEL_PROPAGATORS when it is imported and raises ValueError when a name in it is misspelled or not
installed, so that neither it nor anything that imports it, any instrumentation for instance, can be imported: the
application does not start. Here such a name is left out with a warning, for everybody who imports it later as well;
who imports it before k8s_tracing, as the command `opentelemetry-instrument` does, is not helped.
"""

from __future__ import annotations

import importlib
import logging
import os
from importlib.metadata import entry_points
from types import ModuleType

_VARIABLE = "OTEL_PROPAGATORS"
#: Those that are in packages of their own; tracecontext, baggage and none are in OpenTelemetry's API.
_PACKAGES = {
    "b3": "opentelemetry-propagator-b3",
    "b3multi": "opentelemetry-propagator-b3",
    "jaeger": "opentelemetry-propagator-jaeger",
    "xray": "opentelemetry-propagator-aws-xray",
    "ottrace": "opentelemetry-propagator-ot-trace",
}

_logger = logging.getLogger("k8s_tracing")


def missing() -> list[str]:
    """Return the names in OTEL_PROPAGATORS that no installed package answers to."""
    names = [name.strip() for name in os.environ.get(_VARIABLE, "").split(",")]
    known = {entry.name for entry in entry_points(group="opentelemetry_propagator")} | {"none", ""}
    return [name for name in names if name not in known and name.lower() != "none"]


def remedy(name: str) -> str:
    """Return what to do about a name that is missing."""
    package = _PACKAGES.get(name)
    return f"pip install {package}" if package else f"correct {_VARIABLE}"


def _import_anyway() -> ModuleType:
    """Import OpenTelemetry's module without the names that would make it raise."""
    absent = missing()
    before = os.environ[_VARIABLE]
    names = [name.strip() for name in before.split(",")]
    # Empty would mean the default, tracecontext and baggage; who names others only wants neither.
    kept = ",".join(name for name in names if name and name not in absent) or "none"
    for name in absent:
        _logger.warning(
            "%s: there is no propagator %r here, it is left out: %s",
            _VARIABLE,
            name,
            remedy(name),
        )
    os.environ[_VARIABLE] = kept
    try:
        return importlib.import_module("opentelemetry.propagate")
    finally:
        os.environ[_VARIABLE] = before


try:
    from opentelemetry import propagate as propagate
except ValueError:
    propagate = _import_anyway()
