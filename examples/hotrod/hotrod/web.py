# SPDX-License-Identifier: Apache-2.0
"""What the three HTTP services share: a traced application, its errors as JSON, its parameters."""

from __future__ import annotations

import time
from collections.abc import Sequence

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from k8s_tracing.instrument.asgi import TracingMiddleware

from . import stats
from .config import Address


def application(routes: Sequence[Route]) -> ASGIApp:
    """An application with a span for each request, but for those about the service itself."""
    own = [
        Route("/healthz", healthy),
        Route("/metrics", metrics),
        Route("/debug/vars", debug_vars),
    ]
    app = Starlette(routes=[*routes, *own], exception_handlers={HTTPException: error_as_json})
    measured = Measured(app, frozenset(route.path for route in routes))
    # Around all of it, so that the span also sees Starlette's own 404 and 500. Each answer names its
    # trace in a header: the page's [open trace] links come from there.
    return TracingMiddleware(
        measured, excluded_paths=[route.path for route in own], trace_response=True
    )


class Measured:
    """Counts the requests of some paths, and how long they took."""

    def __init__(self, app: ASGIApp, paths: frozenset[str]) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A path that is no route is not counted: anybody can ask for any number of paths.
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        path, status, start = scope["path"], 500, time.perf_counter()

        async def send_and_see(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, send_and_see)
        finally:
            stats.REQUESTS.labels(path, status).inc()
            stats.DURATION.labels(path).observe(time.perf_counter() - start)


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


async def metrics(request: Request) -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def debug_vars(request: Request) -> JSONResponse:
    return JSONResponse(stats.debug_vars())
