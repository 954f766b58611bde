# SPDX-License-Identifier: Apache-2.0
"""Where the demo's traces go: by LTTng and the agent to a file, and to a Jaeger, or a viewer of our own."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .config import Address
from .processes import Child, accepts_connections, free_address, wait_for

if TYPE_CHECKING:
    from k8s_tracing.record import SpanRecord

OTLP_HTTP = Address("127.0.0.1", 4318)
JAEGER_UI_PORT = 16686


# Sending what is left and ending the session daemon; the agent itself gives up earlier.
AGENT_STOP_TIMEOUT_S = 40


@dataclass(frozen=True)
class Tracing:
    """How the services are traced: their environment, and where their spans can be read again."""

    env: dict[str, str]
    description: str
    agent: Child | None
    spans: Path | None  # OTLP JSON lines, which the agent appends to


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


def start_viewer(stack: ExitStack, directory: Path) -> tuple[str, str]:
    """Start a viewer that `stack` ends, and return its OTLP endpoint and its page's address."""
    page, otlp = free_address(Address("127.0.0.1", JAEGER_UI_PORT)), free_address(OTLP_HTTP)
    command = [sys.executable, "-m", "k8s_tracing", "view", "--port", str(page.port)]
    command += ["--otlp-http-port", str(otlp.port), "--otlp-grpc-port", "0"]
    viewer = Child("viewer", command, directory, os.environ)
    stack.callback(viewer.stop)
    wait_for(lambda: accepts_connections(page), viewer, timeout_s=60)
    return f"http://{otlp}", f"http://{page}"


def start(stack: ExitStack, directory: Path, endpoint: str | None) -> Tracing:
    """Start LTTng and the agent, or do without and say so. `stack` ends what is started."""
    if shutil.which("lttng-sessiond") is None:
        env = {"K8S_TRACING_BACKEND": "otel", "OTEL_TRACES_EXPORTER": "none"}
        where = "nothing, for there is no OTLP endpoint"
        if endpoint:
            env |= {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
            where = f"to {endpoint}"
        return Tracing(env, f"not installed; OpenTelemetry's SDK sends {where}", None, None)

    return start_agent(stack, directory, endpoint)


def start_agent(
    stack: ExitStack,
    directory: Path,
    endpoint: str | None,
    place: Callable[..., list[str]] = lambda *command: list(command),
    options: Sequence[str] = (),
) -> Tracing:
    """Start LTTng and the agent; `place` makes of its command one that runs elsewhere."""
    spans = directory / "spans.jsonl"
    private = directory / "lttng"
    command = [sys.executable, "-m", "k8s_tracing", "agent", "--private", str(private)]
    command += ["--output-file", str(spans), *options]
    if endpoint:
        command += ["--endpoint", endpoint]
    agent = Child("agent", place(*command), directory, os.environ)
    stack.callback(agent.stop, AGENT_STOP_TIMEOUT_S)
    ready = private / "env.json"
    wait_for(ready.exists, agent, timeout_s=60)
    env = json.loads(ready.read_text())["environment"] | {"K8S_TRACING_BACKEND": "lttng"}
    return Tracing(env, "a session of its own, read by the agent", agent, spans)


def wait_for_trace(path: Path, trace_id: str, timeout_s: float = 15) -> list[SpanRecord]:
    """The spans of a trace, once all parents are there; what there is when time is up."""
    from k8s_tracing.otlp import read_json_lines

    deadline = time.monotonic() + timeout_s
    spans: list[SpanRecord] = []
    while time.monotonic() < deadline:
        before = len(spans)
        if path.exists():
            spans = [span for span in read_json_lines(path) if span.trace_id == trace_id]
        known = {span.span_id for span in spans} | {""}
        # Whole, and no longer growing: a process's last spans may come a moment after the others'.
        if spans and len(spans) == before and all(span.parent_span_id in known for span in spans):
            break
        time.sleep(0.5)
    return spans
