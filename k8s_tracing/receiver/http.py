# SPDX-License-Identifier: Apache-2.0
"""OTLP over HTTP: protobuf and JSON, plain and compressed.

Source: OTLP specification 1.9, "OTLP/HTTP": statuses, and what the bodies of answers are. All bodies that are held at
one time are bounded together.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from anyio.to_thread import run_sync
from google.protobuf import json_format
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route

from k8s_tracing.receiver.export import (
    INVALID_ARGUMENT,
    JSON,
    MAX_BODY_BYTES,
    PROTOBUF,
    RESOURCE_EXHAUSTED,
    Intake,
    Refused,
)

if TYPE_CHECKING:
    from starlette.requests import Request

#: Of all requests that are worked on together, as sent; more are asked to come again.
MAX_HELD_BYTES = 64 << 20


class HttpReceiver:
    """Answers to POST /v1/traces.

    Args:
        intake: Takes the requests.
    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._held_bytes = 0

    def route(self) -> Route:
        """Return what it answers to."""
        return Route("/v1/traces", self._post, methods=["POST"])

    async def _post(self, request: Request) -> Response:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in (PROTOBUF, JSON):
            self._intake.refused[415] += 1
            return Response(f"415: OTLP is {PROTOBUF} or {JSON}", 415, media_type="text/plain")
        held = 0
        try:
            chunks = []
            async for chunk in request.stream():
                held += len(chunk)
                self._held_bytes += len(chunk)
                if held > MAX_BODY_BYTES:
                    raise Refused(413, INVALID_ARGUMENT, f"the body is over {MAX_BODY_BYTES} bytes")
                if self._held_bytes > MAX_HELD_BYTES:
                    raise Refused(429, RESOURCE_EXHAUSTED, "too much at once")
                chunks.append(chunk)
            encoding = request.headers.get("content-encoding", "").strip().lower()
            return await run_sync(self._answer, b"".join(chunks), encoding, media_type)
        except Refused as refused:
            self._intake.refused[refused.status] += 1
            return _status(refused, media_type)
        except ClientDisconnect:
            return Response(status_code=499)
        finally:
            self._held_bytes -= held

    def _answer(self, body: bytes, encoding: str, media_type: str) -> Response:
        response = self._intake.answer(body, encoding, media_type)
        if media_type == JSON:
            content = json_format.MessageToJson(response, indent=None)
            return Response(content, media_type=JSON)
        return Response(response.SerializeToString(), media_type=PROTOBUF)


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
