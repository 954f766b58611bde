# SPDX-License-Identifier: Apache-2.0
"""How many connections to Services a node's agent can follow, and what joining them with spans costs. Needs root.

    python -m benchmarks.service_flows [--seconds S]

wrk opens connections through a Service in network namespaces, one for each request. The listener of the agent counts
them, and its thread's CPU time is taken: is any lost? The messages of a shorter burst are then read again and again
without a network: what one core can read. Last, spans of those connections pass through the join, and conntrack is
asked for some.
"""

from __future__ import annotations

import argparse
import os
import re
import select
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.span_cost import machine
from k8s_tracing.dataplane.flows import Conntrack, Join
from k8s_tracing.dataplane.names import StaticNames
from k8s_tracing.dataplane.netfilter import Questions, switch_on
from k8s_tracing.dataplane.plane import GATHER_S
from k8s_tracing.libraries import load
from k8s_tracing.otlp import to_request
from k8s_tracing.record import SpanRecord
from tests.support import service_net
from tests.support.service_net import ENDPOINTS, NAMES, PORT, TARGET_PORT, VIRTUAL_IP, ServiceNet
from tests.support.wait import wait_for

TARGET = 20_000  # connections a second, on one core
_NETLINK_NETFILTER = 12
_NEW_AND_UPDATE = 1 | 2
_SO_RCVBUFFORCE = 33
_SPANS_A_REQUEST = 500
_ASKED = 2000  # connections that conntrack is asked for

_SERVER = """worker_processes 1;
daemon off;
pid {folder}/pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen {address}:{port} backlog=4096; location / {{ return 200 ok; }} }}
}}
"""


@dataclass
class Heard:
    """A burst, as the agent's listener heard it."""

    asked: int
    flows: int
    messages: int
    overflows: int
    seconds: float
    cpu_s: float


@contextmanager
def served(net: ServiceNet) -> Iterator[None]:
    """An nginx in each of the Service's pods."""
    with ExitStack() as stack:
        commands = []
        for pod, address in zip(("one", "two"), ENDPOINTS, strict=True):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder.chmod(0o711)
            config = folder / "nginx.conf"
            config.write_text(_SERVER.format(folder=folder, address=address, port=TARGET_PORT))
            words = ["nginx", "-c", str(config), "-e", str(folder / "log")]
            commands.append(net.command(pod, *words))
        stack.enter_context(service_net.processes(commands))
        for address in ENDPOINTS:
            place = (address, TARGET_PORT)
            wait_for(f"{place} answers", lambda at=place: net.inside("node", lambda: _answers(at)))
        yield


def _answers(place: tuple[str, int]) -> bool:
    with socket.socket() as client:
        return client.connect_ex(place) == 0


def ask(net: ServiceNet, seconds: int) -> int:
    """Open connections as fast as wrk can; how many it opened."""
    words = ["wrk", "--threads", "1", "--connections", "16", "--duration", f"{seconds}s"]
    words += ["--header", "Connection: close", f"http://{VIRTUAL_IP}:{PORT}/"]
    said = net.run("client", *words)
    return int(re.findall(r"(\d+) requests in", said)[0])


def listen(net: ServiceNet, seconds: int, gather_s: float) -> Heard:
    """Follow a burst with the agent's listener, in a thread as the agent has one that lets events gather so long."""
    ended = threading.Event()
    cpu_s = 0.0

    def read() -> None:
        nonlocal cpu_s
        start = time.thread_time()
        while not ended.is_set():
            if select.select([conntrack], [], [], 0.1)[0]:
                conntrack.drain()
                ended.wait(gather_s)
            conntrack.take()
        conntrack.drain()
        cpu_s = time.thread_time() - start

    with net.inside("node", Conntrack) as conntrack:
        thread = threading.Thread(target=read)
        thread.start()
        asked = ask(net, seconds)
        time.sleep(0.5)
        ended.set()
        thread.join()
        stats = conntrack.stats
    return Heard(asked, stats.flows, stats.messages, stats.overflows, seconds, cpu_s)


def recorded(net: ServiceNet) -> list[bytes]:
    """What the kernel says of a second of connections, as it comes from the socket."""

    def opened() -> socket.socket:
        listening = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        listening.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 128 << 20)
        listening.bind((0, _NEW_AND_UPDATE))
        listening.setblocking(False)
        return listening

    parts = []
    with net.inside("node", opened) as listening:
        ask(net, 1)
        while True:
            try:
                parts.append(listening.recv(1 << 20))
            except BlockingIOError:
                return parts


def read_again(parts: list[bytes]) -> tuple[float, float, bytes]:
    """Connections and messages a second of CPU time, the best of some turns; and what one turn told."""
    best, told = (0.0, 0.0), b""
    for _ in range(9):
        with Conntrack(listens=False) as conntrack:
            start = time.process_time()
            for part in parts:
                conntrack.feed(part, time.time_ns())
            told = conntrack.take()
            took_s = time.process_time() - start
            stats = conntrack.stats
            best = max(best, (stats.flows / took_s, stats.messages / took_s))
    return *best, told


