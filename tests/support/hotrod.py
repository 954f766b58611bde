"""HotROD's four processes, the agent that records them, and their traces as Jaeger has them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from hotrod.processes import Hotrod

from tests.support.jaeger import Jaeger, JaegerQuery
from tests.support.viewer import Viewer
from tests.support.wait import wait_for

CUSTOMERS = ("123", "392", "567", "731")
SERVICES = {"frontend", "customer", "driver", "route"}

Span = dict[str, Any]

_KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT"}


@dataclass
class Chain:
    """Where to send requests, and the Jaeger, or our viewer in its place, in which their traces end up."""

    hotrod: Hotrod
    jaeger: Jaeger | Viewer

    @property
    def url(self) -> str:
        """The frontend's."""
        return f"http://{self.hotrod.addresses['frontend']}"

    def ask(self, customer: str) -> requests.Response:
        """Order a ride as the page does."""
        return requests.get(
            f"{self.url}/dispatch",
            {"customer": customer},
            headers={"baggage": f"session=s1,request=s1-{customer}"},
            timeout=30,
        )

    def dispatch(self, customer: str) -> str:
        """Order a ride, which must be found; return its trace id."""
        answer = self.ask(customer)
        assert answer.status_code == 200, answer.text
        return trace_id_of(answer)

    def trace(self, trace_id: str, spans: int = 40) -> list[Span]:
        """Return a trace from Jaeger when it is whole: so many spans at least, and every parent."""
        return self.traces([trace_id], spans)[0]

    def traces(self, trace_ids: list[str], spans: int = 40) -> list[list[Span]]:
        """Return several traces when all of them are whole."""
        return whole_traces(self.jaeger.query, trace_ids, spans)


def whole_traces(query: JaegerQuery, trace_ids: list[str], spans: int = 40) -> list[list[Span]]:
    """Return several traces from Jaeger when all of them are whole: see `Chain.trace`."""
    found: dict[str, list[Span]] = {trace_id: [] for trace_id in trace_ids}

    def are_whole() -> bool:
        before = {trace_id: len(known) for trace_id, known in found.items()}
        for trace_id in trace_ids:
            found[trace_id] = query.trace(trace_id)
        return all(
            # Nor does it grow any more: one process's last span may come after the others'.
            spans <= len(known) == before[trace_id] and not missing_parents(known)
            for trace_id, known in found.items()
        )

    try:
        wait_for("whole traces", are_whole, 60, interval_s=0.3)
    except TimeoutError as error:
        trees = "\n".join(f"{len(known)} spans:\n{tree(known)}" for known in found.values())
        raise TimeoutError(f"{error}; Jaeger has\n{trees}") from None
    return list(found.values())


def trace_id_of(answer: requests.Response) -> str:
    """Return what the header `traceresponse` says."""
    return answer.headers["traceresponse"].split("-")[1]


def missing_parents(spans: list[Span]) -> set[str]:
    """Return the ids of parents that are not among the spans."""
    known = {span["spanId"] for span in spans} | {""}
    return {span.get("parentSpanId", "") for span in spans} - known


def is_error(span: Span) -> bool:
    """Is the span's status ERROR?"""
    return span.get("status", {}).get("code") in (2, "STATUS_CODE_ERROR")


def kind_of(span: Span) -> str:
    """Return SERVER, CLIENT or INTERNAL: Jaeger's releases differ in how they say so."""
    kind = span.get("kind", 1)
    return _KINDS[kind] if isinstance(kind, int) else kind.removeprefix("SPAN_KIND_")


def tree(spans: list[Span]) -> str:
    """Draw a trace: service, kind and name of each span below its parent, in the order of their start."""
    children: dict[str, list[Span]] = {}
    known = {span["spanId"] for span in spans}
    for span in sorted(spans, key=lambda span: int(span["startTimeUnixNano"])):
        parent = span.get("parentSpanId", "")
        children.setdefault(parent if parent in known else "", []).append(span)
    lines: list[str] = []

    def draw(parent: str, indent: str) -> None:
        for span in children.get(parent, []):
            error = " ERROR" if is_error(span) else ""
            lines.append(f"{indent}{span['service']} {kind_of(span)} {span['name']}{error}")
            draw(span["spanId"], indent + "  ")

    draw("", "")
    return "\n".join(lines) + "\n"


def duration_s(span: Span) -> float:
    """Return how long a span took."""
    return (int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])) / 1e9


def most_at_once(spans: list[Span]) -> int:
    """Return how many of the spans ran at the same time at most."""
    steps = [(int(span["startTimeUnixNano"]), 1) for span in spans]
    steps += [(int(span["endTimeUnixNano"]), -1) for span in spans]
    running = most = 0
    for _, step in sorted(steps):
        running += step
        most = max(most, running)
    return most


@contextmanager
def lttng_and_agent(directory: Path, *options: str) -> Iterator[dict[str, str]]:
    """An agent with a daemon of its own; yields what services need in their environment."""
    private = directory / "lttng"
    command = [sys.executable, "-m", "k8s_tracing", "agent", "--private", str(private), *options]
    log = directory / "agent.log"
    with log.open("wb") as stream:
        agent = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        ready = private / "env.json"
        wait_for("the agent", lambda: ready.exists() or agent.poll() is not None, 60)
        assert agent.poll() is None, log.read_text()
        yield json.loads(ready.read_text())["environment"] | {"K8S_TRACING_BACKEND": "lttng"}
    finally:
        agent.terminate()
        agent.wait(60)
    assert agent.returncode == 0, log.read_text()


@contextmanager
def running(
    directory: Path, env: Mapping[str, str], *flags: str, redis_url: str | None = None
) -> Iterator[Hotrod]:
    """HotROD, ready."""
    directory.mkdir(exist_ok=True)
    everything = dict(os.environ) | dict(env)
    with Hotrod(directory, everything, flags=flags, redis_url=redis_url) as services:
        services.wait_until_healthy()
        yield services
