# SPDX-License-Identifier: Apache-2.0
"""What both protocols share: a request's bytes become a message, or the reason why they are refused.

Source: OTLP specification 1.9. Who sends is not trusted: a body is bounded before and after it is unpacked.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from k8s_tracing.otlp import parse_json

MAX_BODY_BYTES = 16 << 20
MAX_UNPACKED_BYTES = 64 << 20

PROTOBUF, JSON = "application/x-protobuf", "application/json"
#: google.rpc.Code
INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNAVAILABLE = 3, 8, 14


class Refused(Exception):
    """A request is not taken.

    Args:
        status: HTTP's. What has 429 or 503 may be sent again.
        code: gRPC's.
        text: Why.
    """

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(text)
        self.status, self.code, self.text = status, code, text


#: Gets a request and the protobuf that it came as, in any thread; returns the answer, or raises Refused.
Take = Callable[[ExportTraceServiceRequest, bytes], ExportTraceServiceResponse]


class Intake:
    """Takes requests of either protocol.

    Args:
        take: What becomes of them.

    Attributes:
        refused: How many were, by HTTP's status.
    """

    def __init__(self, take: Take) -> None:
        self.refused: Counter[int] = Counter()
        self._take = take

    def answer(
        self, body: bytes, encoding: str = "", media_type: str = PROTOBUF
    ) -> ExportTraceServiceResponse:
        """Take one request, and return the answer to it.

        Raises:
            Refused: It is none, or not taken.
        """
        body = unpacked(body, encoding)
        request = decode(body, media_type)
        return self._take(request, request.SerializeToString() if media_type == JSON else body)


def unpacked(body: bytes, encoding: str) -> bytes:
    """Return a body without its Content-Encoding.

    Raises:
        Refused: It is not what it says, or too long.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise Refused(400, INVALID_ARGUMENT, f"unsupported Content-Encoding: {encoding:.40}")
    unpacker = zlib.decompressobj(47)  # gzip or zlib, by its header
    try:
        content = unpacker.decompress(body, MAX_UNPACKED_BYTES)
    except zlib.error as error:
        raise Refused(400, INVALID_ARGUMENT, f"the body is not {encoding}: {error}") from error
    if unpacker.unconsumed_tail:
        raise Refused(
            413, INVALID_ARGUMENT, f"the unpacked body is over {MAX_UNPACKED_BYTES} bytes"
        )
    if not unpacker.eof or unpacker.unused_data:
        raise Refused(400, INVALID_ARGUMENT, f"the body is not one whole {encoding} stream")
    return content


def decode(body: bytes, media_type: str) -> ExportTraceServiceRequest:
    """Return the request that a body is.

    Raises:
        Refused: It is none.
    """
    try:
        if media_type == JSON:
            return parse_json(body)
        return ExportTraceServiceRequest.FromString(body)
    except (
        DecodeError,
        json_format.ParseError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise Refused(400, INVALID_ARGUMENT, f"the body is not OTLP: {error!s:.200}") from error
