# SPDX-License-Identifier: Apache-2.0
"""A thread an endpoint: takes what its cursor in the outbox is at, and delivers it."""

from __future__ import annotations

import logging
import threading

from k8s_tracing.agent.export import Delivery
from k8s_tracing.agent.outbox import Cursor, Outbox
from k8s_tracing.agent.stopping import Stop

log = logging.getLogger(__name__)

_LOOK_S = 1.0


class Sender:
    """Delivers everything that is published in an outbox to one endpoint.

    Args:
        delivery: The endpoint.
        cursor: Its place in the outbox.
    """

    def __init__(self, delivery: Delivery, cursor: Cursor, outbox: Outbox, stop: Stop) -> None:
        self.delivery = delivery
        self.cursor = cursor
        self.error: Exception | None = None
        self._outbox = outbox
        self._stop = stop
        self._done = False
        # A daemon thread: an attempt that hangs must not keep the process from ending.
        self._thread = threading.Thread(
            target=self._run, name=f"send to {delivery.exporter.name}", daemon=True
        )

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Is it still at work?"""
        return self._thread.is_alive()

    def join(self) -> bool:
        """After the outbox was finished: wait until all is sent, or time is out.

        Returns:
            Was everything sent?
        """
        while self._thread.is_alive() and not self._stop.expired:
            self._thread.join(0.05)
        self._thread.join(0.5)
        return self._done

    def _run(self) -> None:
        try:
            self._deliver_all()
        except Exception as error:
            self.error = error
            log.exception("sending to %s ended by an error of ours", self.delivery.exporter.name)

    def _deliver_all(self) -> None:
        while not self._stop.expired:
            all_published = self._outbox.finished  # asked first: what was published before is sent
            item = self.cursor.next(_LOOK_S)
            if item is None:
                if all_published:
                    self._done = True
                    return
            elif self.delivery.deliver(item.body, item.spans, wanted=lambda: self.cursor.wanted):
                self.cursor.done()
            elif not self.cursor.wanted:
                self.cursor.abandon()