def join_cost(told: bytes) -> dict[str, float]:
    """CPU time to take in a connection, and for each span that passes through, in us: the best of some turns."""
    ffi, _ = load("dataplane")
    flows = [flow for flow in ffi.from_buffer("struct flow[]", told) if flow.outcome == 0]
    spans = [_client(number, flow, 0) for number, flow in enumerate(flows)]
    others = [_client(number, flow, 1, "192.0.2.1") for number, flow in enumerate(flows)]
    unseen = [_client(number, flow, 1, ENDPOINTS[0]) for number, flow in enumerate(flows)]
    passing = {
        "a span that opened one": _requests(spans),
        "a span that has to do with none": _requests(others),
        "a span whose endpoint nobody saw chosen": _requests(unseen),
    }
    now_ns = max(flow.new_ns for flow in flows) + 10**9
    best: dict[str, float] = {}
    for _ in range(9):
        with Join(StaticNames(NAMES)) as join:
            join.pass_on(b"")  # then it has been told the names
            marks = [time.process_time()]
            join.add(told)
            marks.append(time.process_time())
            for requests in passing.values():
                for body in requests:
                    join.pass_on(body, now_ns)
                marks.append(time.process_time())
            assert join.stats.joined == join.stats.unobserved == len(flows), join.stats
            assert join.stats.ambiguous == 0
        names = ("a connection", *passing)
        for name, start, end in zip(names, marks[:-1], marks[1:], strict=True):
            one = (end - start) / len(flows) * 1e6
            best[name] = min(one, best.get(name, one))
    return best


def asking_cost(net: ServiceNet, told: bytes) -> dict[str, float]:
    """CPU time for a span whose connection conntrack is asked for, in us: the best of some turns."""
    ffi, _ = load("dataplane")
    established = [flow for flow in ffi.from_buffer("struct flow[]", told) if flow.outcome == 0]
    # Of connections with the same port conntrack knows the last one.
    flows = list({flow.client_port: flow for flow in established}.values())[-_ASKED:]
    passing = {
        "which it knows": _requests(
            [_client(number, flow, 0) for number, flow in enumerate(flows)]
        ),
        "which it does not": _requests(
            [_client(number, flow, 1) for number, flow in enumerate(flows)]
        ),
    }
    now_ns = max(flow.new_ns for flow in flows) + 10**9
    best: dict[str, float] = {}
    with net.inside("node", Questions) as questions:
        for _ in range(9):
            with Join(StaticNames(NAMES)) as join:
                join.pass_on(b"")
                join.ask(questions.fileno(), 60 * 10**9, is_stamped=True)
                for connection, requests in passing.items():
                    for turn in ("asked", "asked before"):
                        start = time.process_time()
                        for body in requests:
                            join.pass_on(body, now_ns)
                        one = (time.process_time() - start) / len(flows) * 1e6
                        name = f"a connection that conntrack was {turn} for, {connection}"
                        best[name] = min(one, best.get(name, one))
                stats = join.stats
                assert stats.untold == stats.unobserved == 2 * len(flows), stats
    return best


def _client(number: int, flow: object, other: int, endpoint: str = "") -> SpanRecord:
    new_ns: int = flow.new_ns  # type: ignore[attr-defined]
    port: int = flow.client_port  # type: ignore[attr-defined]
    return SpanRecord(
        trace_id=f"{number + 1:032x}",
        span_id=f"{2 * number + other + 1:016x}",
        name="GET",
        kind="CLIENT",
        start_time_ns=new_ns - 50_000,
        end_time_ns=new_ns + 500_000,
        resource={"service.name": "shop"},
        attributes={
            "http.request.method": "GET",
            "http.response.status_code": 200,
            "url.full": f"http://{VIRTUAL_IP}/{number}",
            "server.address": VIRTUAL_IP,
            "server.port": PORT,
            "network.local.address": f"10.{244 + other}.0.10",
            "network.local.port": port,
            "network.peer.address": endpoint or VIRTUAL_IP,
            "network.peer.port": TARGET_PORT if endpoint else PORT,
        },
    )


def _requests(spans: list[SpanRecord]) -> list[bytes]:
    starts = range(0, len(spans), _SPANS_A_REQUEST)
    return [to_request(spans[first : first + _SPANS_A_REQUEST]) for first in starts]


def main() -> None:
    """Measure, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=4, help="of the burst (4)")
    given = parser.parse_args()
    print("; ".join(f"{key} {value}" for key, value in machine().items()))
    print(f"load average {os.getloadavg()[0]:.1f}\n")
    with service_net.service_net() as net, served(net):
        for problem in net.inside("node", switch_on):
            print(problem)
        bursts = {gather_s: listen(net, given.seconds, gather_s) for gather_s in (0.0, GATHER_S)}
        parts = recorded(net)
        connections, messages, told = read_again(parts)
        asking = asking_cost(net, told)
    for gather_s, heard in bursts.items():
        rate = heard.asked / heard.seconds
        each_us = heard.cpu_s / heard.flows * 1e6
        print(f"burst, read every {gather_s * 1e3:g} ms: {heard.asked} connections, {rate:.0f}/s")
        print(
            f"  not seen: {max(0, heard.asked - heard.flows)}; the kernel's buffer was full: {heard.overflows} times"
        )
        print(f"  the thread that listens: {each_us:.1f} us of CPU a connection")
    print(f"read again: {connections:.0f} connections, {messages:.0f} messages a second of a core")
    print(
        f"  {connections / TARGET:.1f} x the target of {TARGET}/s; {1e6 / connections:.2f} us a connection"
    )
    for what, took_us in {**join_cost(told), **asking}.items():
        print(f"join: {took_us:.2f} us for {what}")


if __name__ == "__main__":
    main()
