# SPDX-License-Identifier: Apache-2.0
"""Where the demo's traces go: by LTTng and the agent to a file, and to a Jaeger if there is one."""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .config import Address
from .processes import Child, accepts_connections

if TYPE_CHECKING:
    from k8s_tracing.record import SpanRecord

OTLP_HTTP = Address("127.0.0.1", 4318)
JAEGER_UI_PORT = 16686


@dataclass(frozen=True)
class Tracing:
    """How the services are traced: their environment, and where their spans can be read again."""

    env: dict[str, str]
    description: str
    spans: Path | None  # OTLP JSON, a line for each export
    folder: Path | None  # the LTTng trace


def otlp_endpoint() -> str | None:
    """What speaks OTLP/HTTP: the one the environment names, or one that listens on this machine."""
    named = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if named:
        return named
    return f"http://{OTLP_HTTP}" if accepts_connections(OTLP_HTTP) else None


def jaeger_ui(endpoint: str | None) -> str:
    """The Jaeger behind the endpoint, if its page is at its usual port; else an empty string."""
    host = urlsplit(endpoint).hostname if endpoint else None
    address = Address(host, JAEGER_UI_PORT) if host else None
    return f"http://{address}" if address and accepts_connections(address) else ""


def start(stack: ExitStack, directory: Path, endpoint: str | None) -> Tracing:
    """Start LTTng and the agent, or do without and say so. `stack` ends what is started."""
    if shutil.which("lttng-sessiond") is None:
        env = {"K8S_TRACING_BACKEND": "otel", "OTEL_TRACES_EXPORTER": "none"}
        where = "nowhere: no OTLP endpoint either"
        if endpoint:
            env |= {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
            where = endpoint
        return Tracing(env, f"not installed; OpenTelemetry's SDK exports to {where}", None, None)

    from k8s_tracing.agent.session import PrivateDaemon

    daemon = stack.enter_context(PrivateDaemon(directory / "lttng"))
    spans = directory / "spans.jsonl"
    command = [sys.executable, "-m", "k8s_tracing", "agent", "--private", str(directory / "lttng")]
    command += ["--file", str(spans)]
    if endpoint:
        command += ["--endpoint", endpoint]
    agent = Child("agent", command, directory, {**os.environ, **daemon.env})
    stack.callback(agent.stop)
    env = {**daemon.env, "K8S_TRACING_BACKEND": "lttng"}
    return Tracing(env, "a session of its own, read by the agent", spans, directory / "lttng")


def wait_for_trace(path: Path, trace_id: int, timeout_s: float = 15) -> list[SpanRecord]:
    """The spans of a trace, once all parents are there; what there is when time is up."""
    from k8s_tracing.otlp import read_json_lines

    deadline = time.monotonic() + timeout_s
    spans: list[SpanRecord] = []
    while time.monotonic() < deadline:
        before = len(spans)
        if path.exists():
            spans = [span for span in read_json_lines(path) if span.trace_id == trace_id]
        known = {span.span_id for span in spans} | {0}
        # Whole, and no longer growing: a process's last spans may come a moment after the others'.
        if spans and len(spans) == before and all(span.parent_span_id in known for span in spans):
            break
        time.sleep(0.5)
    return spans
