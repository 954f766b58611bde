# SPDX-License-Identifier: Apache-2.0
"""Spans in any order in, traces out: what does not fit into memory waits in a temporary file."""

from __future__ import annotations

import pickle
import tempfile
from array import array
from collections.abc import Iterable, Iterator

from k8s_tracing.closing import Closing
from k8s_tracing.record import SpanRecord

# From here on a file is used; a span takes some 500 bytes in it.
_MEMORY_BYTES = 64 << 20


class Traces(Closing):
    """Gathers spans by their trace, until it is closed.

    In memory are eight bytes a span and some hundred a trace.
    """

    def __init__(self, *, memory_bytes: int = _MEMORY_BYTES) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=memory_bytes)  # noqa: SIM115  closed in close
        self._places: dict[str, array[int]] = {}
        self._starts_ns: dict[str, int] = {}

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def add(self, spans: Iterable[SpanRecord]) -> None:
        """Put spans of any traces to the others."""
        for span in spans:
            places = self._places.setdefault(span.trace_id, array("Q"))
            places.append(self._file.tell())
            first_ns = self._starts_ns.setdefault(span.trace_id, span.start_time_ns)
            self._starts_ns[span.trace_id] = min(first_ns, span.start_time_ns)
            pickle.dump(span, self._file, pickle.HIGHEST_PROTOCOL)

    def traces(self, limit: int | None = None) -> Iterator[list[SpanRecord]]:
        """The traces, the oldest first, with their spans in the order of their start; nothing may be added after."""
        for trace_id in sorted(self._places, key=self._starts_ns.__getitem__)[:limit]:
            spans = [self._load(place) for place in self._places[trace_id]]
            yield sorted(spans, key=lambda span: span.start_time_ns)

    def _load(self, place: int) -> SpanRecord:
        self._file.seek(place)
        span: SpanRecord = pickle.load(self._file)  # noqa: S301  written here, in a file that has no name
        return span
