"""HotROD's four processes -> LTTng -> the agent -> a real Jaeger, asked through its query API."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.support.folder import open_folder
from tests.support.hotrod import (
    CUSTOMERS,
    SERVICES,
    Chain,
    is_error,
    kind_of,
    lttng_and_agent,
    missing_parents,
    running,
    tree,
)
from tests.support.jaeger import Jaeger
from tests.support.viewer import Viewer

#: The first dispatch of all, in which three answers of Redis are lost.
GOLDEN = Path(__file__).parents[1] / "golden" / "hotrod" / "first_dispatch.txt"


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
        with running(directory, env) as services:
            yield Chain(services, jaeger)
        return
    if way.endswith("grpc"):
        options = ["--endpoint", jaeger.otlp_grpc_endpoint, "--protocol", "grpc"]
    else:
        options = ["--endpoint", jaeger.otlp_http_endpoint]
    with lttng_and_agent(directory, *options) as env, running(directory, env) as services:
        yield Chain(services, jaeger)


@pytest.fixture(scope="module")
def first(chain: Chain) -> str:
    """The trace id of the first dispatch after the start: which answers are lost depends on it."""
    return chain.dispatch("123")


def test_a_dispatch_is_exactly_this_tree(chain: Chain, first: str) -> None:
    spans = chain.trace(first)
    assert missing_parents(spans) == set()
    assert tree(spans) == GOLDEN.read_text()
    assert {span["service"] for span in spans} == SERVICES
    assert len({span["resource"]["process.pid"] for span in spans}) == len(SERVICES)


def test_a_lost_answer_is_asked_for_again(chain: Chain, first: str) -> None:
    attempts = [span for span in chain.trace(first) if span["name"] == "HGETALL"]
    keys = [span["attributes"]["db.query.parameter.0"] for span in attempts]
    assert len(set(keys)) == 10
    for number, span in enumerate(attempts):
        if is_error(span):
            assert span["attributes"]["error.type"] == "redis.exceptions.TimeoutError"
            assert [event["name"] for event in span["events"]] == ["exception"]
            assert keys[number + 1] == keys[number]


def test_what_jaeger_has_of_a_span(chain: Chain) -> None:
    spans = chain.trace(chain.dispatch("392"))
    by_name = {(span["service"], kind_of(span), span["name"]): span for span in reversed(spans)}

    def attributes(service: str, kind: str, name: str) -> dict[str, object]:
        found: dict[str, object] = by_name[service, kind, name]["attributes"]
        return found

    root = by_name["frontend", "SERVER", "GET /dispatch"]
    assert root["resource"]["service.name"] == "frontend"
    expected = {
        ("frontend", "SERVER", "GET /dispatch"): {
            "http.request.method": "GET",
            "http.route": "/dispatch",
            "http.response.status_code": 200,
            "url.path": "/dispatch",
            "url.query": "customer=392",
            "url.scheme": "http",
        },
        ("frontend", "CLIENT", "GET"): {
            "http.request.method": "GET",
            "http.response.status_code": 200,
            "server.address": "127.0.0.1",
            "server.port": chain.hotrod.addresses["customer"].port,
        },
        ("customer", "INTERNAL", "find customer"): {"request": "s1-392"},
        ("customer", "CLIENT", "SELECT"): {"db.system.name": "sqlite"},
        ("driver", "SERVER", "/driver.DriverService/FindNearest"): {
            "rpc.system": "grpc",
            "rpc.service": "driver.DriverService",
            "rpc.method": "FindNearest",
        },
        ("driver", "CLIENT", "GEOSEARCH"): {
            "db.system.name": "redis",
            "db.operation.name": "GEOSEARCH",
        },
        ("route", "SERVER", "GET /route"): {"http.route": "/route"},
    }
    for key, some in expected.items():
        assert attributes(*key).items() >= some.items(), key
    best = attributes("frontend", "INTERNAL", "find the best driver")
    assert best["customer"] == "Trom_Chocolatier"
    assert str(best["driver"]).startswith("T7")
    for span in spans:
        assert int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])


def test_log_lines_are_events_of_the_span_they_were_written_in(chain: Chain, first: str) -> None:
    events = {
        (span["service"], span["name"], event["name"])
        for span in chain.trace(first)
        for event in span.get("events", [])
    }
    find_nearest = "/driver.DriverService/FindNearest"
    assert events >= {
        ("frontend", "GET /dispatch", "Dispatch requested"),
        ("frontend", "find the best driver", "Found drivers"),
        ("customer", "find customer", "Acquired lock; 0 transactions waiting behind"),
        ("driver", find_nearest, "Searching for nearby drivers"),
        ("driver", find_nearest, "Retrying after an error of Redis"),
        ("route", "GET /route", "Finding a route"),
    }


def test_dispatches_in_parallel_do_not_mix(chain: Chain) -> None:
    with ThreadPoolExecutor(20) as pool:
        ids = list(pool.map(chain.dispatch, CUSTOMERS * 5))
    assert len(set(ids)) == 20
    for customer, spans in zip(CUSTOMERS * 5, chain.traces(ids), strict=True):
        assert len([span for span in spans if not span.get("parentSpanId")]) == 1
        assert sum(span["name"] == "GET /route" for span in spans) == 10
        assert len(spans) in (41, 42)
        [lookup] = [span for span in spans if span["name"] == "find customer"]
        assert lookup["attributes"]["request"] == f"s1-{customer}"


def test_the_route_service_knows_whom_it_calculated_for(chain: Chain, first: str) -> None:
    said = requests.get(f"http://{chain.hotrod.addresses['route']}/debug/vars", timeout=10).json()
    assert said["route.calc.by.customer.sec"]["Rachel's_Floral_Designs"] > 0
    assert set(said["route.calc.by.session.sec"]) == {"s1"}


def test_jaeger_knows_the_services(chain: Chain, first: str) -> None:
    chain.trace(first)
    assert set(chain.jaeger.query.services()) >= SERVICES
