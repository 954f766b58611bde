# SPDX-License-Identifier: Apache-2.0
"""What the three HTTP services share: a traced application, its errors as JSON, its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import uvicorn
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from .config import Address


def application(routes: Sequence[Route]) -> ASGIApp:
    """An application with a span for each request, except those that ask for its health."""
    paths = {route.path for route in routes}

    def name_and_attributes(scope: dict[str, Any]) -> tuple[str, dict[str, str]]:
        method, path = scope.get("method", "HTTP"), scope.get("path")
        # A path that is no route stays out of the name: anybody can ask for any number of paths.
        return (f"{method} {path}", {"http.route": path}) if path in paths else (method, {})

    app = Starlette(
        routes=[*routes, Route("/healthz", healthy)],
        exception_handlers={HTTPException: error_as_json},
    )
    # Around the whole application, not inside it: the span also sees Starlette's own 404 and 500.
    # The spans of single ASGI messages are left out; they would be half of a trace and say little.
    return OpenTelemetryMiddleware(
        app,
        excluded_urls="/healthz$",
        default_span_details=name_and_attributes,
        exclude_spans=["receive", "send"],
    )


def serve(app: ASGIApp, listen: Address) -> None:
    # The services log what they do themselves, with the trace; uvicorn's line a request says less.
    uvicorn.run(app, host=listen.host, port=listen.port, access_log=False, log_level="warning")


def parameter(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if not value:
        raise HTTPException(400, f"Missing required '{name}' parameter")
    return value


def integer_parameter(request: Request, name: str) -> int:
    value = parameter(request, name)
    # No customer has a number of more digits, and SQLite has no integer for it.
    if not (value.isascii() and value.isdecimal() and len(value) <= 18):
        raise HTTPException(400, f"Parameter '{name}' is not an integer")
    return int(value)


async def error_as_json(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


async def healthy(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok\n")
