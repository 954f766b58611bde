# SPDX-License-Identifier: Apache-2.0
"""The customer service with its real SQLite database, without its delay."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hotrod import customer
from hotrod.config import Delay
from hotrod.database import CUSTOMERS, Database, connect
from starlette.testclient import TestClient

AT_ONCE = Delay(0.0, 0.0)


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    database = Database(connect(str(tmp_path / "customers.sqlite")), AT_ONCE, lock_queries=True)
    return TestClient(customer.build(database))


def test_customer(client: TestClient) -> None:
    reply = client.get("/customer", params={"customer": "123"})
    assert reply.status_code == 200
    assert reply.json() == {"ID": 123, "Name": "Rachel's_Floral_Designs", "Location": "115,277"}


@pytest.mark.parametrize(
    ("query", "status", "error"),
    [
        ("", 400, "Missing required 'customer' parameter"),
        ("?customer=", 400, "Missing required 'customer' parameter"),
        ("?customer=12a", 400, "Parameter 'customer' is not an integer"),
        ("?customer=1.5", 400, "Parameter 'customer' is not an integer"),
        ("?customer=%D9%A3", 400, "Parameter 'customer' is not an integer"),
        ("?customer=" + "9" * 40, 400, "Parameter 'customer' is not an integer"),
        ("?customer=1", 404, "invalid customer ID"),
    ],
)
def test_what_it_refuses(client: TestClient, query: str, status: int, error: str) -> None:
    reply = client.get(f"/customer{query}")
    assert (reply.status_code, reply.json()) == (status, {"error": error})


def test_healthy(client: TestClient) -> None:
    assert client.get("/healthz").status_code == 200


def test_a_database_that_is_there_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "customers.sqlite"
    for _ in range(2):
        database = Database(connect(str(path)), AT_ONCE, lock_queries=True)
        assert [database.find(each.id) for each in CUSTOMERS] == list(CUSTOMERS)


@pytest.mark.alone
@pytest.mark.parametrize(("lock_queries", "rounds"), [(True, 4), (False, 1)])
def test_the_lock_lets_one_query_run_at_a_time(
    tmp_path: Path, lock_queries: bool, rounds: int
) -> None:
    delay_s = 0.1
    database = Database(
        connect(str(tmp_path / "db")), Delay(delay_s, 0.0), lock_queries=lock_queries
    )
    threads = [threading.Thread(target=database.find, args=[123]) for _ in range(4)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Half a round of room on a busy computer; without the lock it takes one round and not four.
    assert rounds * delay_s <= time.monotonic() - start < (rounds + 2.5) * delay_s
