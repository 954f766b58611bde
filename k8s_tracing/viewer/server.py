# SPDX-License-Identifier: Apache-2.0
"""The viewer as a process: its ports, and serving them until it is told to stop."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from k8s_tracing.receiver import ports
from k8s_tracing.receiver.http import HttpReceiver
from k8s_tracing.receiver.ports import guarded, listening
from k8s_tracing.viewer.app import otlp_app, query_app
from k8s_tracing.viewer.page_api import News
from k8s_tracing.viewer.receiver import intake
from k8s_tracing.viewer.store import Store

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from starlette.types import ASGIApp, Receive, Scope, Send

QUERY_PORT, OTLP_HTTP_PORT, OTLP_GRPC_PORT = 16686, 4318, 4317
_MAX_CONNECTIONS = 512


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the viewer listens.

    Attributes:
        host: A name or an address of this machine.
        query_port: Of the page and the query API; 0: any that is free, as with the others.
        otlp_http_port: None: it receives nothing.
        otlp_grpc_port: None: nothing by gRPC.
    """

    host: str = "127.0.0.1"
    query_port: int = QUERY_PORT
    otlp_http_port: int | None = OTLP_HTTP_PORT
    otlp_grpc_port: int | None = OTLP_GRPC_PORT


class Viewer:
    """A store, and the ports that lead to it. They are open from `with` on, and answered once `serve` runs.

    Raises:
        ListenError: A port is taken, or the host is none of this machine.
    """

    def __init__(self, store: Store, addresses: Addresses) -> None:
        self._store = store
        self._addresses = addresses
        self._exit = contextlib.ExitStack()
        self._news = News()
        self._intake = intake(store, self._news.publish)
        self._otlp: socket.socket | None = None
        self._grpc_port: int | None = None
        self._server: uvicorn.Server | None = None
        self._stopped = False

    def __enter__(self) -> Viewer:
        with contextlib.ExitStack() as stack:
            where = self._addresses
            self._query = stack.enter_context(listening(where.host, where.query_port))
            if where.otlp_http_port is not None:
                self._otlp = stack.enter_context(listening(where.host, where.otlp_http_port))
            if where.otlp_grpc_port is not None:
                from k8s_tracing.receiver.grpc import grpc_server

                self._grpc_port = stack.enter_context(
                    grpc_server(self._intake, where.host, where.otlp_grpc_port)
                )
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._exit.close()

    @property
    def url(self) -> str:
        """The page's address."""
        return self._url(self._query.getsockname()[1])

    @property
    def otlp_http_url(self) -> str | None:
        """What OTEL_EXPORTER_OTLP_ENDPOINT is set to for OTLP over HTTP."""
        return None if self._otlp is None else self._url(self._otlp.getsockname()[1])

    @property
    def otlp_grpc_url(self) -> str | None:
        """What it is set to for OTLP over gRPC."""
        return None if self._grpc_port is None else self._url(self._grpc_port)

    def add(self, request: ExportTraceServiceRequest) -> int:
        """Take spans that came in another way, from any thread, and return how many were kept.

        Raises:
            ViewerError: They cannot be written.
        """
        added = self._store.add(request)
        self._news.publish(added.traces)
        return added.accepted

    def stop(self) -> None:
        """End `serve`, from any thread."""
        self._stopped = True  # first: `serve` looks at it once there is a server
        if self._server is not None:
            self._server.should_exit = True

    def serve(self) -> None:
        """Answer requests until SIGTERM, SIGINT or `stop`."""
        applications = {self._query.getsockname()[1]: query_app(self._store, self._news)}
        sockets = [self._query]
        if self._otlp is not None:
            applications[self._otlp.getsockname()[1]] = otlp_app(HttpReceiver(self._intake))
            sockets.append(self._otlp)
        config = uvicorn.Config(
            guarded(_by_port(applications), self._addresses.host),
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=1,  # a page that listens for news would never end by itself
        )
        self._server = uvicorn.Server(config)
        if not self._stopped:
            self._server.run(sockets=sockets)

    def _url(self, port: int) -> str:
        return ports.url(self._addresses.host, port)


def _by_port(applications: dict[int, ASGIApp]) -> ASGIApp:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await applications[scope["server"][1]](scope, receive, send)

    return application
