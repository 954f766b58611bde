# SPDX-License-Identifier: Apache-2.0
"""The lock's order, and what it tells the span."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hotrod.lock import QueueLock

import k8s_tracing


class RecordingSpan:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def add_event(self, name: str, attributes: dict[str, Any]) -> None:
        self.events.append((name, attributes))


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> dict[str, RecordingSpan]:
    """A span for each thread, by the thread's name."""
    recorded: dict[str, RecordingSpan] = {}
    monkeypatch.setattr(
        k8s_tracing,
        "current_span",
        lambda: recorded.setdefault(threading.current_thread().name, RecordingSpan()),
    )
    return recorded


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_nobody_before_nobody_behind(spans: dict[str, RecordingSpan]) -> None:
    with QueueLock().held_by("1"):
        pass
    events = spans[threading.current_thread().name].events
    assert events == [("Acquired lock; 0 transactions waiting behind", {"waiters": []})]


def test_first_come_first_served(spans: dict[str, RecordingSpan]) -> None:
    lock, order = QueueLock(), []

    def work(name: str) -> None:
        with lock.held_by(name):
            order.append(name)

    threads = []
    with lock.held_by("0"):
        for number in range(1, 4):
            thread = threading.Thread(target=work, args=[str(number)], name=str(number))
            thread.start()
            threads.append(thread)
            wait_until(lambda: len(lock._queue) == number + 1)  # noqa: B023 - awaited at once
    for thread in threads:
        thread.join()

    assert order == ["1", "2", "3"]
    assert spans["2"].events == [
        ("Waiting for lock behind 2 transactions", {"blockers": ["0", "1"]}),
        ("Acquired lock; 1 transactions waiting behind", {"waiters": ["3"]}),
    ]
    assert spans["3"].events[-1][0] == "Acquired lock; 0 transactions waiting behind"


def test_one_at_a_time(spans: dict[str, RecordingSpan]) -> None:
    lock, inside, most = QueueLock(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with lock.held_by("same name"):
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_an_error_inside_frees_the_lock(spans: dict[str, RecordingSpan]) -> None:
    lock = QueueLock()
    with pytest.raises(ValueError, match="inside"), lock.held_by("1"):
        raise ValueError("inside")
    with lock.held_by("2"):
        pass


def test_a_wait_that_is_broken_off_leaves_the_queue(
    spans: dict[str, RecordingSpan], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = QueueLock()

    def break_off(condition: Callable[[], bool]) -> None:
        raise KeyboardInterrupt

    with lock.held_by("1"):
        with monkeypatch.context() as patch:
            patch.setattr(lock._changed, "wait_for", break_off)
            with pytest.raises(KeyboardInterrupt), lock.held_by("2"):
                pass
        assert [ticket.name for ticket in lock._queue] == ["1"]
    with lock.held_by("3"):
        pass
