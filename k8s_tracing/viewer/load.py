# SPDX-License-Identifier: Apache-2.0
"""Files of traces -> OTLP requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from k8s_tracing.errors import OtlpError, ViewerError
from k8s_tracing.jaeger_reader import read_json
from k8s_tracing.otlp import parse_json, to_request

_SPANS_AT_ONCE = 2000
#: Where the first line says what a file is: OTLP JSON lines begin with this key, and Jaeger's JSON has none such.
_OTLP_KEY, _LOOK_BYTES = b'"resourceSpans"', 4096


def read_file(path: Path) -> Iterator[ExportTraceServiceRequest]:
    """Read a file of OTLP JSON lines, one request at a time, or of Jaeger's JSON, which has to be read as a whole.

    Raises:
        OtlpError: A line is not OTLP JSON; those before it were yielded.
        JaegerJsonError: The file is neither.
        ViewerError: It cannot be read.
    """
    try:
        with path.open("rb") as lines:
            if _OTLP_KEY in lines.read(_LOOK_BYTES).lstrip().partition(b"\n")[0]:
                lines.seek(0)
                yield from _otlp_lines(path, lines)
                return
        spans = read_json(path)
    except OSError as error:
        raise ViewerError(f"cannot read {path}: {error.strerror}") from error
    for start in range(0, len(spans), _SPANS_AT_ONCE):
        body = to_request(spans[start : start + _SPANS_AT_ONCE])
        yield ExportTraceServiceRequest.FromString(body)


def _otlp_lines(path: Path, lines: Iterable[bytes]) -> Iterator[ExportTraceServiceRequest]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            request = parse_json(line)
        except (ValueError, TypeError, AttributeError, json_format.ParseError) as error:
            raise OtlpError(f"{path}:{number} is not OTLP JSON: {error}") from error
        yield request
