"""The Redis client; fakeredis stands for the server, the client's own code is the real one."""

from __future__ import annotations

import fakeredis
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import k8s_tracing
from k8s_tracing.instrument.redis import TracingRedis
from k8s_tracing.record import SpanRecord


@pytest.fixture
def client() -> TracingRedis:
    pool = redis.ConnectionPool(
        connection_class=fakeredis.FakeRedisConnection,
        server=fakeredis.FakeServer(),
        host="cache",
        db=3,
    )
    return TracingRedis(connection_pool=pool)


SERVER = {
    "db.system.name": "redis",
    "db.namespace": "3",
    "server.address": "cache",
    "server.port": 6379,
}


def test_a_command_is_a_client_span_without_its_arguments(
    client: TracingRedis, spans: list[SpanRecord]
) -> None:
    with k8s_tracing.span("outer"):
        client.set("password", "secret")
    [span, outer] = spans
    assert (span.name, span.kind, span.status) == ("SET", "CLIENT", "UNSET")
    assert span.parent_span_id == outer.span_id
    query = {"db.operation.name": "SET", "db.query.text": "SET ? ?"}
    assert span.attributes == SERVER | query


def test_an_error_is_in_the_span(client: TracingRedis, spans: list[SpanRecord]) -> None:
    client.set("text", "a")
    with pytest.raises(redis.ResponseError):
        client.incr("text")
    span = spans[-1]
    assert (span.name, span.status) == ("INCRBY", "ERROR")
    assert span.attributes["error.type"] == "redis.exceptions.ResponseError"
    assert [event.name for event in span.events] == ["exception"]


@pytest.mark.parametrize(("transaction", "name"), [(True, "MULTI"), (False, "PIPELINE")])
def test_a_pipeline_is_one_span(
    client: TracingRedis, spans: list[SpanRecord], transaction: bool, name: str
) -> None:
    with client.pipeline(transaction=transaction) as pipeline:
        assert pipeline.set("a", 1).get("a").execute() == [True, b"1"]
    [span] = spans
    assert (span.name, span.kind) == (name, "CLIENT")
    assert span.attributes == SERVER | {"db.operation.name": name, "db.operation.batch.size": 2}


def test_a_pipeline_that_fails_is_an_error(client: TracingRedis, spans: list[SpanRecord]) -> None:
    with client.pipeline() as pipeline, pytest.raises(redis.ResponseError):
        pipeline.set("text", "a").incr("text").execute()
    assert spans[-1].status == "ERROR"


def test_a_subclass_says_more(spans: list[SpanRecord]) -> None:
    class Telling(TracingRedis):
        def attributes(self, *command: object) -> dict[str, object]:  # type: ignore[override]
            return {**super().attributes(*command), "key": str(command[1])}

    client = Telling(
        connection_pool=redis.ConnectionPool(
            connection_class=fakeredis.FakeRedisConnection, server=fakeredis.FakeServer()
        )
    )
    client.get("a")
    assert spans[0].attributes["key"] == "a"


def test_a_unix_socket_is_a_path(spans: list[SpanRecord]) -> None:
    client = TracingRedis(unix_socket_path="/run/no.sock", retry=Retry(NoBackoff(), 0))
    with pytest.raises(redis.ConnectionError):
        client.get("a")
    assert spans[0].attributes["server.address"] == "/run/no.sock"
    assert "server.port" not in spans[0].attributes
    assert spans[0].status == "ERROR"
