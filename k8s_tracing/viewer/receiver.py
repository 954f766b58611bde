# SPDX-License-Identifier: Apache-2.0
"""The OTLP receiver over HTTP: protobuf and JSON, plain and gzip.

Source: OTLP specification 1.9, "OTLP/HTTP": statuses, and what the bodies of answers are. Who sends is not trusted: a
body is bounded before and after it is unpacked, and all bodies that are held at one time together.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from anyio.to_thread import run_sync
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from k8s_tracing.errors import ViewerError
from k8s_tracing.otlp import parse_json
from k8s_tracing.viewer.store import Added, Store

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_BODY_BYTES = 16 << 20
MAX_UNPACKED_BYTES = 64 << 20
#: Of all requests that are worked on together, as sent; more are asked to come again.
MAX_HELD_BYTES = 64 << 20

PROTOBUF, JSON = "application/x-protobuf", "application/json"
#: google.rpc.Code
_INVALID_ARGUMENT, _RESOURCE_EXHAUSTED, _UNAVAILABLE = 3, 8, 14


class Refused(Exception):
    """A request is not taken.

    Args:
        status: HTTP's.
        code: gRPC's.
        text: Why.
    """

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(text)
        self.status, self.code, self.text = status, code, text


class Receiver:
    """Takes spans into a store.

    Args:
        store: Where they go.
        grown: Called with the ids of the traces that a request changed.
    """

    def __init__(self, store: Store, grown: Callable[[tuple[bytes, ...]], None]) -> None:
        self._store = store
        self._grown = grown
        self._held_bytes = 0

    def route(self) -> Route:
        """Return what it answers to."""
        return Route("/v1/traces", self._post, methods=["POST"])

    def take(self, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse:
        """Keep the spans of a request, and return the answer to it.

        Raises:
            Refused: They could not be kept; they may be sent again.
        """
        try:
            added = self._store.add(request)
        except ViewerError as error:
            raise Refused(503, _UNAVAILABLE, str(error)) from error
        if added.traces:
            self._grown(added.traces)
        return _response(added)

    async def _post(self, request: Request) -> Response:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in (PROTOBUF, JSON):
            return Response(f"415: OTLP is {PROTOBUF} or {JSON}", 415, media_type="text/plain")
        held = 0
        try:
            chunks = []
            async for chunk in request.stream():
                held += len(chunk)
                self._held_bytes += len(chunk)
                if held > MAX_BODY_BYTES:
                    raise Refused(
                        413, _INVALID_ARGUMENT, f"the body is over {MAX_BODY_BYTES} bytes"
                    )
                if self._held_bytes > MAX_HELD_BYTES:
                    raise Refused(429, _RESOURCE_EXHAUSTED, "too much at once")
                chunks.append(chunk)
            encoding = request.headers.get("content-encoding", "").strip().lower()
            return await run_sync(self._answer, b"".join(chunks), encoding, media_type)
        except Refused as refused:
            return _status(refused, media_type)
        except ClientDisconnect:
            return Response(status_code=499)
        finally:
            self._held_bytes -= held

    def _answer(self, body: bytes, encoding: str, media_type: str) -> Response:
        response = self.take(decode(unpacked(body, encoding), media_type))
        if media_type == JSON:
            content = json_format.MessageToJson(response, indent=None)
            return Response(content, media_type=JSON)
        return Response(response.SerializeToString(), media_type=PROTOBUF)


def unpacked(body: bytes, encoding: str) -> bytes:
    """Return a body without its Content-Encoding.

    Raises:
        Refused: It is not what it says, or too long.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise Refused(400, _INVALID_ARGUMENT, f"unsupported Content-Encoding: {encoding:.40}")
    unpacker = zlib.decompressobj(47)  # gzip or zlib, by its header
    try:
        content = unpacker.decompress(body, MAX_UNPACKED_BYTES)
    except zlib.error as error:
        raise Refused(400, _INVALID_ARGUMENT, f"the body is not {encoding}: {error}") from error
    if unpacker.unconsumed_tail:
        raise Refused(
            413, _INVALID_ARGUMENT, f"the unpacked body is over {MAX_UNPACKED_BYTES} bytes"
        )
    if not unpacker.eof or unpacker.unused_data:
        raise Refused(400, _INVALID_ARGUMENT, f"the body is not one whole {encoding} stream")
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
        raise Refused(400, _INVALID_ARGUMENT, f"the body is not OTLP: {error!s:.200}") from error


def _response(added: Added) -> ExportTraceServiceResponse:
    response = ExportTraceServiceResponse()
    if rejected := sum(added.refused.values()):
        response.partial_success.rejected_spans = rejected
        reasons = ", ".join(f"{number} by {why}" for why, number in sorted(added.refused.items()))
        response.partial_success.error_message = f"refused: {reasons}"
    return response


def _status(refused: Refused, media_type: str) -> Response:
    """Answer with a google.rpc.Status, in the request's encoding."""
    headers = {"Retry-After": "5"} if refused.status in (429, 503) else None
    if media_type == JSON:
        content = json.dumps({"code": refused.code, "message": refused.text}).encode()
    else:
        text = refused.text.encode(errors="replace")
        content = bytes([0x08, refused.code, 0x12]) + _varint(len(text)) + text
    return Response(content, refused.status, headers, media_type=media_type)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
