# SPDX-License-Identifier: Apache-2.0
"""CPU time for each span that arrives in Jaeger: ours, and OpenTelemetry's SDK with its OTLP/gRPC exporter.

Both send to the same real Jaeger, from an application of its own process, in turn, several times over: spans with 4
attributes at a steady pace, and a burst. A figure is the CPU time of all threads of the application, from its first
span until all is flushed, less what the same program takes that makes no spans at that pace, for each span that Jaeger
then has. So what is lost makes the others dearer. Spans are in traces of so many that all of them can be counted.

With ours, the agent and LTTng's daemons work as well. Their CPU time is measured over the same turn, up to the moment
that Jaeger has all spans, in ticks of the kernel (10 ms); "less idle" is less what they take in as long without a span.

"SDK /" is against the SDK at the same pace, and where it was not measured at that pace, at the lower one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.pipeline import RunningAgent, environment, paced, running_agent, start_child
from tests.support.jaeger import Jaeger
from tests.support.wait import wait_for

MODULE = "benchmarks.process_cpu"
TRACE_SPANS = 100
TICK_S = 0.05
IDLE_S = 10.0
#: How long to wait for spans that did not arrive.
GIVE_UP_S = 10.0

OURS, SDK, NOTHING = "ours", "OpenTelemetry SDK + OTLP/gRPC", "no spans"
BURST = 0


@dataclass
class Turn:
    """What one application did: its CPU time, its traces, and for ours the daemons' CPU time and how long it took."""

    made: int
    cpu_s: float
    traces: list[str]
    arrived: int = 0
    daemons_s: dict[str, float] = field(default_factory=dict)
    took_s: float = 0.0


def tracer(library: str, endpoint: str) -> tuple[Callable[..., Any], Callable[[], object]]:
    """Return what starts a span and what flushes all."""
    if library == OURS:
        import k8s_tracing

        k8s_tracing.init("application", backend="lttng")
        return k8s_tracing.span, k8s_tracing.shutdown
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "application"}))
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=True)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    start = provider.get_tracer("benchmark").start_as_current_span
    return lambda name, values: start(name, attributes=values), provider.shutdown


def application(library: str, endpoint: str, rate: int, amount: float) -> Turn:
    """Make spans in this process: for so many seconds, or so many in a burst."""
    from benchmarks.cases import ATTRIBUTES, NAME

    traces: list[str] = []
    span: Callable[..., Any] | None
    flush: Callable[[], object]
    span, flush = tracer(library, endpoint) if library != NOTHING else (None, time.time)

    def work(count: int) -> None:
        if span is not None:
            for _ in range(count):
                with span(NAME, ATTRIBUTES) as root:
                    for _ in range(TRACE_SPANS - 1):
                        with span(NAME, ATTRIBUTES):
                            pass
                traces.append(f"{root.get_span_context().trace_id:032x}")

    work(1)  # what is done once
    traces.clear()
    begin_s = time.process_time()
    if rate == BURST:
        made = int(amount) // TRACE_SPANS
        work(made)
    else:
        end = time.monotonic() + amount
        made = paced(work, rate / TRACE_SPANS, lambda: time.monotonic() >= end, TICK_S)
    flush()
    return Turn(made * TRACE_SPANS, time.process_time() - begin_s, traces)


def run(library: str, rate: int, amount: float, jaeger: Jaeger, agent: RunningAgent) -> Turn:
    """Run an application, and count what arrives."""
    before = agent.cpu_s()
    begin = time.monotonic()
    words = [library, jaeger.otlp_grpc_endpoint, str(rate), str(amount)]
    with start_child(MODULE, words, agent.env if library == OURS else environment()) as child:
        turn = Turn(**json.loads(child.communicate()[0]))
    missing = dict.fromkeys(turn.traces, 0)

    def all_there() -> bool:
        for trace_id in list(missing):
            missing[trace_id] = len(jaeger.query.trace(trace_id))
            if missing[trace_id] < TRACE_SPANS:
                return False
            turn.arrived += missing.pop(trace_id)
        return True

    with suppress(TimeoutError):
        wait_for("spans", all_there, GIVE_UP_S, interval_s=0.1)
    after = agent.cpu_s()
    turn.took_s = time.monotonic() - begin
    turn.daemons_s = {name: after[name] - before[name] for name in before}
    turn.arrived += sum(len(jaeger.query.trace(trace_id)) for trace_id in missing)
    return turn


