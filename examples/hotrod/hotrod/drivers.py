# SPDX-License-Identifier: Apache-2.0
"""The drivers, in Redis, whose answers take their time and sometimes do not come."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import redis
from opentelemetry.instrumentation.utils import suppress_instrumentation
from redis.backoff import NoBackoff
from redis.retry import Retry

from . import config
from .model import Driver

POSITIONS = "hotrod:positions"
FLEET_SIZE = 200
MAP_SIZE = 800  # locations are "x,y", each from 0 up to this


class TimeoutSimulator:
    """Says when an answer is to be lost: the first one, then one after every so many good ones.

    Each thread counts for itself. A request is served by one thread, so a retry comes right after
    its failure and succeeds, however many requests run at the same time.
    """

    def __init__(self, after_answers: int) -> None:
        self._after_answers = after_answers
        self._thread = threading.local()

    def next_is_lost(self) -> bool:
        left = getattr(self._thread, "answers_left", 0)
        self._thread.answers_left = left - 1 if left else self._after_answers
        return left == 0


class SlowRedis(redis.Redis):
    """A Redis client with HotROD's delays and time-outs inside, where its spans see them."""

    timeouts = TimeoutSimulator(config.TIMEOUT_AFTER_ANSWERS)

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        answer = super().parse_response(connection, command_name, **options)
        if command_name == "GEOSEARCH":
            time.sleep(config.NEAREST_DRIVERS_DELAY.sample_s())
        elif command_name == "HGETALL":
            time.sleep(config.GET_DRIVER_DELAY.sample_s())
            if self.timeouts.next_is_lost():
                time.sleep(config.TIMEOUT_DELAY.sample_s())
                raise redis.TimeoutError("redis timeout")
        return answer


def connect(url: str) -> redis.Redis:
    # Without the client's own retries: HotROD tries again itself, so that each attempt has a span.
    return SlowRedis.from_url(url, decode_responses=True, retry=Retry(NoBackoff(), 0))


class Drivers:
    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def seed(self) -> None:
        """Put the fleet on the map: the same one each time, so that two runs can be compared."""
        chance = random.Random(FLEET_SIZE)
        # Not part of any request, so not part of any trace.
        with suppress_instrumentation(), self._redis.pipeline() as pipeline:
            pipeline.delete(POSITIONS)
            for number in chance.sample(range(700_000, 800_000), FLEET_SIZE):
                driver_id = f"T{number}C"
                x, y = chance.randrange(MAP_SIZE), chance.randrange(MAP_SIZE)
                pipeline.geoadd(POSITIONS, (*degrees(x, y), driver_id))
                pipeline.hset(key_of(driver_id), mapping={"id": driver_id, "location": f"{x},{y}"})
            pipeline.execute()

    def nearest_ids(self, location: str) -> list[str]:
        longitude, latitude = degrees(*coordinates(location))
        found = self._redis.geosearch(
            POSITIONS,
            longitude=longitude,
            latitude=latitude,
            radius=1000,
            unit="km",
            sort="ASC",
            count=config.DRIVERS_ASKED_FOR,
        )
        return [str(driver_id) for driver_id in found]

    def get(self, driver_id: str) -> Driver:
        fields = self._redis.hgetall(key_of(driver_id))
        return Driver(str(fields["id"]), str(fields["location"]))


def key_of(driver_id: str) -> str:
    return f"hotrod:driver:{driver_id}"


def coordinates(location: str) -> tuple[int, int]:
    """`115,277` as numbers; ValueError when it is something else."""
    x, y = (int(part) for part in location.split(","))
    if not (0 <= x <= MAP_SIZE and 0 <= y <= MAP_SIZE):
        raise ValueError(f"{location} is not on the map of 0 to {MAP_SIZE}")
    return x, y


def degrees(x: int, y: int) -> tuple[float, float]:
    """Longitude and latitude, near the equator: a step is a thousandth of a degree, either way."""
    return x / 1000, y / 1000
