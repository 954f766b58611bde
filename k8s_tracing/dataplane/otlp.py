# SPDX-License-Identifier: Apache-2.0
"""Spans that others send by OTLP: proxies that export their own, and applications without LTTng.

A request is answered when it is on disk in the agent's outbox, so that what was acknowledged survives the agent. Until
then the sender has it, and sends it again if there is no answer; what the agent wrote down a moment too late for its
answer is then there twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

import uvicorn
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.applications import Starlette

from k8s_tracing.closing import Closing
from k8s_tracing.dataplane.request import Request
from k8s_tracing.receiver import ports
from k8s_tracing.receiver.export import RESOURCE_EXHAUSTED, UNAVAILABLE, Intake, Refused
from k8s_tracing.receiver.grpc import grpc_server
from k8s_tracing.receiver.http import HttpReceiver

#: How long a request waits for the disk before its sender is asked to come again.
PATIENCE_S = 5.0

#: Of all requests that are not on disk yet; more are asked to come again.
MAX_WAITING_BYTES = 64 << 20

_MAX_CONNECTIONS = 512


class _Waiting:
    """A request whose sender waits for the answer."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.is_on_disk = threading.Event()


class OtlpIntake(Closing):
    """Listens from the moment it is made, and answers from `start` on.

    Args:
        http: Address and port for OTLP over HTTP; port 0 for any. Likewise `grpc`.
        wake: Called in any thread when somebody waits.
        patience_s: How long a request waits for the disk.

    Attributes:
        accepted: Spans that were acknowledged.
        addresses: Where it listens.

    Raises:
        ListenError: It cannot listen there.
    """

    def __init__(
        self,
        *,
        http: tuple[str, int] | None = None,
        grpc: tuple[str, int] | None = None,
        wake: Callable[[], None] = lambda: None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.accepted = 0
        self.addresses: list[str] = []
        self._wake = wake
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._in_hand: list[_Waiting] = []
        self._bytes = 0
        self._is_stopped = False
        self._intake = Intake(self._take)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        with ExitStack() as stack:
            if http is not None:
                self._socket = stack.enter_context(ports.listening(*http))
                self.addresses.append(ports.url(http[0], self._socket.getsockname()[1]))
                self._server = uvicorn.Server(_config(self._intake, http[0]))
            if grpc is not None:
                port = stack.enter_context(grpc_server(self._intake, *grpc))
                self.addresses.append(ports.url(grpc[0], port).replace("http", "grpc", 1))
            self._stack = stack.pop_all()

    @property
    def refused(self) -> dict[int, int]:
        """How many requests were refused, by HTTP's status."""
        return dict(self._intake.refused)

    def start(self) -> None:
        """Answer."""
        if self._server is not None:
            self._thread = threading.Thread(
                target=self._server.run, args=([self._socket],), name="otlp-http", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Take nothing more in; who waits already is answered once it is published."""
        with self._lock:
            self._is_stopped = True

    def collect(self) -> list[Request]:
        """What came in since the last call."""
        with self._lock:
            collected, self._waiting = self._waiting, []
            self._in_hand += collected
        return [waiting.request for waiting in collected]

    def published(self) -> None:
        """All that was collected is on disk."""
        with self._lock:
            in_hand, self._in_hand = self._in_hand, []
            for waiting in in_hand:
                self._bytes -= len(waiting.request.body)
                self.accepted += waiting.request.spans
        for waiting in in_hand:
            waiting.is_on_disk.set()

    def close(self) -> None:
        """Listen no longer."""
        self.stop()
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._stack.close()

    def _take(self, message: ExportTraceServiceRequest, body: bytes) -> ExportTraceServiceResponse:
        spans = sum(
            len(scope_spans.spans)
            for resource_spans in message.resource_spans
            for scope_spans in resource_spans.scope_spans
        )
        if not spans:
            return ExportTraceServiceResponse()
        waiting = _Waiting(Request(body, spans))
        with self._lock:
            if self._is_stopped:
                raise Refused(503, UNAVAILABLE, "the agent is stopping")
            if self._bytes + len(body) > MAX_WAITING_BYTES:
                raise Refused(429, RESOURCE_EXHAUSTED, "too much is waiting for the agent's disk")
            self._bytes += len(body)
            self._waiting.append(waiting)
        self._wake()
        if not waiting.is_on_disk.wait(self._patience_s):
            self._withdraw(waiting)
        return ExportTraceServiceResponse()

    def _withdraw(self, waiting: _Waiting) -> None:
        """Give up a request that is not on disk.

        Raises:
            Refused: Its sender is asked to come again.
        """
        with self._lock:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                self._bytes -= len(waiting.request.body)
            elif waiting not in self._in_hand:
                return  # it has just been published
        raise Refused(503, UNAVAILABLE, f"not on the agent's disk within {self._patience_s:g} s")


def _config(intake: Intake, host: str) -> uvicorn.Config:
    return uvicorn.Config(
        ports.guarded(Starlette(routes=[HttpReceiver(intake).route()]), host),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
