# SPDX-License-Identifier: Apache-2.0
"""The customer service: who is customer 123, and where? HTTP."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from . import telemetry, web
from .config import Settings
from .database import Database, connect

log = logging.getLogger(__name__)


def build(database: Database) -> ASGIApp:
    # Not a coroutine: waiting for the lock and the query blocks, so Starlette runs it in a thread.
    def customer(request: Request) -> JSONResponse:
        customer_id = web.integer_parameter(request, "customer")
        log.info("Loading customer", extra={"customer_id": customer_id})
        found = database.find(customer_id)
        if found is None:
            raise HTTPException(404, "invalid customer ID")
        return JSONResponse(found.to_json())

    return web.application([Route("/customer", customer)])


def run(settings: Settings) -> None:
    telemetry.start("customer", SQLite3Instrumentor(), PsycopgInstrumentor())
    with tempfile.TemporaryDirectory(prefix="hotrod-") as directory:
        store = connect(settings.database or str(Path(directory, "customers.sqlite")))
        database = Database(store, settings.query_delay, lock_queries=settings.lock_queries)
        web.serve(build(database), settings.listen)
