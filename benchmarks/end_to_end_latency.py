# SPDX-License-Identifier: Apache-2.0
"""From the end of a span to the moment that Jaeger's query API shows it, under load.

A real Jaeger and an agent with a session daemon of its own run on this machine, and so does everything else: the
background load is one process that makes spans with 4 attributes through the library, in traces of 10; another makes
the probes, each a span with a trace id of its own, at random times, and asks `/api/v3/traces/{id}` for it until it is
there. Jaeger's storage is in memory. What is measured includes the way of the answer and up to one interval of asking.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import random
import statistics
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.pipeline import RunningAgent, paced, running_agent, start_child
from tests.support.jaeger import Jaeger

MODULE = "benchmarks.end_to_end_latency"
RATES = (1_000, 20_000)
PROBES = 120
POLL_S = 0.01
#: Between two probes, on average; no multiple of the agent's rotation, and at random, so that they fall anywhere in it.
GAP_S = 0.35
#: Load without probes at the start.
WARM_UP_S = 3.0
GIVE_UP_S = 20.0
TRACE_SPANS = 10
TICK_S = 0.01


def load(rate: float) -> None:
    """Make spans until somebody says a line on standard input; print how many."""
    import k8s_tracing
    from benchmarks.cases import ATTRIBUTES, NAME

    k8s_tracing.init("load", backend="lttng")
    told = threading.Event()

    def listen() -> None:
        sys.stdin.readline()
        told.set()

    threading.Thread(target=listen, daemon=True).start()

    def work(traces: int) -> None:
        for _ in range(traces):
            with k8s_tracing.span(NAME, ATTRIBUTES):  # type: ignore[arg-type]
                for _ in range(TRACE_SPANS - 1):
                    with k8s_tracing.span(NAME, ATTRIBUTES):  # type: ignore[arg-type]
                        pass

    begin = time.monotonic()
    made = TRACE_SPANS * paced(work, rate / TRACE_SPANS, told.is_set, TICK_S)
    print(json.dumps({"made": made, "seconds": time.monotonic() - begin}))


def probe(url: str, count: int) -> None:
    """Make probes and wait for them; print how long each took, None for one that did not come."""
    import k8s_tracing

    k8s_tracing.init("probe", backend="lttng")
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=GIVE_UP_S)

    def is_there(trace_id: str) -> bool:
        connection.request("GET", f"/api/v3/traces/{trace_id}")
        answer = connection.getresponse()
        body = answer.read()
        if answer.status not in (200, 404):
            raise RuntimeError(f"Jaeger answered {answer.status}: {body!r}")
        return answer.status == 200 and b'"probe"' in body

    waiting: dict[str, float] = {}
    took: list[float | None] = []
    made = 0
    due = time.monotonic()
    while made < count or waiting:
        round_s = time.monotonic()
        if made < count and round_s >= due:
            with k8s_tracing.span("probe") as span:
                trace_id = f"{span.get_span_context().trace_id:032x}"
            waiting[trace_id] = time.monotonic()
            made += 1
            due = round_s + random.uniform(0.5, 1.5) * GAP_S
        for trace_id, ended in list(waiting.items()):
            found = is_there(trace_id)
            now = time.monotonic()
            if found or now - ended > GIVE_UP_S:
                took.append(now - ended if found else None)
                del waiting[trace_id]
        time.sleep(max(0.0, POLL_S - (time.monotonic() - round_s)))
    print(json.dumps(took))


def measure(rate: int, count: int) -> tuple[list[float | None], int, float, int, RunningAgent]:
    """Run everything at one rate.

    Returns:
        The probes' times, the load's spans and its real rate, events that LTTng discarded, and the agent, which has
        ended.
    """
    with Jaeger() as jaeger, running_agent(jaeger) as agent:
        words = ["probe", jaeger.query.base_url, str(count)]
        with start_child(MODULE, ["load", str(rate)], agent.env) as background:
            try:
                time.sleep(WARM_UP_S)
                with start_child(MODULE, words, agent.env) as prober:
                    took = json.loads(prober.communicate()[0])
                done = json.loads(background.communicate("enough\n", timeout=GIVE_UP_S)[0])
            finally:
                background.kill()
        discarded = agent.discarded()
    return took, done["made"], done["made"] / done["seconds"], discarded, agent


def percentile(values: list[float], part: float) -> float:
    """Return the value that this part of the values does not exceed."""
    return sorted(values)[math.ceil(part * len(values)) - 1]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rates", type=int, nargs="+", default=RATES, help="spans/s of the load")
    parser.add_argument("--probes", type=int, default=PROBES, help="spans measured at each rate")
    parser.add_argument("--json", type=Path, help="write all figures, in s, to this file")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        if args.child[0] == "load":
            load(float(args.child[1]))
        else:
            probe(args.child[1], int(args.child[2]))
        return

    from benchmarks.span_cost import machine

    report: dict[str, object] = {"machine": machine()}
    for key, value in machine().items():
        print(f"{key}: {value}")
    print(
        f"{args.probes} probes a rate, asked for every {1000 * POLL_S:.0f} ms; seconds",
        "",
        sep="\n",
    )
    print(f"{'spans/s':>9}{'really':>9}{'min':>8}{'p50':>8}{'p99':>8}{'max':>8}{'never':>7}")
    notes = []
    for rate in args.rates:
        took, made, real, discarded, agent = measure(rate, args.probes)
        came = [each for each in took if each is not None]
        never = len(took) - len(came)
        figures = [f"{each:8.2f}" for each in (min(came), statistics.median(came))]
        figures += [f"{each:8.2f}" for each in (percentile(came, 0.99), max(came))]
        print(f"{rate:9,}{real:9,.0f}{''.join(figures)}{never:7}", flush=True)
        notes += [
            "",
            f"at {rate:,} spans/s: {made + len(took)} spans made, {discarded} events discarded by LTTng",
        ]
        notes += [f"  agent: {line}" for line in agent.summary()]
        report[str(rate)] = {"made": made, "rate": real, "discarded_events": discarded, "s": took}
    print(*notes, sep="\n")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
