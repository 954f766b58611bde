# SPDX-License-Identifier: Apache-2.0
"""The OTLP receiver over gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from k8s_tracing.errors import ViewerError
from k8s_tracing.viewer.receiver import MAX_UNPACKED_BYTES, Receiver, Refused

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
    )

_THREADS = 4
#: Calls that wait for a thread; more are asked to come again.
_MAX_CALLS = 64

_CODES = {429: grpc.StatusCode.RESOURCE_EXHAUSTED, 503: grpc.StatusCode.UNAVAILABLE}


class _Service(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def Export(
        self, request: ExportTraceServiceRequest, context: Any
    ) -> ExportTraceServiceResponse:
        """Take spans."""
        try:
            return self._receiver.take(request)
        except Refused as refused:
            code = _CODES.get(refused.status, grpc.StatusCode.INVALID_ARGUMENT)
            context.abort(code, refused.text)
            raise  # abort has raised already


@contextlib.contextmanager
def grpc_server(receiver: Receiver, host: str, port: int) -> Iterator[int]:
    """Serve until the end of the block, and yield the port.

    Raises:
        ViewerError: The port is taken.
    """
    server = grpc.server(
        ThreadPoolExecutor(_THREADS, thread_name_prefix="otlp-grpc"),
        maximum_concurrent_rpcs=_MAX_CALLS,
        options=[
            ("grpc.max_receive_message_length", MAX_UNPACKED_BYTES),
            ("grpc.so_reuseport", 0),
        ],
    )
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(  # type: ignore[no-untyped-call]
        _Service(receiver), server
    )
    try:
        bound = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError as error:
        raise ViewerError(
            f"cannot listen on {host} port {port}: {error}; "
            "another port can be named, 0 for any that is free"
        ) from error
    server.start()
    try:
        yield bound
    finally:
        server.stop(grace=1).wait()
