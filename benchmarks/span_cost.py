"""What one span costs, as ratios against the C limit and against OpenTelemetry's SDK, all in one run.

Each case runs in a process of its own, in turn, several times over; a case's figure is the median of all its rounds.
LTTng cases are recorded by a private session daemon into a session as the agent makes it; the table says how many
events it had to discard, which makes spans cheaper than they are and must be 0.

"Beside a busy thread" means that another thread of the process computes all the time. The burst of spans is then
shorter than the 5 ms after which Python makes a thread give way, so what is seen is what a span itself loses by giving
up the GIL, not the fair share of the other thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ATTRIBUTES = {
    "http.request.method": "GET",
    "url.path": "/dispatch",
    "http.response.status_code": 200,
    "hotrod.eta_s": 1.5,
}
ALONE_SPANS = 10_000
BUSY_SPANS = 50

Case = Callable[[], None]


def ours(kind: str) -> Case:
    from opentelemetry import trace

    import k8s_tracing

    k8s_tracing.init("benchmark", backend="lttng")
    span = k8s_tracing.span
    tracer = trace.get_tracer("benchmark")

    def bare() -> None:
        with span("GET /dispatch"):
            pass

    def attributes() -> None:
        with span("GET /dispatch", ATTRIBUTES):
            pass

    def api() -> None:
        with tracer.start_as_current_span("GET /dispatch"):
            pass

    return {"bare": bare, "attributes": attributes, "api": api}[kind]


def sdk(kind: str) -> Case:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )

    class NullExporter(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    assert ReadableSpan
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(NullExporter()))
    tracer = provider.get_tracer("benchmark")

    def bare() -> None:
        with tracer.start_as_current_span("GET /dispatch"):
            pass

    def attributes() -> None:
        with tracer.start_as_current_span("GET /dispatch", attributes=ATTRIBUTES):
            pass

    return {"bare": bare, "attributes": attributes}[kind]


def no_op(kind: str) -> Case:
    from opentelemetry import trace

    tracer = trace.NoOpTracer()

    def bare() -> None:
        with tracer.start_as_current_span("GET /dispatch"):
            pass

    return bare


CASES = {
    "ours, bare": (ours, "bare"),
    "ours, 4 attributes": (ours, "attributes"),
    "ours, through the OpenTelemetry API": (ours, "api"),
    "ours, no session records": (ours, "bare"),
    "OpenTelemetry SDK, null exporter": (sdk, "bare"),
    "OpenTelemetry SDK, 4 attributes": (sdk, "attributes"),
    "OpenTelemetry API, no-op": (no_op, "bare"),
}
LIMIT = "C limit"


def measure(case: Case, spans: int, pause_s: float) -> float:
    """Return ns per span of one burst."""
    begin = time.perf_counter_ns()
    for _ in range(spans):
        case()
    elapsed = time.perf_counter_ns() - begin
    time.sleep(pause_s)  # LTTng's consumer, or the SDK's thread, empties what was filled
    return elapsed / spans


def child(name: str, rounds: int) -> None:
    """Measure one case in this process and print its figures as JSON."""
    make, kind = CASES[name]
    case = make(kind)
    measure(case, 1000, 0.05)
    alone = [measure(case, ALONE_SPANS, 0.05) for _ in range(rounds)]
    stop = threading.Event()

    def busy() -> None:
        number = 0
        while not stop.is_set():
            for _ in range(1000):
                number += 1

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        beside = [measure(case, BUSY_SPANS, 0.001) for _ in range(20 * rounds)]
    finally:
        stop.set()
        thread.join()
    print(json.dumps({"alone": alone, "beside": beside}))


def run_case(name: str, rounds: int, env: dict[str, str], limit: Path) -> dict[str, list[float]]:
    if name == LIMIT:
        words = [str(limit), str(rounds), str(ALONE_SPANS)]
    else:
        words = [sys.executable, __file__, "--child", name, "--rounds", str(rounds)]
    done = subprocess.run(words, env=env, stdout=subprocess.PIPE, text=True, check=True)
    if name == LIMIT:
        return {"alone": [float(line) for line in done.stdout.split()], "beside": []}
    figures: dict[str, list[float]] = json.loads(done.stdout)
    return figures


def build_limit(folder: Path) -> Path:
    from k8s_tracing import _core

    provider = Path(_core.__file__).parent / "libk8s_tracing_lttng.so"
    binary = folder / "limit"
    subprocess.run(
        ["cc", "-O2", f"-I{ROOT / '_native'}", str(ROOT / "benchmarks/limit.c"), str(provider)]
        + [f"-Wl,-rpath,{provider.parent}", "-o", str(binary)],
        check=True,
    )
    return binary


def machine() -> dict[str, str]:
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")),
        platform.machine(),
    )  # fmt: skip
    lttng = subprocess.run(["lttng", "--version"], capture_output=True, text=True, check=True)
    return {
        "cpu": f"{os.cpu_count()} x {cpu}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "lttng": lttng.stdout.split()[2],
        "load": f"{os.getloadavg()[0]:.1f} before the run",
    }


def discarded_events(control: object, session: str) -> int:
    """Return how many events LTTng dropped because a buffer was full."""
    from k8s_tracing.agent.lttng import Control

    assert isinstance(control, Control)
    answer = control.query("list", session)
    return sum(
        int(node.text or 0) for node in answer.iter() if node.tag.endswith("discarded_events")
    )


def table(figures: dict[str, dict[str, list[float]]]) -> list[str]:
    alone = {name: statistics.median(case["alone"]) for name, case in figures.items()}
    limit, reference = alone[LIMIT], alone["OpenTelemetry SDK, null exporter"]
    lines = [
        f"{'':38}{'ns/span':>9}{'/ C limit':>11}{'SDK /':>9}{'busy thread':>13}{'busy/alone':>12}",
    ]
    for name, case in figures.items():
        row = f"{name:38}{alone[name]:9.0f}{alone[name] / limit:10.2f}x{reference / alone[name]:8.1f}x"
        if case["beside"]:
            beside = statistics.median(case["beside"])
            row += f"{beside:13.0f}{beside / alone[name]:11.2f}x"
        lines.append(row)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="bursts in each process")
    parser.add_argument("--turns", type=int, default=5, help="processes of each case")
    parser.add_argument("--json", type=Path, help="write all figures, in ns per span, to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.rounds)
        return

    from k8s_tracing.agent.daemon import PrivateDaemon
    from k8s_tracing.agent.session import Session

    about = machine()
    figures: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="k8st-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        limit = build_limit(folder)
        with PrivateDaemon(folder) as daemon:
            session = Session("span-cost", daemon.directory / "lttng" / "trace", daemon.control)
            session.start()
            recorded = dict(os.environ) | daemon.env
            unrecorded = dict(os.environ) | {"LTTNG_HOME": str(folder / "nobody")}
            for turn in range(args.turns):
                for case in (LIMIT, *CASES):
                    print(f"\rturn {turn + 1}/{args.turns}: {case:40}", end="", file=sys.stderr)
                    env = unrecorded if case == "ours, no session records" else recorded
                    got = run_case(case, args.rounds, env, limit)
                    kept = figures.setdefault(case, {"alone": [], "beside": []})
                    for key, values in got.items():
                        kept[key] += values
            print(f"\r{'':60}\r", end="", file=sys.stderr)
            discarded = discarded_events(daemon.control, session.name)
            session.finish()
    print(*(f"{key}: {value}" for key, value in about.items()), sep="\n")
    print(f"events discarded by LTTng: {discarded}")
    print(f"medians of {args.turns * args.rounds} bursts\n")
    print(*table(figures), sep="\n")
    if args.json:
        args.json.write_text(json.dumps({"machine": about, "ns_per_span": figures}, indent=1))


if __name__ == "__main__":
    main()
