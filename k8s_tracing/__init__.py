# SPDX-License-Identifier: Apache-2.0
"""Distributed tracing for Python services on Kubernetes: OpenTelemetry's API, LTTng's cost."""

import sys
from typing import Any

from k8s_tracing.errors import K8sTracingError

__all__ = [
    "K8sTracingError",
    "backend_name",
    "current_span",
    "end_span",
    "extract",
    "extracted",
    "flush",
    "init",
    "inject",
    "shutdown",
    "span",
    "start_span",
    "traced",
]

_opentelemetry = sys.modules.get("opentelemetry.context")
if _opentelemetry is None or hasattr(_opentelemetry, "get_current"):
    from k8s_tracing.api import (
        backend_name,
        current_span,
        end_span,
        extract,
        extracted,
        flush,
        init,
        inject,
        shutdown,
        span,
        start_span,
        traced,
    )
else:
    # OTEL_PYTHON_CONTEXT=k8s_tracing: OpenTelemetry loads k8s_tracing.context, and is itself imported but half, so
    # that nothing that needs more of it can be imported before somebody asks for it.
    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from k8s_tracing import api

        return globals().setdefault(name, getattr(api, name))
