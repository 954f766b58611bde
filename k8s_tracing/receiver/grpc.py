# SPDX-License-Identifier: Apache-2.0
"""OTLP over gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from k8s_tracing.errors import ListenError
from k8s_tracing.receiver.export import MAX_UNPACKED_BYTES, Intake, Refused

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
_THREADS = 4
#: Calls that wait for a thread; more are asked to come again.
_MAX_CALLS = 64

_CODES = {429: grpc.StatusCode.RESOURCE_EXHAUSTED, 503: grpc.StatusCode.UNAVAILABLE}


@contextlib.contextmanager
def grpc_server(intake: Intake, host: str, port: int) -> Iterator[int]:
    """Serve until the end of the block, and yield the port.

    Raises:
        ListenError: The port is taken.
    """

    def export(body: bytes, context: Any) -> ExportTraceServiceResponse:
        try:
            return intake.answer(body)
        except Refused as refused:
            intake.refused[refused.status] += 1
            code = _CODES.get(refused.status, grpc.StatusCode.INVALID_ARGUMENT)
            context.abort(code, refused.text)
            raise  # abort has raised already

    server = grpc.server(
        ThreadPoolExecutor(_THREADS, thread_name_prefix="otlp-grpc"),
        maximum_concurrent_rpcs=_MAX_CALLS,
        options=[
            ("grpc.max_receive_message_length", MAX_UNPACKED_BYTES),
            ("grpc.so_reuseport", 0),
        ],
    )
    # Without a deserializer: who passes requests on needs the bytes that came.
    handler = grpc.unary_unary_rpc_method_handler(
        export, response_serializer=ExportTraceServiceResponse.SerializeToString
    )
    handlers = grpc.method_handlers_generic_handler(_SERVICE, {"Export": handler})
    server.add_generic_rpc_handlers((handlers,))
    try:
        bound = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError as error:
        raise ListenError(
            f"cannot listen on {host} port {port}: {error}; "
            "another port can be named, 0 for any that is free"
        ) from error
    server.start()
    try:
        yield bound
    finally:
        server.stop(grace=1).wait()
