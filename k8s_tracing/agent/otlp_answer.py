# SPDX-License-Identifier: Apache-2.0
"""What OTLP receivers answer: partial success, and the status of a failure."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_STATUS_MESSAGE, _STATUS_DETAILS = 2, 3  # fields of google.rpc.Status
_RETRY_DELAY = 1  # field of google.rpc.RetryInfo


class RetryableError(Exception):
    """Not delivered; may succeed later.

    Args:
        reason: For the log.
        after_s: How long the receiver asks us to wait, if it does.
    """

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


class RefusedError(Exception):
    """Not delivered, and never will be: the receiver does not want this request."""


def rejected_spans(response: bytes) -> int:
    """How many spans an ExportTraceServiceResponse says were rejected.

    A response that cannot be read means none: the receiver has said that it took the request.
    """
    try:
        answer = ExportTraceServiceResponse.FromString(response)
    except DecodeError:
        return 0
    return max(0, answer.partial_success.rejected_spans)


def retry_delay_s(status: bytes) -> float | None:
    """The delay that the RetryInfo in an encoded google.rpc.Status asks for."""
    try:
        for detail in _fields(status, _STATUS_DETAILS):
            packed = Any.FromString(detail)
            if packed.type_url.rpartition("/")[2] != "google.rpc.RetryInfo":
                continue
            for delay in _fields(packed.value, _RETRY_DELAY):
                duration = Duration.FromString(delay)
                return max(0.0, duration.seconds + duration.nanos / 1e9)
            return 0.0
    except (DecodeError, IndexError):
        return None
    return None


def status_message(status: bytes) -> str:
    """The text in an encoded google.rpc.Status, empty if there is none."""
    try:
        return next(_fields(status, _STATUS_MESSAGE), b"").decode(errors="replace")
    except (DecodeError, IndexError):
        return ""


def _fields(message: bytes, wanted: int) -> Iterator[bytes]:
    """The contents of a message's length-delimited fields with one number.

    By hand, because google.rpc's messages come with a package of their own, for two fields.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, at = _varint(message, at)
        elif wire_type == _BYTES:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise DecodeError("a field is longer than its message")
            if tag >> 3 == wanted:
                yield message[at : at + size]
            at += size
        elif wire_type in (_FIXED32, _FIXED64):
            at += 4 if wire_type == _FIXED32 else 8
        else:
            raise DecodeError(f"wire type {wire_type}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
