# SPDX-License-Identifier: Apache-2.0
"""The customers, in SQLite, behind a query that is slow and a lock that makes it slower."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, nullcontext
from pathlib import Path

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

# It is the query itself that takes long, as a slow query does, so its own span shows the time.
QUERY = "SELECT id, name, location FROM customer WHERE id = ? AND slowly()"


class Database:
    def __init__(self, path: Path, query_delay: Delay, *, lock_queries: bool) -> None:
        self._path = path
        self._query_delay = query_delay
        self._lock = QueueLock() if lock_queries else None
        # Not part of any request, so not part of any trace.
        with suppress_instrumentation(), closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS customer"
                " (id INTEGER PRIMARY KEY, name TEXT NOT NULL, location TEXT NOT NULL)"
            )
            connection.executemany(
                "INSERT OR REPLACE INTO customer VALUES (?, ?, ?)",
                [(customer.id, customer.name, customer.location) for customer in CUSTOMERS],
            )

    @k8s_tracing.traced("find customer")
    def find(self, customer_id: int) -> Customer | None:
        """The customer of that number, if there is one. Waits for the lock, then for the query."""
        request = str(baggage.get_baggage("request") or "unnamed")
        k8s_tracing.current_span().set_attribute("request", request)
        with self._lock.held_by(request) if self._lock else nullcontext():
            return self._select(customer_id)

    def _select(self, customer_id: int) -> Customer | None:
        # A connection for each query: one that is shared would be a second lock, inside SQLite.
        with closing(sqlite3.connect(self._path)) as connection:
            connection.create_function("slowly", 0, self._slowly)
            # A cursor of its own, since the instrumentation traces cursors and not connections.
            row = connection.cursor().execute(QUERY, (customer_id,)).fetchone()
        return Customer(*row) if row else None

    def _slowly(self) -> bool:
        time.sleep(self._query_delay.sample_s())
        return True
