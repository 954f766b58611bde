# SPDX-License-Identifier: Apache-2.0
"""Flags and environment variables of the services."""

from __future__ import annotations

import pytest
from hotrod import config
from hotrod.config import Address, Delay


def test_defaults_are_those_of_the_original() -> None:
    settings = config.parse(["customer"], {})
    assert settings.listen == Address("127.0.0.1", 8081)
    assert settings.query_delay == Delay(0.3, 0.03)
    assert settings.lock_queries
    assert settings.route_workers == 3
    assert settings.nearest_drivers_delay == Delay(0.02, 0.005)
    assert settings.get_driver_delay == Delay(0.01, 0.0025)
    assert settings.timeout_delay == Delay(0.02, 0.005)
    assert settings.timeout_after == 4
    assert settings.route_delay == Delay(0.05, 0.0125)


def test_the_short_flags_are_those_of_the_original() -> None:
    settings = config.parse(["frontend", "-D", "1ms", "-M", "-W", "9", "-j", "http://ui"], {})
    assert settings.query_delay.mean_s == pytest.approx(0.001)
    assert not settings.lock_queries
    assert settings.route_workers == 9
    assert settings.trace_ui == "http://ui"


def test_every_delay_can_be_none() -> None:
    variables = {
        "HOTROD_FIX_DB_QUERY_DELAY": "0s",
        "HOTROD_REDIS_FIND_DELAY": "0ms",
        "HOTROD_REDIS_GET_DELAY": "0s",
        "HOTROD_REDIS_TIMEOUT_DELAY": "0s",
        "HOTROD_REDIS_TIMEOUT_AFTER": "0",
        "HOTROD_ROUTE_CALC_DELAY": "0s",
    }
    settings = config.parse(["route"], variables)
    none = Delay(0.0, 0.0)
    assert settings.query_delay == settings.nearest_drivers_delay == settings.get_driver_delay
    assert settings.timeout_delay == settings.route_delay == settings.query_delay == none
    assert settings.timeout_after == 0


def test_flags() -> None:
    settings = config.parse(
        [
            "frontend",
            "--listen=0.0.0.0:80",
            "--route=route:9000",
            "--trace-ui=http://jaeger:16686/",
            "--fix-db-query-delay=100ms",
            "--fix-disable-db-conn-mutex",
            "--fix-route-worker-pool-size=10",
        ],
        {},
    )
    assert settings.listen == Address("0.0.0.0", 80)
    assert settings.route == Address("route", 9000)
    assert settings.trace_ui == "http://jaeger:16686"
    assert settings.query_delay.mean_s == pytest.approx(0.1)
    assert settings.query_delay.deviation_s == pytest.approx(0.01)
    assert not settings.lock_queries
    assert settings.route_workers == 10


def test_environment_is_second_to_flags() -> None:
    environment = {
        "HOTROD_LISTEN": "0.0.0.0:1",
        "HOTROD_REDIS_URL": "redis://redis:6379/1",
        "HOTROD_FIX_DISABLE_DB_CONN_MUTEX": "yes",
        "HOTROD_FIX_ROUTE_WORKER_POOL_SIZE": "5",
    }
    settings = config.parse(["driver", "--fix-route-worker-pool-size=7"], environment)
    assert settings.listen == Address("0.0.0.0", 1)
    assert settings.redis_url == "redis://redis:6379/1"
    assert not settings.lock_queries
    assert settings.route_workers == 7


def test_an_empty_variable_is_no_variable() -> None:
    assert config.parse(["route"], {"HOTROD_LISTEN": ""}).listen == Address("127.0.0.1", 8083)


@pytest.mark.parametrize(
    ("flag", "environment"),
    [
        (["--listen=8080"], {}),
        (["--listen=host:99999"], {}),
        (["--fix-db-query-delay=300"], {}),
        (["--fix-db-query-delay=-1s"], {}),
        (["--fix-db-query-delay=nans"], {}),
        (["--fix-route-worker-pool-size=0"], {}),
        (["--redis-timeout-after=-1"], {}),
        ([], {"HOTROD_FIX_DISABLE_DB_CONN_MUTEX": "perhaps"}),
        ([], {"HOTROD_CUSTOMER": "customer"}),
    ],
)
def test_nonsense_is_refused(
    flag: list[str], environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        config.parse(["frontend", *flag], environment)
    assert "error: argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"), [("300ms", 0.3), ("0.3s", 0.3), ("0ms", 0.0), ("1.5s", 1.5)]
)
def test_duration(text: str, seconds: float) -> None:
    assert config.duration_s(text) == pytest.approx(seconds)


def test_address_of_ip_6_is_written_with_brackets() -> None:
    address = Address.parse("[::1]:8080")
    assert address == ("::1", 8080)
    assert str(address) == "[::1]:8080"


def test_a_delay_is_never_negative() -> None:
    delay = Delay(0.1, 1.0)
    assert min(delay.sample_s() for _ in range(100)) == 0.0
