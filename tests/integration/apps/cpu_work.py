"""Work within spans, in a cgroup with a quota or not; prints the spans' records and the kernel's figures as JSON.

    cpu_work.py CGROUP|- CPU_S SPANS

Each span needs CPU_S seconds of CPU. It ends when its input does. The backend is what K8S_TRACING_BACKEND says.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import k8s_tracing
from k8s_tracing.cgroup import read_cpu_stat
from k8s_tracing.provider import make_provider
from k8s_tracing.settings import from_environment
from k8s_tracing.testing import using


def main(cgroup: str, cpu_s: float, spans: int) -> None:
    """Do it."""
    folder = None
    if cgroup != "-":
        folder = Path(cgroup)
        # version 1 counts the usage elsewhere, where the two controllers are not mounted together
        for each in {folder, Path(str(folder).replace("/cpu/", "/cpuacct/"))}:
            (each / "cgroup.procs").write_text(str(os.getpid()))
    provider = make_provider(from_environment(), "cpu-work")
    told = []
    with using(provider):
        for number in range(spans):
            begin_ns = time.monotonic_ns()
            before = kernel(folder)
            with k8s_tracing.span(f"work {number}"):
                burn(cpu_s)
            after = kernel(folder)
            passed = {key: value - before[key] for key, value in after.items()}
            told.append(passed | {"wall_ns": time.monotonic_ns() - begin_ns})
    records = getattr(provider.backend, "records", [])
    spans_told = [
        {
            "name": record.name,
            "duration_ns": record.end_time_ns - record.start_time_ns,
            "attributes": record.attributes,
        }
        for record in records
    ]
    print(json.dumps({"spans": spans_told, "kernel": told, "pid": os.getpid()}), flush=True)
    sys.stdin.read()


def burn(cpu_s: float) -> None:
    """Use so much CPU time."""
    end_ns = time.thread_time_ns() + int(cpu_s * 1e9)
    while time.thread_time_ns() < end_ns:
        pass


def kernel(folder: Path | None) -> dict[str, int]:
    """What the kernel says of this thread and its cgroup, in ns."""
    delay = int(Path("/proc/thread-self/schedstat").read_text().split()[1])
    stat = read_cpu_stat(folder) if folder else None
    return {
        "running_ns": time.thread_time_ns(),
        "delay_ns": delay,
        "throttled_ns": (stat and stat.throttled_ns) or 0,
    }


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
