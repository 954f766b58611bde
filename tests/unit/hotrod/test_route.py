# SPDX-License-Identifier: Apache-2.0
"""The route service."""

from __future__ import annotations

import asyncio

import pytest
from hotrod import route
from hotrod.config import Delay
from opentelemetry import baggage, context
from starlette.testclient import TestClient

NS_PER_MINUTE = 60 * 10**9


@pytest.fixture
def client() -> TestClient:
    return TestClient(route.build(Delay(0.0, 0.0)))


def test_route(client: TestClient) -> None:
    answers = [
        client.get("/route", params={"pickup": "1,2", "dropoff": "3,4"}).json() for _ in range(50)
    ]
    assert {(answer["Pickup"], answer["Dropoff"]) for answer in answers} == {("1,2", "3,4")}
    assert min(answer["ETA"] for answer in answers) >= 2 * NS_PER_MINUTE
    assert all(isinstance(answer["ETA"], int) for answer in answers)


@pytest.mark.parametrize(
    ("query", "missing"), [("", "pickup"), ("?pickup=1,2", "dropoff"), ("?dropoff=1,2", "pickup")]
)
def test_missing_parameter(client: TestClient, query: str, missing: str) -> None:
    reply = client.get(f"/route{query}")
    assert reply.status_code == 400
    assert reply.json() == {"error": f"Missing required '{missing}' parameter"}


def test_the_time_is_attributed_to_those_in_the_baggage() -> None:
    client = TestClient(route.build(Delay(0.01, 0.0)))
    for session, customer, requests in (("s1", "Rachel's", 2), ("s2", "Trom", 1)):
        for _ in range(requests):
            # The middleware reads the header only where tracing is on: here the context is given.
            token = context.attach(
                baggage.set_baggage("session", session, baggage.set_baggage("customer", customer))
            )
            try:
                asyncio.run(route.compute("1,2", "3,4", Delay(0.01, 0.0)))
            finally:
                context.detach(token)
    said = client.get("/debug/vars").json()
    by_customer, by_session = (said[f"route.calc.by.{by}.sec"] for by in ("customer", "session"))
    assert by_customer["Rachel's"] == pytest.approx(by_session["s1"], rel=0.2)
    assert by_customer["Rachel's"] >= 0.02
    assert 0.01 <= by_customer["Trom"] < by_customer["Rachel's"]


def test_metrics(client: TestClient) -> None:
    def count(status: int) -> float:
        text = client.get("/metrics").text
        line = f'hotrod_requests_total{{endpoint="/route",status_code="{status}"}} '
        return sum(float(each.removeprefix(line)) for each in text.splitlines() if line in each)

    good, bad = count(200), count(400)
    client.get("/route", params={"pickup": "1,2", "dropoff": "3,4"})
    client.get("/route")
    client.get("/no/such/path")
    assert (count(200), count(400)) == (good + 1, bad + 1)
    assert "no/such" not in client.get("/metrics").text
