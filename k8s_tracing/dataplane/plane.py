# SPDX-License-Identifier: Apache-2.0
"""The parts of the data plane that an agent watches, put together: requests beside those that the relay makes."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from k8s_tracing.closing import Closing
from k8s_tracing.dataplane import figures
from k8s_tracing.dataplane.flows import Conntrack, ConntrackStats, Join
from k8s_tracing.dataplane.ingress.receiver import IngressReceiver
from k8s_tracing.dataplane.names import Names
from k8s_tracing.dataplane.netfilter import Questions, kernel_stamps, switch_on
from k8s_tracing.dataplane.request import Request
from k8s_tracing.dataplane.scheduler import Scheduler
from k8s_tracing.otlp import to_request
from k8s_tracing.record import SpanRecord

if TYPE_CHECKING:
    from k8s_tracing.dataplane.otlp import OtlpIntake

log = logging.getLogger(__name__)

#: What may wait here while the agent cannot write to its spool; past it the newest are dropped, counted.
MAX_WAITING_BYTES = 64 << 20

#: How long conntrack's events may gather where the kernel stamps them: waking up for each costs ten times its reading.
GATHER_S = 0.005

_POLL_S = 0.1


class DataPlane(Closing):
    """Watches from `start` to the end of its block.

    Args:
        udp: Where ingress proxies log to, as of IngressReceiver; likewise `tcp` and `unix`.
        otlp_http: Where others send OTLP over HTTP; likewise `otlp_grpc`.
        names: What Services are called; None: connections to Services are not watched.
        scheduler: Who follows threads; it is closed with this. None: nobody.

    Raises:
        OSError: It cannot listen for log lines there.
        ListenError: It cannot listen for OTLP there.
        K8sTracingError: The kernel does not let us listen to conntrack.
    """

    def __init__(
        self,
        *,
        udp: tuple[str, int] | None = None,
        tcp: tuple[str, int] | None = None,
        unix: Path | None = None,
        otlp_http: tuple[str, int] | None = None,
        otlp_grpc: tuple[str, int] | None = None,
        names: Names | None = None,
        scheduler: Scheduler | None = None,
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
        self._questions: Questions | None = None
        self._otlp: OtlpIntake | None = None
        self._scheduler = scheduler
        with ExitStack() as stack:
            if scheduler is not None:
                stack.enter_context(scheduler)
            self._awake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            stack.callback(os.close, self._awake)
            if udp or tcp or unix:
                self._ingress = stack.enter_context(
                    IngressReceiver(self._take, udp=udp, tcp=tcp, unix=unix)
                )
            if otlp_http or otlp_grpc:
                from k8s_tracing.dataplane.otlp import OtlpIntake

                self._otlp = stack.enter_context(
                    OtlpIntake(http=otlp_http, grpc=otlp_grpc, wake=self._wake)
                )
            if names is not None:
                self._conntrack = stack.enter_context(Conntrack())
                self._join = stack.enter_context(Join(names))
                self._questions = stack.enter_context(Questions())
            self._stack = stack.pop_all()

    @property
    def otlp_addresses(self) -> Sequence[str]:
        """URLs at which it takes OTLP."""
        return () if self._otlp is None else self._otlp.addresses

    @property
    def cpu_times(self) -> tuple[int, int, int] | None:
        """Who can tell what a thread did, as of Scheduler; None if nobody can."""
        return None if self._scheduler is None else self._scheduler.cpu_times

    def follow(self, pid: int) -> None:
        """A process records; `pid` as the node numbers it."""
        if self._scheduler is not None:
            self._scheduler.follow(pid)

    def start(self) -> None:
        """Begin, and say so in the log."""
        if self._scheduler is not None:
            self._scheduler.start()
            log.info("the kernel's scheduler is listened to: spans say where their time went")
        if self._ingress is not None:
            self._ingress.start()
            log.info(
                "log lines of ingress proxies are taken at %s", ", ".join(self._ingress.addresses)
            )
        if self._otlp is not None:
            self._otlp.start()
            log.info("OTLP is taken at %s", ", ".join(self._otlp.addresses))
        if self._conntrack is not None:
            for problem in switch_on():
                log.warning("conntrack: %s", problem)
            self._thread = threading.Thread(target=self._listen, name="conntrack", daemon=True)
            self._thread.start()
            log.info("connections to Services are taken from conntrack")

    def stop(self) -> None:
        """Take nothing more in; what had come can still be collected."""
        self._stopping.set()
        if self._scheduler is not None:
            self._scheduler.stop()
        if self._otlp is not None:
            self._otlp.stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._ingress is not None:
            self._ingress.stop()

    def fileno(self) -> int:
        """Readable while somebody waits for `collect`; for select."""
        return self._awake

    def collect(self) -> Iterator[Request]:
        """What came in since the last call; the agent's thread calls this, `published` and `pass_on`."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._awake)
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
            self._waiting_bytes = 0
        if self._otlp is not None:
            waiting += self._otlp.collect()
        # After the requests: then the connections that they used are among those that are known.
        if self._conntrack is not None and self._join is not None:
            with self._lock:
                self._conntrack.drain()
                flows = self._conntrack.take()
                heard = self._conntrack.stats
            if flows:
                self._join.add(flows)
            self._look(heard)
        yield from waiting
        if self._join is not None:
            body, spans = self._join.flush()
            if spans:
                yield Request(body, spans)

    def published(self) -> None:
        """What `collect` returned is on disk."""
        if self._otlp is not None:
            self._otlp.published()

    def pass_on(self, body: bytes, *, is_local: bool) -> tuple[bytes, int]:
        """Add to a request what is known of the connections that its spans used; and how many spans that adds.

        Args:
            body: The request.
            is_local: Its spans are of this node's processes, whose connections this node's conntrack knows.
        """
        if self._join is None:
            return body, 0
        return self._join.pass_on(body, time.time_ns() if is_local else 0)

    def figures(self) -> Iterable[figures.Figure]:
        """What was counted."""
        if self._ingress is not None:
            yield from figures.of_ingress(self._ingress.counts, self._dropped)
        if self._otlp is not None:
            yield from figures.of_otlp(self._otlp.accepted, self._otlp.refused)
        if self._conntrack is not None and self._join is not None:
            with self._lock:
                heard = self._conntrack.stats
            yield from figures.of_services(heard, self._join.stats)
        if self._scheduler is not None:
            yield from figures.of_scheduler(self._scheduler.stats)

    def close(self) -> None:
        """Look no longer, and let go of everything."""
        self.stop()
        self._stack.close()

    def _look(self, heard: ConntrackStats) -> None:
        """How far is conntrack's word to be trusted now?"""
        assert self._join is not None
        assert self._questions is not None
        terms = self._questions.terms(heard)
        if terms is not None:
            self._join.ask(self._questions.fileno(), terms.kept_ns, is_stamped=terms.is_stamped)

    def _take(self, spans: Sequence[SpanRecord]) -> None:
        request = Request(to_request(spans), len(spans))
        with self._lock:
            if self._waiting_bytes + len(request.body) > MAX_WAITING_BYTES:
                self._dropped += request.spans
                return
            self._waiting.append(request)
            self._waiting_bytes += len(request.body)

    def _wake(self) -> None:
        os.eventfd_write(self._awake, 1)

    def _listen(self) -> None:
        conntrack = self._conntrack
        assert conntrack is not None
        gather_s = GATHER_S if kernel_stamps() else 0.0
        stopping = False
        while not stopping:
            stopping = self._stopping.is_set()  # and then what is there is read once more
            if select.select([conntrack], [], [], 0 if stopping else _POLL_S)[0]:
                with self._lock:
                    conntrack.drain()
                self._stopping.wait(gather_s)
