# SPDX-License-Identifier: Apache-2.0
"""The driver service over real gRPC; its Redis is a stand-in that answers or does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import pytest
import redis
from hotrod import driver, processes
from hotrod.config import parse
from hotrod.driver_pb2 import DriverLocation, DriverLocationRequest
from hotrod.driver_pb2_grpc import DriverServiceStub
from hotrod.drivers import Drivers, TimeoutSimulator, connect, coordinates
from hotrod.model import Driver


class FakeDrivers:
    """Two drivers; the first so many questions for one of them time out."""

    def __init__(self) -> None:
        self.timeouts = 0
        self.asked = 0

    def nearest_ids(self, location: str) -> list[str]:
        return ["T1C", "T2C"]

    def get(self, driver_id: str) -> Driver:
        self.asked += 1
        if self.timeouts:
            self.timeouts -= 1
            raise redis.TimeoutError("redis timeout")
        return Driver(driver_id, "1,2")


@pytest.fixture
def drivers() -> FakeDrivers:
    return FakeDrivers()


@pytest.fixture
def service(drivers: FakeDrivers) -> Iterator[DriverServiceStub]:
    address = processes.free_address()
    server = driver.serve(drivers, address)  # type: ignore[arg-type]
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(str(address), options=options) as channel:
        yield DriverServiceStub(channel)
    server.stop(grace=None).wait()


def test_nearest(service: DriverServiceStub) -> None:
    answer = service.FindNearest(DriverLocationRequest(location="115,277"), timeout=10)
    assert list(answer.locations) == [
        DriverLocation(driver_id="T1C", location="1,2"),
        DriverLocation(driver_id="T2C", location="1,2"),
    ]


def test_two_timeouts_are_tried_again(service: DriverServiceStub, drivers: FakeDrivers) -> None:
    drivers.timeouts = 2
    answer = service.FindNearest(DriverLocationRequest(location="115,277"), timeout=10)
    assert len(answer.locations) == 2
    assert drivers.asked == 4


def test_three_timeouts_are_an_error(service: DriverServiceStub, drivers: FakeDrivers) -> None:
    drivers.timeouts = 3
    with pytest.raises(grpc.RpcError) as error:
        service.FindNearest(DriverLocationRequest(location="115,277"), timeout=10)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    assert error.value.details() == "redis timeout"
    assert drivers.asked == 3


@pytest.mark.parametrize("location", ["", "here", "1", "1,2,3", "-1,5", "5,900"])
def test_a_place_that_is_not_on_the_map(service: DriverServiceStub, location: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        service.FindNearest(DriverLocationRequest(location=location), timeout=10)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_coordinates() -> None:
    assert coordinates("115,277") == (115, 277)


def test_the_first_answer_is_lost_then_one_after_every_four() -> None:
    simulator = TimeoutSimulator(4)
    lost = [simulator.next_is_lost() for _ in range(13)]
    assert [number for number, is_lost in enumerate(lost) if is_lost] == [0, 5, 10]


def test_each_thread_counts_its_own_answers() -> None:
    simulator = TimeoutSimulator(4)
    assert simulator.next_is_lost()
    lost: list[bool] = []
    thread = threading.Thread(target=lambda: lost.append(simulator.next_is_lost()))
    thread.start()
    thread.join()
    assert lost == [True]
    assert not simulator.next_is_lost()


def test_the_stand_in_says_so_and_knows_who_is_near(caplog: pytest.LogCaptureFixture) -> None:
    drivers = Drivers(connect(parse(["driver", "--redis-timeout-after=0"], {})))
    assert "the drivers are in this process" in caplog.text
    drivers.seed()
    found = [drivers.get(driver_id) for driver_id in drivers.nearest_ids("115,277")]
    distances = [
        (x - 115) ** 2 + (y - 277) ** 2 for x, y in (coordinates(each.location) for each in found)
    ]
    assert len(found) == 10
    assert distances == sorted(distances)
