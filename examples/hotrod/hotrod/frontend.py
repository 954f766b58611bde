# SPDX-License-Identifier: Apache-2.0
"""The frontend: the page, and /dispatch, which finds the driver who is there first. HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

from opentelemetry import baggage, context
from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

import k8s_tracing
from k8s_tracing.instrument.threads import ContextExecutor

from . import telemetry, web
from .clients import Clients, UnknownCustomerError, UpstreamError
from .config import Settings
from .model import Ride

log = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("page") / "index.html"


class Dispatcher:
    def __init__(self, services: Clients, route_workers: Executor) -> None:
        self._services = services
        self._route_workers = route_workers

    @k8s_tracing.traced("find the best driver")
    async def best_ride(self, customer_id: int) -> Ride:
        """The ride that arrives first, of those that the nearest drivers can offer."""
        customer = await run_in_threadpool(self._services.customer, customer_id)
        log.info("Found customer", extra={"customer": customer.name, "location": customer.location})

        # From here on every service that works for this request knows for which customer.
        with baggage_item("customer", customer.name):
            drivers = await run_in_threadpool(self._services.nearest_drivers, customer.location)
            log.info("Found drivers", extra={"drivers": len(drivers)})
            if not drivers:
                raise UpstreamError("driver: there is no driver near")
            loop = asyncio.get_running_loop()
            routes = await asyncio.gather(
                *(
                    loop.run_in_executor(
                        self._route_workers,
                        self._services.route,
                        driver.location,
                        customer.location,
                    )
                    for driver in drivers
                ),
                # All are waited for, also when one fails: no span stays open behind the answer.
                return_exceptions=True,
            )

        rides = []
        for driver, route in zip(drivers, routes, strict=True):
            if isinstance(route, BaseException):
                raise route
            rides.append(Ride(driver.id, route.eta_ns))
        best = min(rides, key=lambda ride: ride.eta_ns)
        k8s_tracing.current_span().set_attributes(
            {"driver": best.driver, "customer": customer.name}
        )
        return best


@contextmanager
def baggage_item(name: str, value: str) -> Iterator[None]:
    token = context.attach(baggage.set_baggage(name, value))
    try:
        yield
    finally:
        context.detach(token)


def build(dispatcher: Dispatcher, trace_ui: str) -> ASGIApp:
    async def page(request: Request) -> FileResponse:
        return FileResponse(PAGE)

    async def config(request: Request) -> JSONResponse:
        return JSONResponse({"jaeger": trace_ui})

    async def dispatch(request: Request) -> JSONResponse:
        customer_id = web.integer_parameter(request, "customer")
        log.info("Dispatch requested", extra={"customer_id": customer_id})
        try:
            ride = await dispatcher.best_ride(customer_id)
        except UnknownCustomerError as error:
            raise HTTPException(404, str(error)) from error
        except UpstreamError as error:
            log.error("Dispatch failed", extra={"error": str(error)})
            raise HTTPException(502, str(error)) from error
        log.info(
            "Dispatch successful",
            extra={"driver": ride.driver, "eta_min": ride.eta_ns // 60_000_000_000},
        )
        return JSONResponse(ride.to_json())

    return web.application(
        [Route("/", page), Route("/config", config), Route("/dispatch", dispatch)]
    )


def run(settings: Settings) -> None:
    telemetry.start("frontend", GrpcInstrumentorClient())
    services = Clients(settings.customer, settings.driver, settings.route)
    # What a worker of this pool does belongs to the span that gave it the work.
    with ContextExecutor(settings.route_workers, thread_name_prefix="route") as route_workers:
        web.serve(build(Dispatcher(services, route_workers), settings.trace_ui), settings.listen)
