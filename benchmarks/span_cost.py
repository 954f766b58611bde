# SPDX-License-Identifier: Apache-2.0
"""What one span costs, as ratios against the C limit and against OpenTelemetry's SDK, all in one run.

Each case runs in a process of its own, in turn, several times over; a case's figure is the median of all its bursts.
LTTng's cases are recorded by a private session daemon, in a session as the agent makes it. The run says how many
events LTTng had to discard, which makes spans cheaper than they are: it must be 0.

"Beside a busy thread": another thread of the process computes all the time. Bursts are then so short that they end
before Python makes a thread give way (after 5 ms): what is seen is what a span itself loses by giving up the GIL, and
not the other thread's fair share. The ratio is to bursts of the same length without that thread.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.cases import CASES, LIMIT, SDK, Work

ROOT = Path(__file__).resolve().parent.parent
LONG_SPANS = 10_000
SHORT_SPANS = 50
SHORT_BURSTS = 30
#: After a burst, in s: LTTng's consumer, or the SDK's thread, empties what was filled.
LONG_PAUSE_S = 0.05
SHORT_PAUSE_S = 0.002

Figures = dict[str, list[float]]


def burst(work: Work, spans: int, spans_a_call: int, pause_s: float) -> float:
    """Return ns per span."""
    calls = max(1, spans // spans_a_call)
    begin = time.perf_counter_ns()
    for _ in range(calls):
        work()
    elapsed = time.perf_counter_ns() - begin
    time.sleep(pause_s)
    return elapsed / (calls * spans_a_call)


def measure(name: str, rounds: int) -> Figures:
    """Measure one case in this process."""
    case = CASES[name]
    work = case.make()
    burst(work, 1000, case.spans, LONG_PAUSE_S)
    figures = {"long": [burst(work, LONG_SPANS, case.spans, LONG_PAUSE_S) for _ in range(rounds)]}
    if case.spans > SHORT_SPANS:
        return figures

    def short() -> list[float]:
        bursts = range(SHORT_BURSTS * rounds)
        return [burst(work, SHORT_SPANS, case.spans, SHORT_PAUSE_S) for _ in bursts]

    stop = threading.Event()

    def busy() -> None:
        number = 0
        while not stop.is_set():
            for _ in range(1000):
                number += 1

    figures["short"] = short()
    thread = threading.Thread(target=busy)
    thread.start()
    try:
        figures["busy"] = short()
    finally:
        stop.set()
        thread.join()
    return figures


def run(name: str, rounds: int, env: dict[str, str], limit: Path) -> Figures:
    """Measure one case in a process of its own."""
    if name == LIMIT:
        words = [str(limit), str(rounds), str(LONG_SPANS)]
    else:
        words = [
            sys.executable,
            "-m",
            "benchmarks.span_cost",
            "--child",
            name,
            "--rounds",
            str(rounds),
        ]
    done = subprocess.run(words, env=env, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    if name == LIMIT:
        return {"long": [float(line) for line in done.stdout.split()]}
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def build_limit(folder: Path) -> Path:
    """Compile the C loop against the provider that the Python cases load, too."""
    from k8s_tracing import _core

    provider = Path(_core.__file__).parent / "libk8s_tracing_lttng.so"
    binary = folder / "limit"
    words = ["cc", "-O2", f"-I{ROOT / '_native'}", str(ROOT / "benchmarks/limit.c"), str(provider)]
    subprocess.run([*words, f"-Wl,-rpath,{provider.parent}", "-o", str(binary)], check=True)
    return binary


def machine() -> dict[str, str]:
    """Say where this ran."""
    from k8s_tracing.agent.lttng import version

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "machine": f"{os.cpu_count()} x {models[0] if models else platform.machine()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "lttng": ".".join(map(str, version())),
        "load": f"{os.getloadavg()[0]:.1f} before the run",
    }


def table(figures: dict[str, Figures]) -> list[str]:
    """Return the figures as ratios."""
    cost = {name: statistics.median(each["long"]) for name, each in figures.items()}
    lines = [f"{'':38}{'ns/span':>9}{'/ C limit':>11}{'SDK /':>9}{'busy/alone':>12}"]
    for name, each in figures.items():
        row = f"{name:38}{cost[name]:9.0f}{cost[name] / cost[LIMIT]:10.2f}x{cost[SDK] / cost[name]:8.1f}x"
        if "busy" in each:
            row += f"{statistics.median(each['busy']) / statistics.median(each['short']):11.2f}x"
        lines.append(row)
    return lines


def record(names: list[str], turns: int, rounds: int) -> tuple[dict[str, Figures], int]:
    """Measure all cases; returns their figures, and how many events LTTng discarded."""
    from k8s_tracing.agent.daemon import PrivateDaemon
    from k8s_tracing.agent.session import Session

    figures: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="k8st-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        limit = build_limit(folder)
        with PrivateDaemon(folder) as daemon:
            session = Session("span-cost", daemon.directory / "lttng" / "trace", daemon.control)
            session.start()
            recorded = dict(os.environ) | daemon.env
            unrecorded = dict(os.environ) | {"LTTNG_HOME": str(folder / "nobody")}
            for turn in range(turns):
                for name in names:
                    print(f"\r{turn + 1}/{turns} {name:40}", end="", file=sys.stderr, flush=True)
                    env = recorded if name == LIMIT or CASES[name].recorded else unrecorded
                    for key, values in run(name, rounds, env, limit).items():
                        figures.setdefault(name, {}).setdefault(key, []).extend(values)
            print(f"\r{'':50}\r", end="", file=sys.stderr)
            answer = daemon.control.query("list", session.name)
            session.finish()
    discarded = [node.text for node in answer.iter() if node.tag.endswith("discarded_events")]
    return figures, sum(int(text or 0) for text in discarded)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="long bursts in each process")
    parser.add_argument("--turns", type=int, default=5, help="processes of each case")
    parser.add_argument(
        "--only", help="cases with this in their name, and what they are compared with"
    )
    parser.add_argument("--json", type=Path, help="write all figures, in ns per span, to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.child, args.rounds)))
        return

    names = [name for name in CASES if not args.only or name == SDK or args.only in name]
    missing = [n for n in names if CASES[n].extra and not importlib.util.find_spec(CASES[n].extra)]
    names = [LIMIT, *(name for name in names if name not in missing)]
    about = machine()
    figures, discarded = record(names, args.turns, args.rounds)
    for key, value in about.items():
        print(f"{key}: {value}")
    print(f"medians of {args.turns * args.rounds} bursts; events discarded by LTTng: {discarded}")
    for name in missing:
        print(f"not measured: {name}; pip install '.[bench]'")
    print("", *table(figures), sep="\n")
    if args.json:
        report = {"machine": about, "discarded_events": discarded, "ns_per_span": figures}
        args.json.write_text(json.dumps(report, indent=1))
    if discarded:
        sys.exit("LTTng discarded events: the figures above are too good. Let fewer programs run.")


if __name__ == "__main__":
    main()
