"""HotROD's four processes -> LTTng -> the agent -> a real Jaeger, asked through its query API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from hotrod.processes import Hotrod

from tests.support.folder import open_folder
from tests.support.jaeger import Jaeger
from tests.support.viewer import Viewer
from tests.support.wait import wait_for

CUSTOMERS = ("123", "392", "567", "731")
SERVICES = {"frontend", "customer", "driver", "route"}
#: What a dispatch must have at least: Jaeger's own HotROD has 39 or 40 spans.
SPANS = 40

Span = dict[str, Any]


@dataclass
class Chain:
    """Where to send requests, and the Jaeger, or our viewer in its place, in which their traces end up."""

    url: str
    jaeger: Jaeger | Viewer

    def dispatch(self, customer: str) -> str:
        """Order a ride; return its trace id."""
        answer = requests.get(
            f"{self.url}/dispatch",
            {"customer": customer},
            headers={"baggage": f"session=s1,request=s1-{customer}"},
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        return answer.headers["traceresponse"].split("-")[1]

    def trace(self, trace_id: str) -> list[Span]:
        """Return a trace from Jaeger when it is whole."""
        found: list[Span] = []

        def is_whole() -> bool:
            before = len(found)
            found[:] = self.jaeger.query.trace(trace_id)
            return len(found) >= SPANS and len(found) == before and not missing_parents(found)

        wait_for(f"trace {trace_id}", is_whole, 40, interval_s=0.5)
        return found


def missing_parents(spans: list[Span]) -> set[str]:
    known = {span["spanId"] for span in spans} | {""}
    return {span.get("parentSpanId", "") for span in spans} - known


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


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with open_folder() as path:
        yield path


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with Viewer() as running:
        yield running


WAYS = ["lttng over http", "lttng over grpc", "otel"]


@pytest.fixture(
    scope="module", params=[*WAYS, "lttng over http to viewer", "lttng over grpc to viewer"]
)
def chain(
    request: pytest.FixtureRequest, folder: Path, jaeger: Jaeger, viewer: Viewer
) -> Iterator[Chain]:
    """HotROD, traced by LTTng and the agent, and by OpenTelemetry's SDK without LTTng."""
    directory = folder / request.param.replace(" ", "-")
    directory.mkdir(mode=0o711)
    way, _, to = request.param.partition(" to ")
    yield from traced(way, directory, viewer if to else jaeger)


def traced(way: str, directory: Path, jaeger: Jaeger | Viewer) -> Iterator[Chain]:
    if way == "otel":
        env = {
            "K8S_TRACING_BACKEND": "auto",
            "LTTNG_HOME": str(directory / "nobody"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp_http_endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "500",
        }
        with hotrod(directory, env) as url:
            yield Chain(url, jaeger)
        return
    if way.endswith("grpc"):
        options = ["--endpoint", jaeger.otlp_grpc_endpoint, "--protocol", "grpc"]
    else:
        options = ["--endpoint", jaeger.otlp_http_endpoint]
    with lttng_and_agent(directory, *options) as env, hotrod(directory, env) as url:
        yield Chain(url, jaeger)


@contextmanager
def hotrod(directory: Path, env: dict[str, str]) -> Iterator[str]:
    with Hotrod(directory, dict(os.environ) | env) as services:
        services.wait_until_healthy()
        yield f"http://{services.addresses['frontend']}"


def test_a_dispatch_is_one_whole_trace(chain: Chain) -> None:
    spans = chain.trace(chain.dispatch("123"))
    by_id = {span["spanId"]: span for span in spans}
    roots = [span for span in spans if not span.get("parentSpanId")]
    assert [(root["service"], root["name"]) for root in roots] == [("frontend", "GET /dispatch")]
    assert missing_parents(spans) == set()
    assert {span["service"] for span in spans} == SERVICES

    def path(span: Span) -> str:
        above = by_id.get(span.get("parentSpanId", ""))
        return (path(above) + " > " if above else "") + f"{span['service']} {span['name']}"

    paths = Counter(path(span) for span in spans)
    top = "frontend GET /dispatch > frontend find the best driver"
    customer = f"{top} > frontend GET > customer GET /customer"
    find_nearest = "/driver.DriverService/FindNearest"
    driver = f"{top} > frontend {find_nearest} > driver {find_nearest}"
    assert paths[f"{customer} > customer find customer > customer SELECT"] == 1
    assert paths[f"{driver} > driver GEOSEARCH"] == 1
    assert paths[f"{driver} > driver HGETALL"] in (12, 13)  # ten, and those that timed out
    assert paths[f"{top} > frontend GET > route GET /route"] == 10
    assert sum(paths.values()) == len(spans)


def test_what_jaeger_has_of_a_span(chain: Chain) -> None:
    spans = chain.trace(chain.dispatch("392"))
    first = {(span["service"], span["name"]): span for span in reversed(spans)}
    root = first["frontend", "GET /dispatch"]
    assert root["kind"] in (2, "SPAN_KIND_SERVER")
    assert root["attributes"]["http.response.status_code"] == 200
    assert root["resource"]["service.name"] == "frontend"
    assert (
        root["resource"]["process.pid"] != first["route", "GET /route"]["resource"]["process.pid"]
    )
    select = first["customer", "SELECT"]
    assert select["attributes"][
        "db.system.name" if "db.system.name" in select["attributes"] else "db.system"
    ]
    lookup = first["customer", "find customer"]
    assert lookup["attributes"]["request"] == "s1-392"
    timed_out = [
        span for span in spans if span.get("status", {}).get("code") in (2, "STATUS_CODE_ERROR")
    ]
    assert {span["name"] for span in timed_out} == {"HGETALL"}
    assert any(event["name"] == "exception" for event in timed_out[0]["events"])
    for span in spans:
        assert int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])


def test_dispatches_in_parallel_do_not_mix(chain: Chain) -> None:
    with ThreadPoolExecutor(20) as pool:
        ids = list(pool.map(chain.dispatch, CUSTOMERS * 5))
    assert len(set(ids)) == 20
    for trace_id in ids:
        spans = chain.trace(trace_id)
        assert len([span for span in spans if not span.get("parentSpanId")]) == 1
        assert sum(span["name"] == "GET /route" for span in spans) == 10
        assert len(spans) in (41, 42)


def test_jaeger_knows_the_services(chain: Chain) -> None:
    chain.trace(chain.dispatch("731"))
    assert set(chain.jaeger.query.services()) >= SERVICES
