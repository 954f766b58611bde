# SPDX-License-Identifier: Apache-2.0
"""How far the edges of ingress and Service spans are from the packets that they tell of. Needs root and tshark.

    python -m benchmarks.dataplane_accuracy [--requests N]

HotROD's node, with tshark on its bridge. HAProxy and nginx are asked one request after the other, each on a connection
of its own. A Service span begins with the SYN to the virtual IP and ends with the ACK of the handshake; an ingress's
SERVER span begins with the request's packet and ends with the last of its response. A positive difference: the span's
edge is later.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

from hotrod import dataplane, tracing
from hotrod.dataplane import INGRESSES, PODS, SERVICES

from benchmarks.span_cost import machine
from k8s_tracing.otlp import read_json_lines
from k8s_tracing.record import SpanRecord
from tests.support.wait import wait_for

_FIELDS = (
    "frame.time_epoch",
    "ip.src",
    "tcp.srcport",
    "ip.dst",
    "tcp.dstport",
    "tcp.flags",
    "tcp.len",
)
_SYN, _ACK = 0x02, 0x10
Packet = tuple[int, str, int, str, int, int, int]


def main() -> None:
    """Ask, capture, compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200, help="through each ingress (200)")
    given = parser.parse_args()
    print("; ".join(f"{key} {value}" for key, value in machine().items()))
    packets, spans = captured(given.requests)
    print(f"{len(packets)} packets, {len(spans)} spans\n")
    print("| edge | measured | median, us | p1 | p99 |")
    print("|---|---|---|---|---|")
    for edge, values in differences(packets, spans).items():
        values.sort()
        low, high = values[len(values) // 100], values[-1 - len(values) // 100]
        median = statistics.median(values)
        print(
            f"| {edge} | {len(values)} | {median / 1e3:.0f} | {low / 1e3:.0f} | {high / 1e3:.0f} |"
        )


def captured(requests: int) -> tuple[list[Packet], list[SpanRecord]]:
    """Ask both ingresses; the packets on the node's bridge, and the spans."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="k8st-")))
        directory.chmod(0o711)
        node = stack.enter_context(dataplane.node())
        names = directory / "services.json"
        names.write_text(json.dumps({"services": node.names()}))
        options = ["--ingress-udp", dataplane.LOG_TO, "--services", str(names)]
        traced = tracing.start_agent(
            stack, directory, None, lambda *words: node.command("node", *words), options
        )
        env = {**os.environ, **traced.env}
        hotrod = stack.enter_context(dataplane.DataPlane(node, directory, env))
        hotrod.wait_until_healthy()
        capture = directory / "capture.pcap"
        words = ["dumpcap", "-q", "-i", "br0", "-f", "tcp", "-B", "64", "-w", str(capture)]
        quiet = subprocess.DEVNULL
        tshark = subprocess.Popen(node.command("node", *words), stdout=quiet, stderr=quiet)
        try:
            wait_for("the capture begins", lambda: capture.exists() and capture.stat().st_size > 0)
            time.sleep(0.5)
            for kind in INGRESSES:
                node.inside("node", lambda kind=kind: ask(kind, requests))
            time.sleep(1)
        finally:
            tshark.terminate()
            tshark.wait(10)
        assert traced.agent is not None
        assert traced.spans is not None
        traced.agent.stop(40)
        return read_packets(capture), read_json_lines(traced.spans)


def ask(kind: str, requests: int) -> None:
    """Each on a connection of its own."""
    for _ in range(requests):
        with closing(http.client.HTTPConnection(*INGRESSES[kind], timeout=10)) as connection:
            connection.request("GET", "/config")
            connection.getresponse().read()


def read_packets(capture: Path) -> list[Packet]:
    """Time in ns, source, destination, flags and length of each packet."""
    fields = [word for field in _FIELDS for word in ("-e", field)]
    words = ["tshark", "-r", str(capture), "-T", "fields", "-E", "separator=,", *fields]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    packets = []
    for line in said.splitlines():
        at, source, source_port, to, port, flags, size = line.split(",")
        seconds, _, fraction = at.partition(".")
        at_ns = int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9])
        packets.append((at_ns, source, int(source_port), to, int(port), int(flags, 0), int(size)))
    return packets


def differences(packets: list[Packet], spans: list[SpanRecord]) -> dict[str, list[int]]:
    """Edges of spans less the times of their packets, in ns."""
    found: dict[str, list[int]] = {}
    by_client: dict[tuple[str, int], list[Packet]] = {}
    for packet in packets:
        by_client.setdefault((packet[1], packet[2]), []).append(packet)
        by_client.setdefault((packet[3], packet[4]), []).append(packet)
    vip = SERVICES["frontend"].virtual_ip
    for span in spans:
        attributes = span.attributes
        if (
            span.scope_name == "k8s_tracing.service"
            and attributes.get("destination.address") == vip
        ):
            client = (str(attributes["source.address"]), int(str(attributes["source.port"])))
            sent = [packet for packet in by_client.get(client, []) if packet[1:3] == client]
            syn = next((at for at, *_, flags, _ in sent if flags & 0x3F == _SYN), None)
            ack = next((at for at, *_, flags, _ in sent if flags & 0x3F == _ACK), None)
            if syn and ack:
                found.setdefault("Service span, start: SYN", []).append(span.start_time_ns - syn)
                found.setdefault("Service span, end: ACK", []).append(span.end_time_ns - ack)
        if span.scope_name == "k8s_tracing.ingress" and span.kind == "SERVER":
            place = PODS[span.service_name]
            client = (str(attributes["client.address"]), int(str(attributes["network.peer.port"])))
            both = [p for p in by_client.get(client, []) if place in (p[1], p[3]) and p[6]]
            asked = [p[0] for p in both if p[1] != place]
            answered = [p[0] for p in both if p[1] == place]
            if asked and answered:
                name = f"{span.service_name} SERVER span"
                found.setdefault(f"{name}, start: request", []).append(
                    span.start_time_ns - asked[0]
                )
                found.setdefault(f"{name}, end: response", []).append(
                    span.end_time_ns - answered[-1]
                )
    return found


if __name__ == "__main__":
    main()
