# SPDX-License-Identifier: Apache-2.0
"""What an application here would get: the parts that are installed, the backend, the fallback, the variables."""

from __future__ import annotations

import logging
import os
import platform
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module, metadata
from urllib.parse import urlsplit

from k8s_tracing import backends, propagation
from k8s_tracing.backends import Backend
from k8s_tracing.doctor.finding import Finding, ok, problem, warning
from k8s_tracing.errors import BackendUnavailable, ExportError, K8sTracingError
from k8s_tracing.resource import detect, version
from k8s_tracing.settings import Settings, from_environment

CONNECT_TIMEOUT_S = 1.0
REGISTER_TIMEOUT_S = 5.0

_SECRET = re.compile(r"HEADERS|TOKEN|SECRET|PASSWORD|CREDENTIAL|_KEY", re.IGNORECASE)
_OURS = re.compile(r"^(OTEL_|K8S_TRACING_|LTTNG_)")
_INSTALL_AGENT = "on a node that runs the agent: pip install 'k8s-tracing[agent]'"


def installation() -> list[Finding]:
    """Return what is to say of the parts of this package, the LTTng provider aside."""
    found = [ok("k8s-tracing", f"{version()}, Python {platform.python_version()}")]
    try:
        core = import_module("k8s_tracing._core")
        found.append(ok("native span", f"{core.__file__}"))
    except ImportError as error:
        remedy = str(backends.no_extension(error)).partition(": ")[2]
        found.append(warning("native span", f"is missing: {error}", remedy))
    return [*found, relay()]


