# SPDX-License-Identifier: Apache-2.0
"""The route service."""

from __future__ import annotations

import pytest
from hotrod import route
from hotrod.config import Delay
from starlette.testclient import TestClient

NS_PER_MINUTE = 60 * 10**9


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setattr(route, "ROUTE_DELAY", Delay(0.0, 0.0))
    return TestClient(route.build())


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
