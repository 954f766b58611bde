# SPDX-License-Identifier: Apache-2.0
"""What one live span takes in memory, against OpenTelemetry's SDK: allocations that Python makes, by tracemalloc.

Each figure is from a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from opentelemetry import trace

from benchmarks.cases import ATTRIBUTES, NAME

LIVE = 10_000


def ours() -> trace.Tracer:
    import k8s_tracing

    k8s_tracing.init("benchmark", backend="memory")
    return trace.get_tracer_provider().get_tracer("benchmark")


def sdk() -> trace.Tracer:
    from opentelemetry.sdk.trace import TracerProvider

    return TracerProvider().get_tracer("benchmark")


TRACERS: dict[str, Callable[[], trace.Tracer]] = {"ours": ours, "OpenTelemetry SDK": sdk}


def bytes_a_span(tracer: trace.Tracer, attributes: dict[str, object] | None) -> float:
    """Return the bytes that a started span with these attributes keeps."""
    tracer.start_span(NAME, attributes=attributes).end()  # type: ignore[arg-type]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    spans = [tracer.start_span(NAME, attributes=attributes) for _ in range(LIVE)]  # type: ignore[arg-type]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before - sys.getsizeof(spans)) / LIVE


def main() -> None:
    if len(sys.argv) > 1:
        attributes = dict(ATTRIBUTES) if sys.argv[2] == "4 attributes" else None
        print(bytes_a_span(TRACERS[sys.argv[1]](), attributes))
        return
    print(f"{'bytes per live span':24}{'ours':>9}{'SDK':>9}{'SDK / ours':>12}")
    for kind in ("bare", "4 attributes"):
        found = []
        for name in TRACERS:
            words = [sys.executable, "-m", "benchmarks.span_memory", name, kind]
            root = Path(__file__).parent.parent
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, cwd=root)
            found.append(float(done.stdout))
        print(f"{kind:24}{found[0]:9.0f}{found[1]:9.0f}{found[1] / found[0]:11.1f}x")


if __name__ == "__main__":
    main()