def versions() -> dict[str, str]:
    """Return the releases of what is in Python."""
    found = {"k8s-tracing": version(), "Python": platform.python_version()}
    for package in ("opentelemetry-api", "opentelemetry-sdk", "opentelemetry-instrumentation"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    try:
        import_module("k8s_tracing._core")
        found["native span"] = "built"
    except ImportError:
        found["native span"] = "missing"
    return found


def relay() -> Finding:
    """Could the agent read LTTng's traces? Applications do without."""
    from k8s_tracing.agent.relay import Relay

    try:
        Relay().close()
    except K8sTracingError as error:
        text, _, remedy = str(error).partition(": ")
        return warning("relay", f"{text} (only the agent needs it)", remedy or _INSTALL_AGENT)
    return ok("relay", "is built and loads")


def read_settings() -> tuple[Settings, list[Finding]]:
    """Return the environment's settings, and a finding for each variable that cannot be read."""
    with _log() as lines:
        settings = from_environment()
    found = [warning("variables", line, "correct the variable") for line in lines]
    for name in propagation.missing():
        text = f"OTEL_PROPAGATORS names {name!r}, which is not installed and left out"
        found.append(warning("variables", text, propagation.remedy(name)))
    if settings.disabled:
        found.append(problem("variables", "OTEL_SDK_DISABLED turns tracing off", "unset it"))
    return settings, found


def chosen_backend(settings: Settings) -> tuple[Backend | None, Finding]:
    """Make the backend that a process here gets, and say why it is this one; None if `init` would raise."""
    name = "noop" if settings.disabled else settings.backend
    resource = detect(settings.service_name, settings.resource or {})
    try:
        if name == "auto":
            backend, why, is_expected = backends.best(resource, settings.limits, settings.sampling)
        else:
            backend = backends.choose(name, resource, settings.limits, settings.sampling)
            why, is_expected = "K8S_TRACING_BACKEND or OTEL_SDK_DISABLED says so", True
    except BackendUnavailable as error:
        text, _, remedy = str(error).partition(": ")
        return None, problem("backend", f"{name} was asked for and cannot work: {text}", remedy)
    except K8sTracingError as error:
        return None, problem("backend", str(error), "correct K8S_TRACING_BACKEND")
    if backend.name == "noop":
        return backend, problem(
            "backend", f"noop, spans do nothing: {why}", "see the findings below"
        )
    text = f"{backend.name}: {why}"
    if is_expected:
        return backend, ok("backend", text)
    return backend, warning("backend", text, "see the findings below")


def fallback(*, in_use: bool) -> list[Finding]:
    """Could OpenTelemetry's SDK send spans from here? A problem only if it is what the process gets."""
    from k8s_tracing.agent.endpoint import from_environment as endpoint_of

    try:
        sdk = metadata.version("opentelemetry-sdk")
        exporter = metadata.version("opentelemetry-exporter-otlp")
    except metadata.PackageNotFoundError as error:
        text = f"{error.name} is not installed: there is no fallback where LTTng is absent"
        remedy = "pip install 'k8s-tracing[otlp]'"
        return [warning("OpenTelemetry SDK", text, remedy)]
    found = [ok("OpenTelemetry SDK", f"{sdk}, OTLP exporter {exporter}")]
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip() not in ("", "otlp"):
        return found
    try:
        endpoint = endpoint_of(os.environ)
    except ExportError as error:
        text, _, remedy = str(error).partition(": ")
        return [*found, warning("OTLP endpoint", text, remedy or "correct the variable")]
    error_text = _unreachable(endpoint.url)
    if error_text is None:
        return [*found, ok("OTLP endpoint", f"{endpoint.address} accepts connections")]
    text = f"{endpoint.address} does not accept connections: {error_text}"
    remedy = "start the receiver, or name it in OTEL_EXPORTER_OTLP_ENDPOINT"
    if in_use:
        return [*found, problem("OTLP endpoint", text, remedy)]
    return [*found, ok("OTLP endpoint", f"{text}; LTTng does not need it")]


def _unreachable(url: str) -> str | None:
    """Connect and hang up: nothing is sent. What went wrong, None if nothing did."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def auto_instrumentation() -> list[Finding]:
    """Return what is to say of `opentelemetry-instrument`, where it is installed."""
    try:
        release = metadata.version("opentelemetry-instrumentation")
    except metadata.PackageNotFoundError:
        return []
    from k8s_tracing.distro import is_chosen

    chosen = "chooses" if is_chosen() else "does not choose"
    return [ok("opentelemetry-instrument", f"{release}; the environment {chosen} k8s_tracing")]


def variables(environ: Mapping[str, str] = os.environ) -> list[Finding]:
    """Return the variables in effect, without what may be a secret."""
    return [
        ok("variable", f"{name}={_shown(name, value)}")
        for name, value in sorted(environ.items())
        if _OURS.match(name)
    ]


def _shown(name: str, value: str) -> str:
    if _SECRET.search(name):
        return f"({len(value)} characters, not shown)"
    return re.sub(r"(//)[^/@\s]*@", r"\1...@", value)


def probe(backend: Backend) -> Finding:
    """Make one span; is it recorded?"""
    if backend.name == "lttng":
        _await_registration()
    with _log("opentelemetry", "k8s_tracing") as lines:
        span = backend.tracer("k8s_tracing.doctor", version()).start_span("k8s-tracing doctor")
        recorded, ids = span.is_recording(), span.get_span_context()
        span.end()
        backend.flush(5000)
    if not recorded:
        text = "a span was made, and no session recorded it"
        return problem("probe", text, "start `k8s-tracing agent`, and look at OTEL_TRACES_SAMPLER")
    if lines:
        text = f"a span was made, and could not be sent: {lines[0]}"
        return problem("probe", text, "see the OTLP endpoint above")
    return ok("probe", f"span {ids.span_id:016x} of trace {ids.trace_id:032x} was recorded")


def _await_registration() -> None:
    """The daemon tells a process what to record while that goes on with its own work."""
    from k8s_tracing.backends.lttng import load

    deadline = time.monotonic() + REGISTER_TIMEOUT_S
    while not load().k8s_tracing_recording() and time.monotonic() < deadline:
        time.sleep(0.05)


@contextmanager
def _log(*names: str) -> Iterator[list[str]]:
    """What is logged within the block as a warning or worse; nobody else gets it."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage().partition("\n")[0])

    handler = Handler(logging.WARNING)
    loggers = [logging.getLogger(name) for name in names or ("k8s_tracing",)]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield lines
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate
