"""A node with one Service of two endpoints: HotROD's namespaces and kube-proxy-shaped rules (hotrod.node).

client 10.244.0.10
one    10.244.0.11   endpoints of the Service
two    10.244.0.12
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from hotrod.node import Node, Service

VIRTUAL_IP = "10.96.0.10"
PORT = 80
TARGET_PORT = 8080
PODS = {"client": "10.244.0.10", "one": "10.244.0.11", "two": "10.244.0.12"}
ENDPOINTS = (PODS["one"], PODS["two"])
WEB = Service("web", VIRTUAL_IP, PORT, ("one", "two"), TARGET_PORT)


class ServiceNet(Node):
    """The namespaces node, client, one, two."""

    def __init__(self, mode: str = "iptables") -> None:
        super().__init__(PODS, [WEB], mode)


NAMES = ServiceNet().names()


@contextmanager
def service_net(mode: str = "iptables") -> Iterator[ServiceNet]:
    """A node with a Service for as long as the block runs."""
    with ServiceNet(mode) as net:
        yield net


@contextmanager
def processes(
    commands: Sequence[Sequence[str]], env: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Programs in the background, ended at the end."""
    started = [subprocess.Popen(command, env=env) for command in commands]
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(10)
