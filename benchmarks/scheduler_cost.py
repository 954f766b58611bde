# SPDX-License-Identifier: Apache-2.0
"""What `agent --cpu-split` costs: the threads that are followed, those that are not, and the agent. Needs root.

    python -m benchmarks.scheduler_cost [--rounds N]

Two processes on one CPU pass a byte to and fro: two switches and two wake-ups a turn, which is all that they do. Their
CPU time for a turn is taken while nobody listens to the scheduler, while somebody does and follows others, and while he
follows these two; in turn, several times over. For comparison, perf(1) records the same two tracepoints of the whole
machine, where it is installed. The reader's CPU time is divided by the events that it read.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from benchmarks.span_cost import machine
from k8s_tracing.dataplane.scheduler import Scheduler

TURNS = 10_000

ALONE, OTHERS, FOLLOWED, PERF = (
    "nobody listens",
    "others are followed",
    "these are followed",
    "perf record, whole machine",
)


class PingPong:
    """Two processes on one CPU that pass a byte."""

    def __init__(self) -> None:
        self._there, self._here = os.pipe(), os.pipe()
        self._orders, self._answers = os.pipe(), os.pipe()
        self.pids = [self._fork(self._answer), self._fork(self._ask)]

    def turn_us(self) -> float:
        """Pass it to and fro many times; the CPU time of both for one turn."""
        before_ns = self._used_ns()
        os.write(self._orders[1], b"g")
        os.read(self._answers[0], 1)
        return (self._used_ns() - before_ns) / 1e3 / TURNS

    def _used_ns(self) -> int:
        # clock_getcpuclockid(3): the clock of another process
        return sum(time.clock_gettime_ns(~pid << 3 | 2) for pid in self.pids)

    def close(self) -> None:
        for pid in self.pids:
            os.kill(pid, 9)
            os.waitpid(pid, 0)

    def _fork(self, run: Callable[[], None]) -> int:
        pid = os.fork()
        if pid:
            return pid
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        run()
        os._exit(0)

    def _answer(self) -> None:
        while True:
            os.write(self._here[1], os.read(self._there[0], 1))

    def _ask(self) -> None:
        while os.read(self._orders[0], 1):
            for _ in range(TURNS):
                os.write(self._there[1], b"x")
                os.read(self._here[0], 1)
            os.write(self._answers[1], b"d")


class Reader:
    """A scheduler that is read as the agent does, by a thread whose CPU time is taken."""

    def __init__(self, pids: list[int]) -> None:
        self.cpu_s = 0.0
        self.scheduler = Scheduler()
        self._pids = pids
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Reader:
        for pid in self._pids:
            self.scheduler.follow(pid)
        self.scheduler._lib.scheduler_start(self.scheduler._scheduler)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._thread.join()
        self.scheduler.read()
        self.stats = self.scheduler.stats
        self.scheduler.close()

    def _read(self) -> None:
        while not self._stopping.wait(0.04):
            before_s = time.thread_time()
            self.scheduler.read()
            self.cpu_s += time.thread_time() - before_s


@contextmanager
def perf(folder: Path) -> Iterator[None]:
    words = ["perf", "record", "--quiet", "--all-cpus", "--mmap-pages", "4096"]
    words += ["--event", "sched:sched_switch", "--event", "sched:sched_waking"]
    words += ["--output", str(folder / "perf.data")]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        time.sleep(1)
        yield
        process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    if os.geteuid() != 0:
        sys.exit("scheduler_cost: the kernel's scheduler is for root's eyes")
    pair = PingPong()
    others = PingPong()
    took: dict[str, list[float]] = {ALONE: [], OTHERS: [], FOLLOWED: [], PERF: []}
    read_ns = []
    lost = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for kind in took:
                if kind == PERF and not shutil.which("perf"):
                    continue
                print(f"\r{number + 1}/{rounds} {kind:40}", end="", file=sys.stderr, flush=True)
                with listening(kind, pair, others, Path(folder)) as reader:
                    took[kind].append(pair.turn_us())
                if kind == FOLLOWED and isinstance(reader, Reader):
                    read_ns.append(reader.cpu_s * 1e9 / reader.stats.events)
                    lost += reader.stats.lost
        print("\r", " " * 60, "\r", end="", file=sys.stderr)
    pair.close()
    others.close()
    print(machine())
    print(f"medians of {rounds} rounds; a turn is 2 switches and 2 wake-ups\n")
    print(f"{'':30}{'CPU us':>9}{'more':>9}{'ns/event':>10}")
    alone_us = statistics.median(took[ALONE])
    for kind, each in took.items():
        if not each:
            print(f"{kind:30}{'not installed':>19}")
            continue
        more = [one - before for one, before in zip(each, took[ALONE], strict=True)]
        more_us = statistics.median(more)
        line = f"{kind:30}{statistics.median(each):9.2f}{more_us / alone_us:9.1%}"
        print(line + ("" if kind == ALONE else f"{more_us * 1000 / 4:10.0f}"))
    print(
        f"\nreading: {statistics.median(read_ns):.0f} ns of CPU an event; times events were lost: {lost}"
    )


def listening(
    kind: str, pair: PingPong, others: PingPong, folder: Path
) -> AbstractContextManager[object]:
    """Who listens meanwhile."""
    if kind == PERF:
        return perf(folder)
    if kind == ALONE:
        return nullcontext()
    return Reader((pair if kind == FOLLOWED else others).pids)


if __name__ == "__main__":
    main()
