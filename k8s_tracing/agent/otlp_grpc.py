# SPDX-License-Identifier: Apache-2.0
"""OTLP over gRPC: the requests are encoded already and go out as they are."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from k8s_tracing.agent.endpoint import Endpoint
from k8s_tracing.agent.otlp_answer import (
    RefusedError,
    RetryableError,
    rejected_spans,
    retry_delay_s,
)

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

# OTLP's specification, "Failures": RESOURCE_EXHAUSTED only where the receiver says that it recovers.
RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)

_STATUS_KEY = "grpc-status-details-bin"


class GrpcExporter:
    """Calls one method over one channel."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        options = [
            ("grpc.primary_user_agent", f"k8s-tracing-agent/{metadata.version('k8s-tracing')}"),
            # We wait between attempts ourselves; the channel must not sit out two minutes of its own.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.min_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        compression = grpc.Compression.Gzip if endpoint.gzip else grpc.Compression.NoCompression
        target, secure = _target(endpoint)
        if secure:
            credentials = grpc.ssl_channel_credentials(
                _read(endpoint.certificate),
                _read(endpoint.client_key),
                _read(endpoint.client_certificate),
            )
            self._channel = grpc.secure_channel(target, credentials, options, compression)
        else:
            self._channel = grpc.insecure_channel(target, options, compression)
        self._export = self._channel.unary_unary(METHOD)
        self._metadata = tuple(endpoint.headers.items())

    @property
    def name(self) -> str:
        """Whom it calls."""
        return self._endpoint.name

    def send(self, request: bytes, timeout_s: float) -> int:
        """Call once; see Exporter.send."""
        try:
            answer: bytes = self._export(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            reason = f"gRPC {code.name}: {error.details()}"
            asked_s = _asked_s(error)
            if code in RETRYABLE or (
                code is grpc.StatusCode.RESOURCE_EXHAUSTED and asked_s is not None
            ):
                raise RetryableError(reason, asked_s) from error
            raise RefusedError(reason) from error
        return rejected_spans(answer)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def _target(endpoint: Endpoint) -> tuple[str, bool]:
    """What grpcio calls the receiver, and whether it is spoken to over TLS."""
    parts = urlsplit(endpoint.url)
    if parts.scheme in ("http", "https"):
        return parts.netloc.rpartition("@")[2], parts.scheme == "https"
    return endpoint.url, not endpoint.insecure  # host:port, or a scheme of gRPC's own such as unix:


def _read(path: Path | None) -> bytes | None:
    return path.read_bytes() if path else None


def _asked_s(error: grpc.RpcError) -> float | None:
    for key, value in error.trailing_metadata() or ():
        if key == _STATUS_KEY:
            return retry_delay_s(value)
    return None
