"""Distributed tracing for Python services on Kubernetes: OpenTelemetry's API, LTTng's cost."""

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
