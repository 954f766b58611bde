# SPDX-License-Identifier: Apache-2.0
"""The drivers, in Redis, whose answers take their time and sometimes do not come."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from k8s_tracing.instrument.redis import TracingRedis

from .config import DRIVERS_ASKED_FOR, Delay, Settings
from .model import Driver

log = logging.getLogger(__name__)

POSITIONS = "hotrod:positions"
FLEET_SIZE = 200
MAP_SIZE = 800  # locations are "x,y", each from 0 up to this
STAND_IN = "in-process"  # where a span says that its Redis is, when there is none


class TimeoutSimulator:
    """Says when an answer is to be lost: the first one, then one after every so many good ones.

    Each thread counts for itself. A request is served by one thread, so a retry comes right after
    its failure and succeeds, however many requests run at the same time.
    """

    def __init__(self, after_answers: int) -> None:
        self._after_answers = after_answers
        self._thread = threading.local()

    def next_is_lost(self) -> bool:
        if not self._after_answers:
            return False
        left = getattr(self._thread, "answers_left", 0)
        self._thread.answers_left = left - 1 if left else self._after_answers
        return left == 0


class SlowRedis(TracingRedis):
    """A traced Redis client with HotROD's delays and time-outs inside, where its spans see them."""

    delays: dict[str, Delay]  # by command
    timeout_delay: Delay
    timeouts: TimeoutSimulator

    def attributes(self, *command: Any) -> dict[str, Any]:
        """Say in the span for which driver it is, too; nothing here is secret."""
        return {**super().attributes(*command), "db.query.parameter.0": str(command[1])}

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        answer = super().parse_response(connection, command_name, **options)
        delay = self.delays.get(command_name)
        if delay and delay.mean_s:
            time.sleep(delay.sample_s())
        if command_name == "HGETALL" and self.timeouts.next_is_lost():
            time.sleep(self.timeout_delay.sample_s())
            raise redis.TimeoutError("redis timeout")
        return answer


def connect(settings: Settings) -> SlowRedis:
    """Connect to the Redis of the settings, or to a stand-in within this process."""
    # Without the client's own retries: HotROD tries again itself, so that each attempt has a span.
    options: dict[str, Any] = {"decode_responses": True, "retry": Retry(NoBackoff(), 0)}
    if settings.redis_url:
        client = SlowRedis.from_url(settings.redis_url, **options)
    else:
        import fakeredis

        log.warning("No Redis: the drivers are in this process (fakeredis). --redis-url names one")
        options |= {
            "connection_class": fakeredis.FakeRedisConnection,
            "host": STAND_IN,
        }
        pool = redis.ConnectionPool(server=fakeredis.FakeServer(), **options)
        client = SlowRedis(connection_pool=pool)
    client.delays = {
        "GEOSEARCH": settings.nearest_drivers_delay,
        "HGETALL": settings.get_driver_delay,
    }
    client.timeout_delay = settings.timeout_delay
    client.timeouts = TimeoutSimulator(settings.timeout_after)
    return client


class Drivers:
    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def seed(self) -> None:
        """Put the fleet on the map: the same one each time, so that two runs can be compared."""
        chance = random.Random(FLEET_SIZE)
        with self._redis.pipeline() as pipeline:
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
            count=DRIVERS_ASKED_FOR,
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
