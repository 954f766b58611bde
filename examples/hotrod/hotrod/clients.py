# SPDX-License-Identifier: Apache-2.0
"""How the frontend asks the other services.

`TracingAdapter`, and OpenTelemetry's instrumentation of gRPC, put a span around each call, and the
trace into its headers.
"""

from __future__ import annotations

from typing import Any

import grpc
import requests

from k8s_tracing.instrument.requests import TracingAdapter

from .config import DRIVER_DEADLINE_S, HTTP_DEADLINE_S, Address
from .driver_pb2 import DriverLocationRequest
from .driver_pb2_grpc import DriverServiceStub
from .model import Customer, Driver, Route


class UpstreamError(Exception):
    """A service that the frontend needs did not answer as it should."""


class NotFoundError(UpstreamError):
    """The service does not know what it was asked for."""


class UnknownCustomerError(Exception):
    """There is no customer of that number."""


class HttpClient:
    def __init__(self, service: str, address: Address) -> None:
        self._service = service
        self._url = f"http://{address}/{service}"
        # Shared by threads: without cookies and redirects a session is a pool of connections.
        self._session = requests.Session()
        self._session.trust_env = False  # the services are neighbours; a proxy is for elsewhere
        self._session.mount("http://", TracingAdapter(pool_maxsize=100))

    def get(self, **parameters: str | int) -> dict[str, Any]:
        try:
            response = self._session.get(self._url, params=parameters, timeout=HTTP_DEADLINE_S)
            if not response.ok:
                kind = NotFoundError if response.status_code == 404 else UpstreamError
                raise kind(f"{self._service}: {response.status_code} {response.text}")
            answer: dict[str, Any] = response.json()
        except requests.RequestException as error:
            # The whole story is in the call's span; this line is for the customer's eyes.
            raise UpstreamError(f"{self._service}: no answer ({type(error).__name__})") from error
        return answer


class Clients:
    """The three services behind the frontend."""

    def __init__(self, customer: Address, driver: Address, route: Address) -> None:
        self._customer = HttpClient("customer", customer)
        self._route = HttpClient("route", route)
        channel = grpc.insecure_channel(str(driver), options=[("grpc.enable_http_proxy", 0)])
        self._driver = DriverServiceStub(channel)

    def customer(self, customer_id: int) -> Customer:
        try:
            return Customer.from_json(self._customer.get(customer=customer_id))
        except NotFoundError as error:
            raise UnknownCustomerError(f"there is no customer {customer_id}") from error

    def nearest_drivers(self, location: str) -> list[Driver]:
        request = DriverLocationRequest(location=location)
        try:
            answer = self._driver.FindNearest(request, timeout=DRIVER_DEADLINE_S)
        except grpc.RpcError as error:
            raise UpstreamError(f"driver: {error.code().name} {error.details()}") from error
        return [Driver(found.driver_id, found.location) for found in answer.locations]

    def route(self, pickup: str, dropoff: str) -> Route:
        return Route.from_json(self._route.get(pickup=pickup, dropoff=dropoff))
