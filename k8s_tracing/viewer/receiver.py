# SPDX-License-Identifier: Apache-2.0
"""What becomes of spans that the viewer is sent."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from k8s_tracing.errors import ViewerError
from k8s_tracing.receiver.export import UNAVAILABLE, Intake, Refused
from k8s_tracing.viewer.store import Added, Store


def intake(store: Store, grown: Callable[[tuple[bytes, ...]], None]) -> Intake:
    """Return what takes spans into a store.

    Args:
        store: Where they go.
        grown: Called with the ids of the traces that a request changed.
    """

    def take(request: ExportTraceServiceRequest, body: bytes) -> ExportTraceServiceResponse:
        try:
            added = store.add(request)
        except ViewerError as error:
            raise Refused(503, UNAVAILABLE, str(error)) from error
        if added.traces:
            grown(added.traces)
        return _response(added)

    return Intake(take)


def _response(added: Added) -> ExportTraceServiceResponse:
    response = ExportTraceServiceResponse()
    if rejected := sum(added.refused.values()):
        response.partial_success.rejected_spans = rejected
        reasons = ", ".join(f"{number} by {why}" for why, number in sorted(added.refused.items()))
        response.partial_success.error_message = f"refused: {reasons}"
    return response
