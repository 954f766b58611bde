"""Waiting for something that another process does."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(
    what: str,
    condition: Callable[[], T | None],
    timeout_s: float = 10.0,
    interval_s: float = 0.02,
) -> T:
    """Call `condition` until its result is true, and return that result.

    Args:
        what: what is waited for, as it should stand in the failure's message.
        condition: called again and again; an exception from it is not caught.
        timeout_s: seconds to wait at most.
        interval_s: seconds between two calls.

    Raises:
        TimeoutError: it never was true within `timeout_s`; the message ends with the last result.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= deadline:
            raise TimeoutError(
                f"{what}: not within {timeout_s:g} s; the last answer was {result!r}"
            )
        time.sleep(interval_s)
