"""HotROD's faults and their fixes, and what a trace says when a service is killed or an answer does not come."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.folder import open_folder
from tests.support.hotrod import (
    CUSTOMERS,
    Chain,
    Span,
    duration_s,
    is_error,
    lttng_and_agent,
    most_at_once,
    running,
    trace_id_of,
    tree,
)
from tests.support.jaeger import Jaeger
from tests.support.postgres import postgres
from tests.support.wait import wait_for

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with open_folder() as path:
        yield path


@pytest.fixture(scope="module")
def env(folder: Path, jaeger: Jaeger) -> Iterator[dict[str, str]]:
    with lttng_and_agent(folder, "--endpoint", jaeger.otlp_http_endpoint) as env:
        yield env


def at_once(chain: Chain) -> list[list[Span]]:
    """Four dispatches at the same time; return their traces."""
    with ThreadPoolExecutor(len(CUSTOMERS)) as pool:
        return chain.traces(list(pool.map(chain.dispatch, CUSTOMERS)))


@pytest.fixture(scope="module")
def faulty(folder: Path, env: dict[str, str], jaeger: Jaeger) -> list[list[Span]]:
    with running(folder / "faulty", env) as services:
        return at_once(Chain(services, jaeger))


@pytest.fixture(scope="module")
def fixed(folder: Path, env: dict[str, str], jaeger: Jaeger) -> list[list[Span]]:
    fixes = ["-M", "--fix-db-query-delay=60ms", "--fix-route-worker-pool-size=100"]
    with running(folder / "fixed", env, *fixes) as services:
        return at_once(Chain(services, jaeger))


def named(traces: list[list[Span]], name: str, service: str = "") -> list[Span]:
    return [
        span
        for trace in traces
        for span in trace
        if span["name"] == name and service in ("", span["service"])
    ]


def calls_of_route(traces: list[list[Span]]) -> list[Span]:
    """The frontend's calls of the route service, which its pool of workers makes."""
    served = {span["parentSpanId"] for span in named(traces, "GET /route")}
    return [span for trace in traces for span in trace if span["spanId"] in served]


def waits_s(traces: list[list[Span]]) -> list[float]:
    """How long each request waited for the lock: the lookup's time that is no query's."""
    queries = {span["parentSpanId"]: duration_s(span) for span in named(traces, "SELECT")}
    return sorted(
        duration_s(span) - queries[span["spanId"]] for span in named(traces, "find customer")
    )


def test_the_lock_lets_one_query_run_and_the_fix_all(
    faulty: list[list[Span]], fixed: list[list[Span]]
) -> None:
    assert most_at_once(named(faulty, "SELECT")) == 1
    assert most_at_once(named(fixed, "SELECT")) > 1
    query_s = min(map(duration_s, named(faulty, "SELECT")))
    # The last one of four waits for three queries, and so does its customer.
    assert waits_s(faulty)[-1] > 2 * query_s
    assert waits_s(fixed)[-1] < waits_s(faulty)[-1] / 2


def test_who_waits_is_told_for_whom(faulty: list[list[Span]], fixed: list[list[Span]]) -> None:
    def events(traces: list[list[Span]]) -> list[str]:
        found = [span.get("events", []) for span in named(traces, "find customer")]
        return sorted(event["name"] for each in found for event in each)

    waited = [name for name in events(faulty) if name.startswith("Waiting for lock behind")]
    assert "Waiting for lock behind 3 transactions" in waited
    assert not [name for name in events(fixed) if "lock" in name]


def test_the_query_is_as_slow_as_the_flag_says(
    faulty: list[list[Span]], fixed: list[list[Span]]
) -> None:
    slow, fast = (min(map(duration_s, named(each, "SELECT"))) for each in (faulty, fixed))
    assert fast < slow / 2


def test_the_pool_lets_three_calls_run_and_the_fix_all(
    faulty: list[list[Span]], fixed: list[list[Span]]
) -> None:
    assert len(calls_of_route(faulty)) == len(calls_of_route(fixed)) == 40
    assert most_at_once(calls_of_route(faulty)) == 3
    assert most_at_once(calls_of_route(fixed)) > 3


def test_a_ride_is_found_sooner_with_the_fixes(
    faulty: list[list[Span]], fixed: list[list[Span]]
) -> None:
    slow, fast = (max(map(duration_s, named(each, "GET /dispatch"))) for each in (faulty, fixed))
    assert fast < slow / 1.5


def test_a_service_killed_in_the_middle_of_requests_is_in_the_trace(jaeger: Jaeger) -> None:
    flags = ["--route-calc-delay=20s", "--fix-db-query-delay=0s", "--redis-timeout-after=0"]
    # The agent ends as well: a span without an end goes out when nothing can come after it.
    with (
        open_folder() as folder,
        lttng_and_agent(folder, "--endpoint", jaeger.otlp_http_endpoint) as env,
        running(folder / "killed", env, *flags) as services,
        ThreadPoolExecutor(1) as pool,
    ):
        chain = Chain(services, jaeger)
        asked = pool.submit(chain.ask, "123")
        route = services.children["route"]
        wait_for("three routes", lambda: route.log.read_text().count("Finding a route") == 3, 30)
        route.process.kill()
        answer = asked.result(60)
    assert answer.status_code == 502
    assert answer.json()["error"].startswith("route: no answer")
    spans = chain.trace(trace_id_of(answer), spans=32)
    unfinished = [span for span in spans if span["attributes"].get("k8s_tracing.unfinished")]
    calls = {span["spanId"]: span for span in spans if span["service"] == "frontend"}
    # Three were being calculated: each is there with its start, below a call that is an error.
    assert [span["service"] for span in unfinished] == ["route"] * 3
    for span in unfinished:
        assert is_error(calls[span["parentSpanId"]])
        assert int(span["startTimeUnixNano"]) >= int(
            calls[span["parentSpanId"]]["startTimeUnixNano"]
        )
    # The other seven found nobody. No failure is swallowed on its way up.
    failed = [span for span in calls.values() if span["name"] == "GET" and is_error(span)]
    assert len(failed) == 10
    assert {span["attributes"]["error.type"] for span in failed} == {
        "requests.exceptions.ConnectionError"
    }
    [best] = [span for span in spans if span["name"] == "find the best driver"]
    [root] = [span for span in spans if not span.get("parentSpanId")]
    assert is_error(best)
    assert [event["name"] for event in best["events"]].count("exception") == 1
    assert is_error(root)
    assert root["attributes"]["http.response.status_code"] == 502


def test_customers_in_postgresql_and_no_redis(
    folder: Path, env: dict[str, str], jaeger: Jaeger
) -> None:
    with (
        postgres(folder) as url,
        running(folder / "postgres-hotrod", env, f"--database={url}", redis_url="") as services,
    ):
        chain = Chain(services, jaeger)
        spans = chain.trace(chain.dispatch("731"))
        assert "drivers are in this process" in services.children["driver"].log.read_text()
    golden = Path(__file__).parents[1] / "golden" / "hotrod" / "first_dispatch.txt"
    assert tree(spans) == golden.read_text()
    [select] = [span for span in spans if span["name"] == "SELECT"]
    assert select["attributes"]["db.system.name"] == "postgresql"
    assert "FROM customer" in select["attributes"]["db.query.text"]
    assert duration_s(select) > 0.1  # it is the database that takes its time
    [search] = [span for span in spans if span["name"] == "GEOSEARCH"]
    assert search["attributes"]["server.address"] == "in-process"
