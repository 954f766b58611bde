"""A request to stop wakes up who waits, and leaves the time that is given."""

import os
import signal
import threading
import time

from k8s_tracing.agent.stopping import Stop


def test_nobody_asked(stop: Stop) -> None:
    assert not stop.requested
    assert not stop.expired
    assert stop.within(5.0) == 5.0


def test_time_is_unlimited_until_it_is_given(stop: Stop) -> None:
    stop.request()
    assert stop.requested
    assert not stop.expired
    stop.allow(60.0)
    assert not stop.expired
    assert 0 < stop.within(100.0) <= 60.0
    stop.allow(0.0)
    assert stop.expired


def test_a_second_request_ends_it(stop: Stop) -> None:
    stop.request()
    stop.allow(60.0)
    stop.request()
    assert stop.expired
    assert stop.within(1.0) == 0.0


def test_a_request_from_another_thread_wakes_up(stop: Stop) -> None:
    timer = threading.Timer(0.05, stop.request)
    timer.start()
    start = time.monotonic()
    stop.wait(60.0)
    timer.join()
    assert time.monotonic() - start < 30


def test_a_request_from_a_signal_handler_wakes_up(stop: Stop) -> None:
    before = signal.signal(signal.SIGUSR1, lambda number, frame: stop.request())
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    try:
        timer.start()
        start = time.monotonic()
        stop.wait(60.0)
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert stop.requested
    assert time.monotonic() - start < 30


def test_a_request_wakes_up_all_who_wait(stop: Stop) -> None:
    threads = [threading.Thread(target=stop.wait, args=(60.0,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    start = time.monotonic()
    stop.request()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start < 30


def test_who_waits_for_a_receiver_learns_how_much_time_is_left(stop: Stop) -> None:
    stop.request()
    thread = threading.Thread(target=stop.wait, args=(60.0,))
    thread.start()
    start = time.monotonic()
    stop.allow(0.1)
    thread.join()
    assert time.monotonic() - start < 30


def test_a_second_request_wakes_up(stop: Stop) -> None:
    stop.request()
    thread = threading.Thread(target=stop.wait, args=(60.0,))
    thread.start()
    start = time.monotonic()
    stop.request()
    thread.join()
    assert time.monotonic() - start < 30
