# SPDX-License-Identifier: Apache-2.0
"""The driver service: which drivers are near? gRPC; the drivers are in Redis."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import grpc
import redis
from opentelemetry.instrumentation.grpc import GrpcInstrumentorServer

from . import telemetry
from .config import GET_DRIVER_ATTEMPTS, Address, Settings
from .driver_pb2 import DriverLocation, DriverLocationRequest, DriverLocationResponse
from .driver_pb2_grpc import DriverServiceServicer, add_DriverServiceServicer_to_server
from .drivers import Drivers, connect, coordinates
from .model import Driver

log = logging.getLogger(__name__)

# A worker sleeps most of its time, so this is about requests at once and not about processors.
WORKERS = 32


class DriverService(DriverServiceServicer):
    def __init__(self, drivers: Drivers) -> None:
        self._drivers = drivers

    def FindNearest(
        self, request: DriverLocationRequest, context: grpc.ServicerContext
    ) -> DriverLocationResponse:
        log.info("Searching for nearby drivers", extra={"location": request.location})
        try:
            coordinates(request.location)
        except ValueError as error:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"location {request.location!r}: {error}"
            )
        try:
            # One after the other: the trace shows it as a staircase, and what to do about it.
            nearest = [
                self._get(driver_id) for driver_id in self._drivers.nearest_ids(request.location)
            ]
        except redis.RedisError as error:
            log.error("Failed to find drivers", extra={"error": str(error)})
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        log.info("Search successful", extra={"drivers": len(nearest)})
        return DriverLocationResponse(
            locations=[
                DriverLocation(driver_id=driver.id, location=driver.location) for driver in nearest
            ]
        )

    def _get(self, driver_id: str) -> Driver:
        for attempt in range(1, GET_DRIVER_ATTEMPTS):
            try:
                return self._drivers.get(driver_id)
            except redis.TimeoutError as error:
                fields = {"attempt": attempt, "driver": driver_id, "error": str(error)}
                log.warning("Retrying after an error of Redis", extra=fields)
        return self._drivers.get(driver_id)


def serve(drivers: Drivers, listen: Address) -> grpc.Server:
    server = grpc.server(ThreadPoolExecutor(WORKERS, thread_name_prefix="driver"))
    add_DriverServiceServicer_to_server(DriverService(drivers), server)
    server.add_insecure_port(str(listen))
    server.start()
    return server


def run(settings: Settings) -> None:
    telemetry.start("driver", GrpcInstrumentorServer())
    drivers = Drivers(connect(settings))
    drivers.seed()
    server = serve(drivers, settings.listen)
    try:
        server.wait_for_termination()
    finally:
        server.stop(grace=5).wait()
