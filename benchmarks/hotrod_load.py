# SPDX-License-Identifier: Apache-2.0
"""HotROD under load, with and without tracing: requests per second, p50 and p99, as ratios to "off" in one run.

Five times the same four services, all running side by side and loaded in turn, several rounds over, by wrk with
examples/hotrod/load.lua. All of HotROD's delays are zero, so that the processors are the limit: Redis, agent, LTTng's
daemons, a real Jaeger and wrk itself are on the same machine and take their part of it.

  off           no instrumentation installed, no middleware, backend noop
  noop          HotROD as it is, backend noop: trace contexts are passed on, nothing is recorded
  LTTng         HotROD as it is, recorded by LTTng; the agent sends to Jaeger
  fallback      HotROD as it is, on OpenTelemetry's SDK with OTLP/HTTP to Jaeger
  OpenTelemetry OpenTelemetry's SDK with OTLP/HTTP to Jaeger, and none but its own instrumentations

"CPU" is that of the four services alone, for each request: it says more than requests per second where other programs
use the machine as well. A ratio is that of one round to "off" in the same round; given are its median, and in brackets
the lowest and the highest of all rounds.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HOTROD = ROOT / "examples" / "hotrod"
sys.path.insert(0, str(HOTROD))

OFF, NOOP, LTTNG, FALLBACK, SDK = "off", "noop", "LTTng", "fallback", "OpenTelemetry"
VARIANTS = (OFF, NOOP, LTTNG, FALLBACK, SDK)
NO_DELAYS = (
    "--fix-db-query-delay=0s",
    "--fix-disable-db-conn-mutex=yes",
    "--fix-route-worker-pool-size=10",
    "--redis-find-delay=0s",
    "--redis-get-delay=0s",
    "--redis-timeout-after=0",
    "--route-calc-delay=0s",
)
#: After a turn: the agent and the exporters send what is left, so that the next turn does not pay for it.
SETTLE_S = 2.5


# In a service's process


def run_service(variant: str, arguments: list[str]) -> None:
    """Be one of HotROD's services, with its instrumentations taken out or exchanged."""
    from hotrod import __main__, telemetry

    if variant == OFF:
        take_ours_out()
        telemetry.SpanEvents = logging.NullHandler  # type: ignore[assignment,misc]
        start = telemetry.start
        telemetry.start = lambda service, *others: start(service)
    elif variant == SDK:
        use_opentelemetry_only()
    sys.argv = ["hotrod", *arguments]
    __main__.main()


def take_ours_out() -> None:
    """Leave HotROD's libraries as they are without us."""
    from concurrent.futures import ThreadPoolExecutor

    import redis
    from hotrod import web
    from requests.adapters import HTTPAdapter

    from k8s_tracing.instrument import requests, threads
    from k8s_tracing.instrument.redis import TracingRedis

    web.TracingMiddleware = lambda app, **options: app  # type: ignore[assignment,misc]
    threads.ContextExecutor = ThreadPoolExecutor  # type: ignore[assignment,misc]
    requests.TracingAdapter = HTTPAdapter  # type: ignore[assignment,misc]
    TracingRedis.execute_command = redis.Redis.execute_command  # type: ignore[method-assign]


