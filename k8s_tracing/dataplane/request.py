# SPDX-License-Identifier: Apache-2.0
"""What the data plane hands to the agent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """One encoded `ExportTraceServiceRequest`."""

    body: bytes
    spans: int