def table(turns: dict[tuple[str, int], list[Turn]], idle: dict[str, float]) -> list[str]:
    """Return the figures, in microseconds for each span that arrived, and ratios to the SDK's."""

    def a_span(each: list[Turn], cpu_s: Callable[[Turn], float]) -> float:
        return statistics.median(cpu_s(turn) / max(1, turn.arrived) * 1e6 for turn in each)

    own: dict[tuple[str, int], float] = {}
    for (library, rate), each in turns.items():
        if library != NOTHING:
            paces = [turn.cpu_s for turn in turns[NOTHING, rate]] if rate else [0.0]
            pace_s = statistics.median(paces)
            own[library, rate] = a_span(each, lambda turn, pace_s=pace_s: turn.cpu_s - pace_s)  # type: ignore[misc]
    paced_sdk = next(value for (library, rate), value in own.items() if library == SDK and rate)

    rows = [f"{'application, us/span':48}{'made':>8}{'arrived':>9}{'us':>9}{'SDK /':>8}"]
    names = "".join(f"{name:>17}" for name in idle)
    more = ["", f"{'beside ours, us/span':36}{names}{'with ours':>11}{'SDK /':>8}"]
    for (library, rate), cost in own.items():
        each = turns[library, rate]
        sdk = own.get((SDK, rate), paced_sdk)
        label = f"{library}, {f'{rate:,} spans/s' if rate else 'burst'}"
        made, arrived = sum(turn.made for turn in each), sum(turn.arrived for turn in each)
        rows.append(f"{label:48}{made:8}{arrived:9}{cost:9.2f}{sdk / cost:7.1f}x")
        for less, part in (("", 0.0), (", less idle", 1.0)) if library == OURS else ():
            rest = [
                a_span(each, lambda t, n=name, p=part: t.daemons_s[n] - p * t.took_s * idle[n])  # type: ignore[misc]
                for name in idle
            ]
            whole = cost + sum(rest)
            figures = "".join(f"{value:17.2f}" for value in rest)
            more.append(f"{label + less:36}{figures}{whole:11.2f}{sdk / whole:7.1f}x")
    return rows + more


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rate", type=int, default=2_000, help="spans/s of both")
    parser.add_argument("--high-rate", type=int, default=20_000, help="spans/s, ours only")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each turn")
    parser.add_argument("--burst", type=int, default=10_000, help="spans in a burst")
    parser.add_argument("--turns", type=int, default=3, help="applications of each kind")
    parser.add_argument("--json", type=Path, help="write all figures, in s of CPU, to this file")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        library, endpoint, rate, amount = args.child
        print(json.dumps(asdict(application(library, endpoint, int(rate), float(amount)))))
        return

    from benchmarks.span_cost import machine

    about = machine()
    cases = [(library, args.rate) for library in (NOTHING, OURS, SDK)]
    cases += [(NOTHING, args.high_rate), (OURS, args.high_rate), (OURS, BURST), (SDK, BURST)]
    turns: dict[tuple[str, int], list[Turn]] = {}
    with Jaeger() as jaeger, running_agent(jaeger) as agent:
        before = agent.cpu_s()
        time.sleep(IDLE_S)
        idle = {name: (now - before[name]) / IDLE_S for name, now in agent.cpu_s().items()}
        for number in range(args.turns):
            for library, rate in cases:
                show = f"{number + 1}/{args.turns} {library}, {rate or 'burst'}"
                print(f"\r{show:60}", end="", file=sys.stderr, flush=True)
                amount = args.seconds if rate else args.burst
                done = run(library, rate, amount, jaeger, agent)
                turns.setdefault((library, rate), []).append(done)
        discarded = agent.discarded()
    print(f"\r{'':60}\r", end="", file=sys.stderr)
    for key, value in about.items():
        print(f"{key}: {value}")
    print(
        f"medians of {args.turns} turns, made and arrived in all of them; turns of {args.seconds:g} s"
    )
    used = ", ".join(f"{name} {1000 * value:.1f}" for name, value in idle.items())
    print(f"idle, ms of CPU a second: {used}; events discarded by LTTng: {discarded}")
    print("", *table(turns, idle), "", sep="\n")
    print(*(f"agent: {line}" for line in agent.summary()), sep="\n")
    if args.json:
        figures = {
            f"{library}, {rate or 'burst'}": [asdict(t) for t in each]
            for (library, rate), each in turns.items()
        }
        args.json.write_text(
            json.dumps({"machine": about, "idle": idle, "turns": figures}, indent=1)
        )


if __name__ == "__main__":
    main()
