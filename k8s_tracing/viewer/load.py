# SPDX-License-Identifier: Apache-2.0
"""Files and folders of traces -> the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from k8s_tracing.errors import OtlpError, ViewerError
from k8s_tracing.jaeger_reader import read_json
from k8s_tracing.otlp import parse_json, to_request
from k8s_tracing.record import SpanRecord
from k8s_tracing.viewer.store import Store

_SPANS_AT_ONCE = 2000


def load(path: Path, store: Store) -> int:
    """Read a file of OTLP JSON lines or of Jaeger's JSON into a store, and return how many spans there were.

    Raises:
        ViewerError: There is no such file, or it is neither.
    """
    spans = 0
    for request in _requests(path):
        spans += store.add(request).accepted
    return spans


def _requests(path: Path) -> Iterator[ExportTraceServiceRequest]:
    try:
        with path.open("rb") as lines:
            first = lines.readline()
        if b'"resourceSpans"' in first[:4096]:
            yield from _otlp_lines(path)
        else:
            yield from _batches(read_json(path))
    except OSError as error:
        raise ViewerError(f"cannot read {path}: {error.strerror}") from error


def _otlp_lines(path: Path) -> Iterator[ExportTraceServiceRequest]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield parse_json(line)
                except (ValueError, TypeError, AttributeError, json_format.ParseError) as error:
                    raise OtlpError(f"{path}:{number} is not OTLP JSON: {error}") from error


def _batches(spans: list[SpanRecord]) -> Iterator[ExportTraceServiceRequest]:
    for start in range(0, len(spans), _SPANS_AT_ONCE):
        body = to_request(spans[start : start + _SPANS_AT_ONCE])
        yield ExportTraceServiceRequest.FromString(body)
