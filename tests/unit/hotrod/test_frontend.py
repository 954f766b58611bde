# SPDX-License-Identifier: Apache-2.0
"""The frontend, with stand-ins for the three services behind it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hotrod import frontend
from hotrod.clients import UnknownCustomerError, UpstreamError
from hotrod.model import Customer, Driver, Route
from opentelemetry import baggage
from starlette.testclient import TestClient


class FakeServices:
    """Ten drivers, of whom number 7 is there first."""

    def __init__(self) -> None:
        self.drivers = [Driver(f"T{number}C", f"{number},0") for number in range(10)]
        self.broken_pickup = ""
        self.seen_customers: list[object] = []
        self.running = self.most_running = 0
        self._lock = threading.Lock()

    def customer(self, customer_id: int) -> Customer:
        if customer_id != 123:
            raise UnknownCustomerError(f"there is no customer {customer_id}")
        return Customer(123, "Rachel's_Floral_Designs", "115,277")

    def nearest_drivers(self, location: str) -> list[Driver]:
        assert location == "115,277"
        self.seen_customers.append(baggage.get_baggage("customer"))
        return self.drivers

    def route(self, pickup: str, dropoff: str) -> Route:
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        time.sleep(0.01)
        with self._lock:
            self.running -= 1
        if pickup == self.broken_pickup:
            raise UpstreamError("route: no answer")
        number = int(pickup.partition(",")[0])
        return Route(pickup, dropoff, (2 + abs(number - 7)) * 60 * 10**9)


@pytest.fixture
def services() -> FakeServices:
    return FakeServices()


@pytest.fixture
def client(services: FakeServices) -> Iterator[TestClient]:
    with ThreadPoolExecutor(3) as pool:
        dispatcher = frontend.Dispatcher(services, pool)  # type: ignore[arg-type]
        yield TestClient(frontend.build(dispatcher, "http://jaeger:16686"))


def test_the_driver_who_is_there_first(client: TestClient) -> None:
    reply = client.get("/dispatch?customer=123")
    assert reply.status_code == 200
    assert reply.json() == {"Driver": "T7C", "ETA": 2 * 60 * 10**9}


def test_the_pool_limits_the_routes(client: TestClient, services: FakeServices) -> None:
    client.get("/dispatch?customer=123")
    assert services.most_running == 3


def test_the_customer_is_in_the_baggage(client: TestClient, services: FakeServices) -> None:
    client.get("/dispatch?customer=123")
    assert services.seen_customers == ["Rachel's_Floral_Designs"]


def test_a_route_that_fails_is_not_swallowed(client: TestClient, services: FakeServices) -> None:
    services.broken_pickup = "4,0"
    reply = client.get("/dispatch?customer=123")
    assert (reply.status_code, reply.json()) == (502, {"error": "route: no answer"})
    assert services.running == 0


def test_no_driver_is_near(client: TestClient, services: FakeServices) -> None:
    services.drivers = []
    reply = client.get("/dispatch?customer=123")
    assert reply.status_code == 502
    assert reply.json() == {"error": "driver: there is no driver near"}


@pytest.mark.parametrize(
    ("query", "status", "error"),
    [
        ("", 400, "Missing required 'customer' parameter"),
        ("?customer=x", 400, "Parameter 'customer' is not an integer"),
        ("?customer=9", 404, "there is no customer 9"),
    ],
)
def test_what_it_refuses(client: TestClient, query: str, status: int, error: str) -> None:
    reply = client.get(f"/dispatch{query}")
    assert (reply.status_code, reply.json()) == (status, {"error": error})


def test_config_names_the_page_of_traces(client: TestClient) -> None:
    assert client.get("/config").json() == {"jaeger": "http://jaeger:16686"}


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/").text
    assert "Rides On Demand" in page
    for customer in (123, 392, 731, 567):
        assert f'data-customer="{customer}"' in page
    assert 'src="' not in page
    assert "https://" not in page
