"""OpenTelemetry's instrumentations of Redis, SQLite and any driver of Python's database API."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from opentelemetry.instrumentation.dbapi import trace_integration, unwrap_connect
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor

import k8s_tracing
from tests.support.lttng import require
from tests.support.ports import free_port
from tests.support.recorded import Recorded, attributes_of, instrumented
from tests.support.wait import wait_for


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real Redis that keeps nothing."""
    port = free_port()
    words = [require("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    folder = tmp_path_factory.mktemp("redis")
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=folder) as process:
        try:
            with redis.Redis(port=port) as client:
                wait_for("Redis to listen", lambda: _answers(client))
            yield port
        finally:
            process.terminate()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def redis_commands(port: int) -> None:
    with redis.Redis(port=port) as client:
        client.set("driver", "T1")
        with client.pipeline(transaction=False) as pipeline:
            pipeline.get("driver").get("nobody").execute()
        with pytest.raises(redis.ResponseError):
            client.lpush("driver", "T2")


async def redis_commands_aio(port: int) -> None:
    async with redis.asyncio.Redis(port=port) as client:
        await client.set("driver", "T1")
        async with client.pipeline(transaction=False) as pipeline:
            await pipeline.get("driver").get("nobody").execute()
        with pytest.raises(redis.ResponseError):
            await client.lpush("driver", "T2")


@pytest.mark.parametrize("aio", [False, True], ids=["sync", "aio"])
def test_redis_commands(recorded: Recorded, redis_port: int, aio: bool) -> None:
    with instrumented(RedisInstrumentor()), k8s_tracing.span("caller"):
        if aio:
            asyncio.run(redis_commands_aio(redis_port))
        else:
            redis_commands(redis_port)
    caller, *commands = recorded.spans()
    assert {span.parent_span_id for span in commands} == {caller.span_id}
    # "CLIENT ..." is what a new connection sends first.
    commands = [span for span in commands if not span.name.startswith("CLIENT")]
    assert [span.name for span in commands] == ["SET", "GET GET", "LPUSH"]
    assert [span.status for span in commands] == ["UNSET", "UNSET", "ERROR"]
    assert [event.attributes["exception.type"] for event in commands[2].events] == [
        "redis.exceptions.ResponseError"
    ]
    for span in commands:
        expected = {"server.port": redis_port, "db.system.name": "redis"}
        assert attributes_of(span, expected) == expected
        assert span.kind == "CLIENT"
    assert commands[0].attributes["db.query.text"] == "SET ? ?"


def queries(connection: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE drivers (id TEXT)")
    cursor.executemany("INSERT INTO drivers VALUES (?)", [("T1",), ("T2",)])
    assert cursor.execute("SELECT count(*) FROM drivers").fetchone() == (2,)
    with pytest.raises(sqlite3.OperationalError):
        cursor.execute("SELECT nothing FROM nowhere")
    connection.close()


def check_queries(recorded: Recorded) -> None:
    caller, *spans = recorded.spans()
    assert {span.parent_span_id for span in spans} == {caller.span_id}
    assert [span.name.split()[0] for span in spans] == ["CREATE", "INSERT", "SELECT", "SELECT"]
    assert [span.status for span in spans] == ["UNSET", "UNSET", "UNSET", "ERROR"]
    assert {span.kind for span in spans} == {"CLIENT"}
    assert spans[2].attributes["db.query.text"] == "SELECT count(*) FROM drivers"
    assert {span.attributes["db.system.name"] for span in spans} == {"sqlite"}
    assert [event.name for event in spans[3].events] == ["exception"]


def test_sqlite3_queries(recorded: Recorded) -> None:
    with instrumented(SQLite3Instrumentor()), k8s_tracing.span("caller"):
        queries(sqlite3.connect(":memory:"))
    check_queries(recorded)


def test_any_driver_of_the_database_api(recorded: Recorded) -> None:
    trace_integration(sqlite3, "connect", "sqlite")
    try:
        with k8s_tracing.span("caller"):
            queries(sqlite3.connect(":memory:"))
    finally:
        unwrap_connect(sqlite3, "connect")
    check_queries(recorded)
