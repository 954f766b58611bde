"""HotROD as `docker compose up` starts it: nine containers, and each ride's whole trace in Jaeger."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.containers.conftest import Built
from tests.support.docker import Docker
from tests.support.images import REPOSITORY
from tests.support.jaeger import JaegerQuery
from tests.support.wait import wait_for

pytestmark = pytest.mark.timeout(1500)

PROJECT = "hotrod"
COMPOSE = ("compose", "--file", REPOSITORY / "examples" / "hotrod" / "compose.yaml")
SERVICES = {"frontend", "customer", "driver", "route"}
PARTS = SERVICES | {"ingress", "agent", "jaeger", "redis", "postgres"}
INGRESS = "http://127.0.0.1:8080"
JAEGER = JaegerQuery("http://127.0.0.1:16686")


@pytest.fixture(scope="module")
def hotrod(docker: Docker, images: Built) -> Iterator[Docker]:
    """All of it, up and healthy; and when it is down, nothing of it is left."""
    env = {
        "BASE_IMAGE": images.base,
        "HAPROXY_IMAGE": images.haproxy,
        "JAEGER_IMAGE": images.jaeger,
        "REDIS_IMAGE": images.redis,
        "POSTGRES_IMAGE": images.postgres,
    }
    try:
        docker.run(*COMPOSE, "up", "--build", "--detach", "--wait", env=env, timeout_s=400)
        yield docker
    except AssertionError as error:
        raise AssertionError(f"{error}\n{docker.run(*COMPOSE, 'logs', env=env)}") from None
    finally:
        docker.run(*COMPOSE, "down", "--volumes", env=env, timeout_s=200)
    of_ours = f"--filter=label=com.docker.compose.project={PROJECT}"
    left = {
        "containers": docker.run("container", "ls", "--all", "--quiet", of_ours),
        "volumes": docker.run("volume", "ls", "--quiet", of_ours),
        "networks": docker.run("network", "ls", "--quiet", of_ours),
    }
    assert set(left.values()) == {""}, left


@pytest.fixture(scope="module")
def containers(hotrod: Docker) -> dict[str, dict[str, Any]]:
    """What `docker inspect` says of each part."""
    ids = hotrod.run("ps", "--quiet", f"--filter=label=com.docker.compose.project={PROJECT}")
    found = json.loads(hotrod.run("inspect", *ids.split()))
    return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}


def dispatch(customer: str) -> str:
    """Order a ride; return its trace id."""
    answer = requests.get(f"{INGRESS}/dispatch", {"customer": customer}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.headers["traceresponse"].split("-")[1]


def whole_trace(trace_id: str) -> list[dict[str, Any]]:
    """Return a trace from Jaeger when no parent is missing and no span has come for a while."""
    found: list[dict[str, Any]] = []

    def is_whole() -> bool:
        before = len(found)
        found[:] = JAEGER.trace(trace_id)
        return len(found) > 42 and len(found) == before and not missing_parents(found)

    wait_for(f"trace {trace_id}", is_whole, 90, interval_s=1)
    return found


def missing_parents(spans: list[dict[str, Any]]) -> set[str]:
    known = {span["spanId"] for span in spans} | {""}
    return {span.get("parentSpanId", "") for span in spans} - known


def test_a_ride_is_one_whole_trace(hotrod: Docker, containers: dict[str, dict[str, Any]]) -> None:
    spans = hotrod.inside(whole_trace, hotrod.inside(dispatch, "123"))
    roots = [span for span in spans if not span.get("parentSpanId")]
    assert [root["service"] for root in roots] == ["ingress"]
    assert roots[0]["kind"] in (2, "SPAN_KIND_SERVER")
    assert missing_parents(spans) == set()
    assert {span["service"] for span in spans} == SERVICES | {"ingress"}
    assert len(spans) in (43, 44)  # a time-out of Redis more or less
    [attempt] = [span for span in spans if span.get("parentSpanId") == roots[0]["spanId"]]
    assert attempt["service"] == "ingress"
    assert attempt["kind"] in (3, "SPAN_KIND_CLIENT")
    [dispatched] = [span for span in spans if span.get("parentSpanId") == attempt["spanId"]]
    assert (dispatched["service"], dispatched["name"]) == ("frontend", "GET /dispatch")
    names = Counter((span["service"], span["name"].split()[0]) for span in spans)
    assert names["customer", "SELECT"] == 1, names
    assert names["driver", "GEOSEARCH"] == 1, names
    assert names["route", "GET"] == 10, names
    for span in spans:
        if span["service"] == "ingress":  # the agent has its spans from its log
            continue
        assert span["resource"]["container.id"] == containers[span["service"]]["Id"]
        if span["kind"] in (2, "SPAN_KIND_SERVER"):
            assert span["attributes"].keys() & {
                "k8s_tracing.cpu.running_ns",
                "k8s_tracing.cpu.shared",
            }
    # The driver's requests have a thread each.
    [driver] = [
        each
        for each in spans
        if each["name"] == "/driver.DriverService/FindNearest" and each["service"] == "driver"
    ]
    assert driver["attributes"]["k8s_tracing.cpu.running_ns"] > 0


def test_rides_at_the_same_time_do_not_mix(hotrod: Docker) -> None:
    ids = {hotrod.inside(dispatch, customer) for customer in ("392", "567", "731")}
    assert len(ids) == 3
    for trace_id in ids:
        spans = hotrod.inside(whole_trace, trace_id)
        assert sum(not span.get("parentSpanId") for span in spans) == 1
        assert len(spans) in (43, 44)


def test_each_part_is_confined(containers: dict[str, dict[str, Any]]) -> None:
    assert set(containers) == PARTS
    for part, container in containers.items():
        config = container["HostConfig"]
        assert container["Config"]["User"] not in ("", "0", "root"), part
        assert config["ReadonlyRootfs"], part
        assert config["CapDrop"] == ["ALL"], part
        assert not config["CapAdd"], part
        assert not config["Privileged"], part
        assert "no-new-privileges:true" in config["SecurityOpt"], part
        for bindings in (config["PortBindings"] or {}).values():
            assert [binding["HostIp"] for binding in bindings] == ["127.0.0.1"], part
    published = {part for part, each in containers.items() if each["HostConfig"]["PortBindings"]}
    assert published == {"ingress", "jaeger"}


def test_a_service_shares_the_sockets_folder_and_nothing_else(
    hotrod: Docker, containers: dict[str, dict[str, Any]]
) -> None:
    for service in SERVICES:
        mounts = [
            (mount["Type"], mount["Name"], mount["Destination"], mount["RW"])
            for mount in containers[service]["Mounts"]
        ]
        assert mounts == [("volume", f"{PROJECT}_lttng", "/var/run/lttng", False)]
        assert containers[service]["HostConfig"]["PidMode"] == ""
        files = hotrod.run("exec", containers[service]["Id"], "ls", "/var/run/lttng").split()
        assert [name.rstrip("0123456789") for name in files] == ["lttng-ust-sock-"]
    assert containers["agent"]["HostConfig"]["PidMode"] == "host"