def use_opentelemetry_only() -> None:
    """Put OpenTelemetry's SDK and instrumentations where HotROD uses ours."""
    take_ours_out()
    from hotrod import web
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.instrumentation.redis import RedisInstrumentor
    from opentelemetry.instrumentation.requests import RequestsInstrumentor
    from opentelemetry.instrumentation.threading import ThreadingInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    import k8s_tracing

    def init(service: str) -> None:
        provider = TracerProvider(resource=Resource.create({"service.name": service}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
        ThreadingInstrumentor().instrument()
        RequestsInstrumentor().instrument()
        RedisInstrumentor().instrument()

    def middleware(app: Any, *, excluded_paths: list[str], trace_response: bool) -> Any:
        urls = ",".join(f"{path}$" for path in excluded_paths)
        return OpenTelemetryMiddleware(app, excluded_urls=urls, exclude_spans=["receive", "send"])

    k8s_tracing.init = init  # type: ignore[assignment]
    k8s_tracing.traced = trace.get_tracer("hotrod").start_as_current_span  # type: ignore[assignment]
    web.TracingMiddleware = middleware  # type: ignore[assignment,misc]


# In the benchmark's process


@dataclass
class Turn:
    """One variant under load: what wrk saw, and the CPU time of the services for each request."""

    requests: int
    failed: int
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float


def load(url: str, seconds: float, connections: int, cpu_s: Callable[[], float]) -> Turn:
    """Let wrk ask for rides."""
    command = ["wrk", "--threads=1", f"--connections={connections}", f"--duration={seconds:g}s"]
    command += ["--timeout=30s", f"--script={HOTROD / 'load.lua'}", url]
    before = cpu_s()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    used_s = cpu_s() - before
    table = done.stdout[done.stdout.rindex("\nrequests ") :]
    said = dict(re.findall(r"^(\S+) +([0-9.]+)", table, re.MULTILINE))
    requests = int(said["requests"])
    if int(said["failed"]):
        raise RuntimeError(f"{said['failed']} of {requests} requests failed:\n{done.stdout}")
    rate, p50, p99 = (float(said[name]) for name in ("requests/s", "p50", "p99"))
    return Turn(requests, 0, rate, p50, p99, used_s / requests * 1000)


def services_cpu_s(pids: Mapping[str, int]) -> float:
    """Return the CPU time so far of these processes, all their threads."""
    ticks = 0
    for pid in pids.values():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def table(turns: dict[str, list[Turn]]) -> list[str]:
    """Return medians, and ratios to "off"."""

    def ratio(variant: str, of: Callable[[Turn], float]) -> str:
        each = [of(turn) / of(off) for turn, off in zip(turns[variant], turns[OFF], strict=True)]
        return f"{statistics.median(each):.3f} [{min(each):.3f}, {max(each):.3f}]"

    columns: dict[str, Callable[[Turn], float]] = {
        "requests/s": lambda turn: turn.rate,
        "p50 ms": lambda turn: turn.p50_ms,
        "p99 ms": lambda turn: turn.p99_ms,
        "CPU ms": lambda turn: turn.cpu_ms,
    }
    rows = [f"{'median':15}" + "".join(f"{name:>12}" for name in columns)]
    for variant, each in turns.items():
        medians = (statistics.median(map(of, each)) for of in columns.values())
        rows.append(f"{variant:15}" + "".join(f"{value:12.2f}" for value in medians))
    rows += ["", f"{'/ off':15}" + "".join(f"{name:>24}" for name in columns)]
    for variant in turns:
        ratios = "".join(f"{ratio(variant, of):>24}" for of in columns.values())
        rows.append(f"{variant:15}{ratios}")
    return rows


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each variant")
    parser.add_argument("--connections", type=int, default=4, help="requests at the same time")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="which, with commas")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--service", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.service:
        run_service(args.service[0], args.service[1:])
        return

    from hotrod.processes import Hotrod

    from benchmarks.pipeline import environment, running_agent
    from benchmarks.span_cost import machine
    from tests.support.jaeger import Jaeger

    variants = args.variants.split(",")
    turns: dict[str, list[Turn]] = {variant: [] for variant in variants}
    about = machine()
    with ExitStack() as stack:
        jaeger = stack.enter_context(Jaeger())
        agent = stack.enter_context(running_agent(jaeger))
        redis = ""
        running = {}
        for variant in variants:
            env = environment() | {"K8S_TRACING_BACKEND": "noop"}
            if variant == LTTNG:
                env = agent.env
            elif variant in (FALLBACK, SDK):
                env |= {"K8S_TRACING_BACKEND": "otel"}
                env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp_http_endpoint}
                env |= {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            program = ["-m", "benchmarks.hotrod_load", "--service", variant]
            env = env | {"PYTHONPATH": str(ROOT)}
            hotrod = Hotrod(folder, env, flags=NO_DELAYS, program=program, redis_url=redis or None)
            running[variant] = stack.enter_context(hotrod)
            redis = redis or hotrod.redis_url
        for hotrod in running.values():
            hotrod.wait_until_healthy()

        def one(variant: str, seconds: float) -> Turn:
            hotrod = running[variant]
            pids = {n: c.process.pid for n, c in hotrod.children.items() if n != "redis"}
            url = f"http://{hotrod.addresses['frontend']}"
            turn = load(url, seconds, args.connections, lambda: services_cpu_s(pids))
            time.sleep(SETTLE_S)
            return turn

        for variant in variants:
            one(variant, 1.0)  # what is done once
        for number in range(args.rounds):
            # Each variant follows another one in the next round.
            for variant in variants if number % 2 == 0 else reversed(variants):
                print(f"\r{number + 1}/{args.rounds} {variant:40}", end="", file=sys.stderr)
                turns[variant].append(one(variant, args.seconds))
        discarded = agent.discarded()
    print(f"\r{'':60}\r", end="", file=sys.stderr)
    for key, value in about.items():
        print(f"{key}: {value}")
    print(f"{args.rounds} rounds of {args.seconds:g} s, {args.connections} connections")
    print(f"events discarded by LTTng: {discarded}")
    print("", *table(turns), "", sep="\n")
    print(*(f"agent: {line}" for line in agent.summary()), sep="\n")
    if args.json:
        figures = {variant: [asdict(turn) for turn in each] for variant, each in turns.items()}
        args.json.write_text(json.dumps({"machine": about, "turns": figures}, indent=1))


if __name__ == "__main__":
    main()
