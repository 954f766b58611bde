# SPDX-License-Identifier: Apache-2.0
"""What HotROD does slowly or wrongly, and the flags that fix it; where each service is."""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Delay:
    """How long something takes: a normal distribution, cut at zero."""

    mean_s: float
    deviation_s: float

    def sample_s(self) -> float:
        return max(0.0, random.gauss(self.mean_s, self.deviation_s)) if self.mean_s else 0.0


# The customer's query is slow, and a lock lets one query run at a time: the two faults that a trace
# shows best, since the time one request spends waiting is time that another one spends querying.
QUERY_DELAY = Delay(0.300, 0.030)

# Redis answers quickly for a network and slowly for a Redis. The driver service asks for one driver
# after the other, so ten of these make the longest part of a dispatch that has no lock to wait for.
NEAREST_DRIVERS_DELAY = Delay(0.020, 0.005)
GET_DRIVER_DELAY = Delay(0.010, 0.0025)

# Redis also times out: once after so many answers. The caller tries again, three times in all.
TIMEOUT_AFTER_ANSWERS = 4
TIMEOUT_DELAY = Delay(0.020, 0.005)
GET_DRIVER_ATTEMPTS = 3

# Ten routes could be looked for side by side; the frontend's pool of workers lets three.
ROUTE_DELAY = Delay(0.050, 0.0125)
ROUTE_WORKERS = 3

DRIVERS_ASKED_FOR = 10

# Longer than all delays together: a busy computer must not add errors that nobody asked for.
# A request to the customer service also waits for the queries before it, 0.3 s each.
DRIVER_DEADLINE_S = 10.0
HTTP_DEADLINE_S = 30.0


class Address(NamedTuple):
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        host, colon, port = text.rpartition(":")
        if not (colon and host and port.isdecimal() and 0 < int(port) < 65536):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not HOST:PORT, for example 127.0.0.1:8080"
            )
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


SERVICES = {
    "frontend": Address("127.0.0.1", 8080),
    "customer": Address("127.0.0.1", 8081),
    "driver": Address("127.0.0.1", 8082),
    "route": Address("127.0.0.1", 8083),
}


@dataclass(frozen=True)
class Settings:
    """One process's settings. All services take the same flags; each uses those that concern it."""

    service: str
    listen: Address
    customer: Address
    driver: Address
    route: Address
    redis_url: str
    database: str
    trace_ui: str
    query_delay: Delay
    lock_queries: bool
    route_workers: int
    nearest_drivers_delay: Delay
    get_driver_delay: Delay
    timeout_delay: Delay
    timeout_after: int
    route_delay: Delay


