# SPDX-License-Identifier: Apache-2.0
"""The parts of the data plane that an agent watches, put together: requests beside those that the relay makes."""

from __future__ import annotations

import logging
import select
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from k8s_tracing.dataplane.flows import Conntrack, Join, switch_on
from k8s_tracing.dataplane.ingress.receiver import IngressReceiver
from k8s_tracing.dataplane.names import Names
from k8s_tracing.otlp import to_request
from k8s_tracing.record import SpanRecord

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)

#: What may wait here while the agent cannot write to its spool; past it the newest are dropped, counted.
MAX_WAITING_BYTES = 64 << 20

_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Request:
    """One encoded `ExportTraceServiceRequest`."""

    body: bytes
    spans: int


@dataclass(slots=True)
class Figure:
    """One thing that is counted, for /metrics.

    Attributes:
        labels: Names and values.
        is_total: It only grows; else it is what is now.
    """

    name: str
    text: str
    value: float
    labels: Sequence[tuple[str, str]] = ()
    is_total: bool = True


class DataPlane:
    """Watches from `start` to the end of its block.

    Args:
        udp: Where ingress proxies log to, as of IngressReceiver; likewise `tcp` and `unix`.
        names: What Services are called; None: connections to Services are not watched.

    Raises:
        OSError: It cannot listen for log lines there.
        K8sTracingError: The kernel does not let us listen to conntrack.
    """

    def __init__(
        self,
        *,
        udp: tuple[str, int] | None = None,
        tcp: tuple[str, int] | None = None,
        unix: Path | None = None,
        names: Names | None = None,
    ) -> None:
        self._waiting: deque[Request] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._ingress: IngressReceiver | None = None
        self._conntrack: Conntrack | None = None
        self._join: Join | None = None
        with ExitStack() as stack:
            if udp or tcp or unix:
                self._ingress = stack.enter_context(
                    IngressReceiver(self._take, udp=udp, tcp=tcp, unix=unix)
                )
            if names is not None:
                self._conntrack = stack.enter_context(Conntrack())
                self._join = stack.enter_context(Join(names))
            self._stack = stack.pop_all()

    def start(self) -> None:
        """Begin, and say so in the log."""
        if self._ingress is not None:
            self._ingress.start()
            log.info(
                "log lines of ingress proxies are taken at %s", ", ".join(self._ingress.addresses)
            )
        if self._conntrack is not None:
            for problem in switch_on():
                log.warning("conntrack: %s", problem)
            self._thread = threading.Thread(target=self._listen, name="conntrack", daemon=True)
            self._thread.start()
            log.info("connections to Services are taken from conntrack")

    def stop(self) -> None:
        """Take nothing more in; what had come can still be collected."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._ingress is not None:
            self._ingress.stop()

    def collect(self) -> Iterator[Request]:
        """What came in since the last call; the agent's thread calls this and `pass_on`."""
        if self._conntrack is not None and self._join is not None:
            with self._lock:
                flows = self._conntrack.take()
            if flows:
                self._join.add(flows)
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
            self._waiting_bytes = 0
        yield from waiting
        if self._join is not None:
            body, spans = self._join.flush()
            if spans:
                yield Request(body, spans)

    def pass_on(self, body: bytes) -> tuple[bytes, int]:
        """Add to a request what is known of the connections that its spans used; and how many spans that adds."""
        return (body, 0) if self._join is None else self._join.pass_on(body)

    def figures(self) -> Iterable[Figure]:
        """What was counted."""
        if self._ingress is not None:
            counts = self._ingress.counts
            text = "Log lines of ingress proxies, by what became of them."
            outcomes = {"span": counts.exchanges, "unsampled": counts.unsampled}
            outcomes |= {"overflowed": counts.overflowed, "refused": counts.refused.total()}
            for outcome, value in outcomes.items():
                yield Figure("ingress_lines", text, value, (("outcome", outcome),))
            text = "Spans of ingress proxies for which there was no room."
            yield Figure("ingress_dropped_spans", text, self._dropped)
        if self._conntrack is not None and self._join is not None:
            with self._lock:
                heard = self._conntrack.stats
            text = "Connections to Services that were established or failed."
            yield Figure("service_connections", text, heard.flows)
            text = "Connections to Services whose beginning was not seen."
            yield Figure("service_incomplete", text, heard.incomplete)
            text = (
                "Times that the kernel dropped conntrack events because they were not read in time."
            )
            yield Figure("conntrack_overflows", text, heard.overflows)
            text = "Connections to Services that are open."
            yield Figure("service_open", text, heard.open, is_total=False)
            joined = self._join.stats
            text = "Connections to Services, by whether the request that opened them was found."
            outcomes = {"joined": joined.joined, "failed": joined.failed}
            outcomes |= {"unverified": joined.unverified, "evicted": joined.evicted}
            for outcome, value in outcomes.items():
                yield Figure("service_joins", text, value, (("outcome", outcome),))
            text = "Requests that more than one connection fits; they are joined with none."
            yield Figure("service_ambiguous", text, joined.ambiguous)
            text = "Requests on a connection to a Service that another one had opened."
            yield Figure("service_reused", text, joined.reused)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._stack.close()

    def _take(self, spans: Sequence[SpanRecord]) -> None:
        request = Request(to_request(spans), len(spans))
        with self._lock:
            if self._waiting_bytes + len(request.body) > MAX_WAITING_BYTES:
                self._dropped += request.spans
                return
            self._waiting.append(request)
            self._waiting_bytes += len(request.body)

    def _listen(self) -> None:
        conntrack = self._conntrack
        assert conntrack is not None
        stopping = False
        while not stopping:
            stopping = self._stopping.is_set()  # and then what is there is read once more
            if select.select([conntrack], [], [], 0 if stopping else _POLL_S)[0]:
                with self._lock:
                    conntrack.read()
