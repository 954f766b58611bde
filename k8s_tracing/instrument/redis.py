# SPDX-License-Identifier: Apache-2.0
"""A span for each command, or pipeline of commands, that a Redis client sends.

OpenTelemetry's instrumentation of redis works, too, and also traces its asyncio and cluster clients. This one is a
client class, costs a fraction, and says nothing of a command but its name: keys and values may be secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import SpanKind
from redis import Redis
from redis.client import Pipeline

from k8s_tracing import api
from k8s_tracing.http import Attributes
from k8s_tracing.instrument._http import set_failure


class TracingRedis(Redis):
    """A Redis client with a CLIENT span for each command, by OpenTelemetry's conventions for databases.

    Its arguments are those of redis.Redis, and `from_url` is there as well.
    """

    def attributes(self, *command: Any) -> Attributes:
        """Return what the span of a command says; a subclass may return more."""
        name = str(command[0])
        return {
            **_connection(self.connection_pool.connection_kwargs),
            "db.operation.name": name,
            "db.query.text": name + " ?" * (len(command) - 1),
        }

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command; return its answer."""
        with api.span(
            str(args[0]),
            self.attributes(*args) if api.backend_name() != "noop" else None,
            kind=SpanKind.CLIENT,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
            except Exception as error:
                set_failure(span, error)
                raise

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Return a pipeline whose `execute` is one span."""
        return TracingPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )


class TracingPipeline(Pipeline):
    """What `TracingRedis.pipeline` returns."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send all commands; return their answers."""
        name = "MULTI" if self.transaction else "PIPELINE"  # type: ignore[truthy-function]
        attributes = _connection(self.connection_pool.connection_kwargs)
        attributes |= {
            "db.operation.name": name,
            "db.operation.batch.size": len(self.command_stack),
        }
        with api.span(
            name,
            attributes,
            kind=SpanKind.CLIENT,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                return super().execute(raise_on_error)
            except Exception as error:
                set_failure(span, error)
                raise


def _connection(given: Mapping[str, Any]) -> Attributes:
    attributes: Attributes = {"db.system.name": "redis", "db.namespace": str(given.get("db") or 0)}
    if "path" in given:
        attributes["server.address"] = str(given["path"])
    else:
        attributes["server.address"] = str(given.get("host") or "localhost")
        attributes["server.port"] = int(given.get("port") or 6379)
    return attributes
