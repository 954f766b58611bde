# SPDX-License-Identifier: Apache-2.0
"""The route service: how long from here to there? HTTP."""

from __future__ import annotations

import asyncio
import logging
import random

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route as Endpoint
from starlette.types import ASGIApp

from . import stats, telemetry, web
from .config import Delay, Settings
from .model import Route

log = logging.getLogger(__name__)

NS_PER_MINUTE = 60 * 10**9


async def compute(pickup: str, dropoff: str, delay: Delay) -> Route:
    """A route, and how long it takes: about five minutes, never less than two."""
    with stats.route_calculation():
        await asyncio.sleep(delay.sample_s())
        minutes = max(2.0, random.gauss(5, 3))
    return Route(pickup, dropoff, int(minutes * NS_PER_MINUTE))


def build(delay: Delay) -> ASGIApp:
    async def route(request: Request) -> JSONResponse:
        pickup, dropoff = web.parameter(request, "pickup"), web.parameter(request, "dropoff")
        log.info("Finding a route", extra={"pickup": pickup, "dropoff": dropoff})
        return JSONResponse((await compute(pickup, dropoff, delay)).to_json())

    return web.application([Endpoint("/route", route)])


def run(settings: Settings) -> None:
    telemetry.start("route")
    web.serve(build(settings.route_delay), settings.listen)
