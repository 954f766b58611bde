# SPDX-License-Identifier: Apache-2.0
"""HotROD behind two ingresses and with Services: a node on this machine, made of network namespaces.

It sends some dispatches through both ingresses, shows the trace of one, and removes all that it made. In a terminal it
then stays, for the page and for curl, until Ctrl-C; otherwise it ends by itself. Needs root.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

from demo import Dispatch, Interrupts, Screen, begin, end, make_parser, send_dispatches, show_trace
from hotrod import config, dataplane, tracing
from hotrod.config import SERVICES, Address
from hotrod.ingress import cable_command
from hotrod.node import Node, NodeError
from hotrod.processes import Child, ProcessError, accepts_connections, free_address, wait_for
from hotrod.quota import QuotaError

from k8s_tracing.dataplane.scheduler import Scheduler
from k8s_tracing.errors import K8sTracingError
from k8s_tracing.record import SpanRecord

#: Of the agent's metrics, what there is to say of connections.
COUNTS = {
    "service_connections_total": "opened",
    'service_joins_total{outcome="joined"}': "joined with the request that opened them",
    "service_reused_total": "spans, at either end, of later requests that used them again",
    "service_ambiguous_total": "requests that more than one would have fit",
}


def address_of(endpoint: str) -> Address:
    """The address of an OTLP endpoint that can be reached by a mere cable."""
    parts = urlsplit(endpoint)
    if parts.scheme != "http" or not parts.hostname:
        raise ProcessError(f"{endpoint} is no http:// endpoint, which this demo needs.")
    return Address(parts.hostname, parts.port or 80)


def run(
    screen: Screen, interrupts: Interrupts, *, stay: bool, throttle: bool, flags: list[str]
) -> None:
    with ExitStack() as stack:
        screen.title("HotROD on a node: two ingresses, four Services, one trace a ride")
        directory, receiver = begin(screen, interrupts, stack)
        with interrupts.held():
            node = stack.enter_context(dataplane.node())
        screen.step("node", f"{len(node.pods)} pods, {len(node.services)} Services ({node.mode})")
        entrances = {free_address(SERVICES["frontend"]): "haproxy", free_address(): "nginx"}
        target = address_of(receiver.endpoint)
        behind = {at: dataplane.INGRESSES[kind] for at, kind in entrances.items()}
        command = cable_command(directory, node.namespace("node"), behind, target)
        cable = Child("cable", command, directory, os.environ)
        stack.callback(cable.stop)
        wait_for(
            lambda: node.inside("node", lambda: accepts_connections(target)), cable, timeout_s=20
        )
        split, measured = cpu_split()
        names = directory / "services.json"
        names.write_text(json.dumps({"services": node.names()}))
        traced = tracing.start_agent(
            stack,
            directory,
            f"http://{target}",
            lambda *words: node.command("node", *words),
            ["--ingress-udp", dataplane.LOG_TO, "--services", str(names), *split],
        )
        screen.step("agent", "on the node: LTTng, the ingresses' log lines, conntrack")
        screen.step("CPU time", f"by {measured}")

        env = {**os.environ, **traced.env, "HOTROD_TRACE_UI": receiver.ui}
        hotrod = stack.enter_context(
            dataplane.DataPlane(node, directory, env, flags, throttle=throttle, measure=not split)
        )
        hotrod.wait_until_healthy()
        if split:
            wait_until_followed(node, directory, hotrod)
        for address, kind in entrances.items():
            screen.step(kind, f"ready on http://{address}")
        if throttle:
            limit = f"{dataplane.THROTTLED_MS} ms of CPU in 100"
            screen.step("throttled", f"{dataplane.THROTTLED}: {limit}")
        sent = send_dispatches(screen, list(entrances))
        hotrod.check()
        show_trace(screen, traced, sent[0], "The trace of the first one, which opened connections")
        arrived = [tracing.wait_for_trace(directory / "spans.jsonl", one.trace_id) for one in sent]
        if throttle:
            show_throttled(screen, [span for spans in arrived for span in spans])
        show_joins(screen, node, directory)
        show_next_steps(screen, receiver.ui, list(entrances), sent, stay=stay)
        end(screen, interrupts, sent, hotrod.check, stay=stay)


def cpu_split() -> tuple[list[str], str]:
    """Options for the agent, and who measures where spans' time goes: the kernel, or each process itself."""
    try:
        Scheduler().close()
    except K8sTracingError as error:
        return [], f"each process, for its requests only, since {error}"
    return ["--cpu-split", "1ms"], "the kernel's scheduler, for every span"


def wait_until_followed(node: Node, directory: Path, hotrod: dataplane.DataPlane) -> None:
    """The agent knows a process a second or two after its start."""
    pods = sum(len(service.pods) for service in dataplane.SERVICES.values())
    wait_for(
        lambda: metrics(node, directory)["scheduler_processes"] >= pods,
        hotrod.children["frontend"],
        timeout_s=30,
    )


def metrics(node: Node, directory: Path) -> dict[str, float]:
    """The agent's, by their names without its prefix."""
    ready = json.loads((directory / "lttng/env.json").read_text())
    address = urlsplit(ready["health"])

    def read() -> str:
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
        with closing(connection):
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()

    lines = node.inside("node", read).splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name.removeprefix("k8s_tracing_agent_"): float(value) for name, value in pairs}


def show_throttled(screen: Screen, spans: list[SpanRecord]) -> None:
    """What spans say of their container's CPU limit, those of requests."""
    screen.title("Requests that were throttled")
    for span in spans:
        if span.kind != "SERVER":
            continue
        if summary := span.attributes.get("k8s_tracing.cpu.summary"):
            pod = span.resource.get("k8s.pod.name", span.service_name)
            took_ms = (span.end_time_ns - span.start_time_ns) / 1e6
            print(f"  {pod:10} {took_ms:5.0f} ms: {summary}", flush=True)


def show_joins(screen: Screen, node: Node, directory: Path) -> None:
    """What the agent on the node counted of the connections to Services."""
    counted = metrics(node, directory)
    screen.title("Connections to Services")
    for name, text in COUNTS.items():
        print(f"  {counted[name]:4.0f} {text}", flush=True)


def show_next_steps(
    screen: Screen, ui: str, entrances: list[Address], sent: list[Dispatch], *, stay: bool
) -> None:
    slowest = max(sent, key=lambda one: one.latency_ms)
    steps = []
    if stay:
        steps += [("the page", f"http://{entrances[0]}/")]
        steps += [("by nginx", f"curl -i 'http://{entrances[1]}/dispatch?customer=123'")]
    if ui:
        steps += [("this trace", f"{ui}/trace/{sent[0].trace_id}")]
        steps += [("the slowest", f"{ui}/trace/{slowest.trace_id}")]
    steps += [("more to read", "docs/how-to/see-the-data-plane.md")]
    screen.steps("Try next", steps)


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--throttle", action="store_true", help="give the driver's pod less CPU than it needs"
    )
    given, flags = parser.parse_known_args()
    config.parse(["frontend", *flags])  # says what is wrong with them now, and not in seven logs
    if os.geteuid() != 0:
        print(
            "Network namespaces, rules and conntrack need root: `sudo make demo-dataplane`.",
            file=sys.stderr,
        )
        return 1
    screen = Screen()
    stay = screen.is_terminal and sys.stdin.isatty() and not given.once
    try:
        run(screen, Interrupts(), stay=stay, throttle=given.throttle, flags=flags)
    except (ProcessError, NodeError, QuotaError) as error:
        print(f"\n{screen.styled('The demo failed.', '1;31')} {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
