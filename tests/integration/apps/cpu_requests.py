"""Requests on threads, and on an event loop; prints what their threads used as JSON. Ends when its input does.

    cpu_requests.py THREADS REQUESTS CPU_S

On each thread: a span "request" with a span "inner" that takes half of the CPU time, both CPU_S in all. On the event
loop: "alone" one after the other, then "together" two at a time.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time

import k8s_tracing
from tests.integration.apps.cpu_work import burn


def requests(count: int, cpu_s: float, told: dict[str, int]) -> None:
    """On this thread."""
    for _ in range(count):
        before_ns = time.thread_time_ns()
        with k8s_tracing.span("request") as span:
            burn(cpu_s / 2)
            with k8s_tracing.span("inner"):
                burn(cpu_s / 2)
            time.sleep(0.005)
        told[f"{span.get_span_context().span_id:016x}"] = time.thread_time_ns() - before_ns


async def request(name: str) -> None:
    """On the event loop, which others have as well meanwhile."""
    with k8s_tracing.span(name):
        burn(0.005)
        await asyncio.sleep(0.01)
        burn(0.005)


async def loop() -> None:
    """Requests that have the loop for themselves, and requests that share it."""
    for _ in range(3):
        await request("alone")
    for _ in range(3):
        await asyncio.gather(request("together"), request("together"))


def main(threads: int, count: int, cpu_s: float) -> None:
    """Do it."""
    k8s_tracing.init("cpu-requests", backend="lttng")
    with k8s_tracing.span("hello"):
        pass
    print("ready", flush=True)
    sys.stdin.readline()
    told: dict[str, int] = {}
    work = [threading.Thread(target=requests, args=(count, cpu_s, told)) for _ in range(threads)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    asyncio.run(loop())
    print(json.dumps(told), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