def parse(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Read a service's settings: from flags, else from their environment variables."""
    parser = argparse.ArgumentParser(
        prog="python -m hotrod",
        description="HotROD, rides on demand: an example of distributed tracing.",
        epilog="Each flag has an environment variable: --redis-url is HOTROD_REDIS_URL.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=40),
    )
    parser.add_argument("service", choices=list(SERVICES))
    places = _Group(parser.add_argument_group("where things are"), environment)
    places.add("--listen", None, "its port of 8080-8083 on 127.0.0.1", "HOST:PORT", Address.parse)
    for peer in ("customer", "driver", "route"):
        where = f"where the frontend finds the {peer} service"
        places.add(f"--{peer}", SERVICES[peer], where, "HOST:PORT", Address.parse)
    places.add(
        "--redis-url",
        "",
        "the drivers' Redis, for example redis://127.0.0.1:6379/0; a stand-in in this process",
        "URL",
    )
    places.add(
        "--database",
        "",
        "the customers': postgresql://USER@HOST/NAME, or a file of SQLite; one in a temporary folder",
        "URL",
    )
    places.add(
        "--trace-ui -j --jaeger-ui",
        "",
        "the Jaeger that the page's links open, for example http://127.0.0.1:16686; no links",
        "URL",
    )

    fixes = _Group(parser.add_argument_group("fixes"), environment)
    fixes.delay("--fix-db-query-delay -D", QUERY_DELAY, "how long a customer query takes")
    fixes.add(
        "--fix-disable-db-conn-mutex -M",
        "no",
        "let customer queries run side by side",
        "yes|no",
        yes_or_no,
        nargs="?",
        const=True,
    )
    fixes.add(
        "--fix-route-worker-pool-size -W",
        ROUTE_WORKERS,
        "route requests at the same time",
        "N",
        positive,
    )

    delays = _Group(parser.add_argument_group("the other delays"), environment)
    find, get = "how long Redis looks for drivers", "how long Redis takes for one driver"
    delays.delay("--redis-find-delay", NEAREST_DRIVERS_DELAY, find)
    delays.delay("--redis-get-delay", GET_DRIVER_DELAY, get)
    delays.delay("--redis-timeout-delay", TIMEOUT_DELAY, "how long an answer that is lost takes")
    delays.add(
        "--redis-timeout-after",
        TIMEOUT_AFTER_ANSWERS,
        "good answers of Redis before one is lost, 0: none ever is",
        "N",
        not_negative,
    )
    delays.delay("--route-calc-delay", ROUTE_DELAY, "how long the calculation of a route takes")

    given = parser.parse_args(arguments)
    return Settings(
        service=given.service,
        listen=given.listen or SERVICES[given.service],
        customer=given.customer,
        driver=given.driver,
        route=given.route,
        redis_url=given.redis_url,
        database=given.database,
        trace_ui=given.trace_ui.rstrip("/"),
        query_delay=given.fix_db_query_delay,
        lock_queries=not given.fix_disable_db_conn_mutex,
        route_workers=given.fix_route_worker_pool_size,
        nearest_drivers_delay=given.redis_find_delay,
        get_driver_delay=given.redis_get_delay,
        timeout_delay=given.redis_timeout_delay,
        timeout_after=given.redis_timeout_after,
        route_delay=given.route_calc_delay,
    )


class _Group:
    """Flags under one heading, each with its environment variable."""

    def __init__(self, group: Any, environment: Mapping[str, str]) -> None:
        self._group = group
        self._environment = environment

    def add(
        self,
        flags: str,
        default: object,
        help: str,
        metavar: str,
        type: Callable[[str], object] = str,
        shown: str = "%(default)s",
        **options: Any,
    ) -> None:
        names = flags.split()
        variable = "HOTROD_" + names[0].removeprefix("--").replace("-", "_").upper()
        text = f"{help} ({shown})" if default else f"{help} unless given"
        # argparse runs a default that is a string through `type`: a variable is checked as a flag.
        value = self._environment.get(variable) or default
        self._group.add_argument(
            *names, default=value, help=text, metavar=metavar, type=type, **options
        )

    def delay(self, flags: str, usual: Delay, help: str) -> None:
        """Add a flag for the mean of a delay, whose deviation stays in proportion."""
        share = usual.deviation_s / usual.mean_s

        def delay(text: str) -> Delay:
            mean_s = duration_s(text)
            return Delay(mean_s, mean_s * share)

        self.add(flags, usual, help, "TIME", delay, shown=f"{usual.mean_s * 1000:.0f}ms")


def duration_s(text: str) -> float:
    """`300ms` or `0.3s`, in seconds."""
    for unit, seconds in (("ms", 0.001), ("s", 1.0)):
        number = text.removesuffix(unit)
        if number != text:
            try:
                value = float(number) * seconds
            except ValueError:
                break
            if 0 <= value < 3600:
                return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 100ms or 0.1s")


def yes_or_no(text: str) -> bool:
    answers = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if text.lower() not in answers:
        raise argparse.ArgumentTypeError(f"{text!r} is neither yes nor no")
    return answers[text.lower()]


def not_negative(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return int(text)


def positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)
