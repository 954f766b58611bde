# SPDX-License-Identifier: Apache-2.0
"""The customers, in SQLite or PostgreSQL, behind a slow query and a lock that makes it slower."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from opentelemetry import baggage
from opentelemetry.instrumentation.utils import suppress_instrumentation

import k8s_tracing

from .config import Delay
from .lock import QueueLock
from .model import Customer

CUSTOMERS = (
    Customer(123, "Rachel's_Floral_Designs", "115,277"),
    Customer(567, "Amazing_Coffee_Roasters", "211,653"),
    Customer(392, "Trom_Chocolatier", "577,322"),
    Customer(731, "Japanese_Desserts", "728,326"),
)

CREATE = (
    "CREATE TABLE IF NOT EXISTS customer"
    " (id INTEGER PRIMARY KEY, name TEXT NOT NULL, location TEXT NOT NULL)"
)


class Store(Protocol):
    """A database with the table of customers."""

    def select(self, customer_id: int, delay_s: float) -> tuple[Any, ...] | None:
        """Return id, name and location; the query itself takes `delay_s`, as a slow one does."""


class SQLite:
    QUERY = "SELECT id, name, location FROM customer WHERE id = ? AND slowly(?)"

    def __init__(self, path: str) -> None:
        self._path = path
        # One that all share would be a second lock, inside SQLite; one for each query costs more than the query.
        self._idle: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        with self._connection() as connection, connection:
            connection.execute(CREATE)
            rows = [(customer.id, customer.name, customer.location) for customer in CUSTOMERS]
            connection.executemany("INSERT OR REPLACE INTO customer VALUES (?, ?, ?)", rows)

    def select(self, customer_id: int, delay_s: float) -> tuple[Any, ...] | None:
        with self._connection() as connection:
            # A cursor of its own, since the instrumentation traces cursors and not connections.
            cursor = connection.cursor().execute(self.QUERY, (customer_id, delay_s))
            row: tuple[Any, ...] | None = cursor.fetchone()
        return row

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._idle.get_nowait()
        except Empty:
            connection = sqlite3.connect(self._path, check_same_thread=False)
            connection.create_function("slowly", 1, lambda delay_s: time.sleep(delay_s) or True)
        try:
            yield connection
        finally:
            self._idle.put(connection)


class PostgreSQL:
    QUERY = (
        "SELECT id, name, location FROM customer, pg_sleep(%s)"
        " WHERE id = %s"
    )  # fmt: skip
    CONNECTIONS = 10

    def __init__(self, url: str) -> None:
        from psycopg_pool import ConnectionPool

        self._pool = ConnectionPool(url, min_size=1, max_size=self.CONNECTIONS, open=True)
        with self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(CREATE)
            for customer in CUSTOMERS:
                cursor.execute(
                    "INSERT INTO customer VALUES (%s, %s, %s) ON CONFLICT (id) DO NOTHING",
                    (customer.id, customer.name, customer.location),
                )

    def select(self, customer_id: int, delay_s: float) -> tuple[Any, ...] | None:
        with self._pool.connection() as connection, connection.cursor() as cursor:
            row: tuple[Any, ...] | None = cursor.execute(
                self.QUERY, (delay_s, customer_id)
            ).fetchone()
        return row


def connect(url: str) -> Store:
    """Open `postgresql://USER@HOST/NAME`, or a file of SQLite; the customers are in it then."""
    # Not part of any request, so not part of any trace.
    with suppress_instrumentation():
        is_postgresql = url.startswith(("postgresql://", "postgres://"))
        return PostgreSQL(url) if is_postgresql else SQLite(url.removeprefix("sqlite://"))


class Database:
    def __init__(self, store: Store, query_delay: Delay, *, lock_queries: bool) -> None:
        self._store = store
        self._query_delay = query_delay
        self._lock = QueueLock() if lock_queries else None

    @k8s_tracing.traced("find customer")
    def find(self, customer_id: int) -> Customer | None:
        """The customer of that number, if there is one. Waits for the lock, then for the query."""
        request = str(baggage.get_baggage("request") or "unnamed")
        k8s_tracing.current_span().set_attribute("request", request)
        with self._lock.held_by(request) if self._lock else nullcontext():
            row = self._store.select(customer_id, self._query_delay.sample_s())
        return Customer(*row) if row else None
