"""A node with pods on it, as network namespaces, and a Service with rules of the shape that kube-proxy writes.

node   10.244.0.1, bridge, forwards; the rules and conntrack are here
client 10.244.0.10
one    10.244.0.11   endpoints of the Service
two    10.244.0.12
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")

VIRTUAL_IP = "10.96.0.10"
PORT = 80
TARGET_PORT = 8080
PODS = {"client": "10.244.0.10", "one": "10.244.0.11", "two": "10.244.0.12"}
ENDPOINTS = (PODS["one"], PODS["two"])

NAMES = [
    {
        "namespace": "default",
        "name": "web",
        "addresses": [VIRTUAL_IP],
        "ports": [
            {
                "name": "http",
                "port": PORT,
                "endpoints": [
                    {"address": address, "port": TARGET_PORT, "pod": f"web-{pod}", "node": "node-1"}
                    for pod, address in PODS.items()
                    if pod != "client"
                ],
            }
        ],
    }
]

_IPTABLES = f"""*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-WEB - [0:0]
:KUBE-SEP-ONE - [0:0]
:KUBE-SEP-TWO - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-SERVICES -d {VIRTUAL_IP}/32 -p tcp -m tcp --dport {PORT} -j KUBE-SVC-WEB
-A KUBE-SVC-WEB -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-ONE
-A KUBE-SVC-WEB -j KUBE-SEP-TWO
-A KUBE-SEP-ONE -s {PODS["one"]}/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-ONE -p tcp -m tcp -j DNAT --to-destination {PODS["one"]}:{TARGET_PORT}
-A KUBE-SEP-TWO -s {PODS["two"]}/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-TWO -p tcp -m tcp -j DNAT --to-destination {PODS["two"]}:{TARGET_PORT}
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
"""

_NFTABLES = f"""table ip kube-proxy {{
  chain mark-for-masquerade {{
    mark set mark or 0x4000
  }}
  chain endpoint-one {{
    ip saddr {PODS["one"]} jump mark-for-masquerade
    meta l4proto tcp dnat to {PODS["one"]}:{TARGET_PORT}
  }}
  chain endpoint-two {{
    ip saddr {PODS["two"]} jump mark-for-masquerade
    meta l4proto tcp dnat to {PODS["two"]}:{TARGET_PORT}
  }}
  chain service-web {{
    numgen random mod 2 vmap {{ 0 : goto endpoint-one, 1 : goto endpoint-two }}
  }}
  map service-ips {{
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = {{ {VIRTUAL_IP} . tcp . {PORT} : goto service-web }}
  }}
  chain services {{
    ip daddr . meta l4proto . th dport vmap @service-ips
  }}
  chain nat-prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    jump services
  }}
  chain nat-output {{
    type nat hook output priority -100; policy accept;
    jump services
  }}
  chain nat-postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    mark and 0x4000 == 0 return
    mark set mark xor 0x4000
    masquerade fully-random
  }}
}}
"""


class ServiceNet:
    """The namespaces, by their short names: node, client, one, two."""

    def __init__(self) -> None:
        for program in ("ip", "iptables-restore", "nft"):
            if shutil.which(program) is None:
                raise FileNotFoundError(f"{program} is not installed: run `make test-packages`")
        self.mode = ""
        self._prefix = f"k8st-{secrets.token_hex(3)}"

    def name(self, pod: str) -> str:
        """The name of a namespace for `ip netns`."""
        return f"{self._prefix}-{pod}"

    def command(self, pod: str, *words: str) -> list[str]:
        """A command that runs in a namespace."""
        return ["ip", "netns", "exec", self.name(pod), *words]

    def run(self, pod: str, *words: str, text: str | None = None) -> str:
        """Run a command in a namespace; what it prints."""
        done = subprocess.run(
            self.command(pod, *words), input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    def inside(self, pod: str, call: Callable[[], T]) -> T:
        """Call a function in a thread that has entered a namespace."""
        results: list[T] = []
        errors: list[BaseException] = []

        def enter() -> None:
            descriptor = os.open(f"/run/netns/{self.name(pod)}", os.O_RDONLY)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(descriptor, 0x40000000):  # CLONE_NEWNET
                    raise OSError(ctypes.get_errno(), "setns")
                results.append(call())
            except BaseException as error:
                errors.append(error)
            finally:
                os.close(descriptor)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def up(self, mode: str) -> None:
        """Make it all, with rules of one of kube-proxy's modes."""
        self.mode = mode
        for pod in ("node", *PODS):
            _ip("netns", "add", self.name(pod))
            _ip("-n", self.name(pod), "link", "set", "lo", "up")
        node = self.name("node")
        _ip("-n", node, "link", "add", "br0", "type", "bridge")
        _ip("-n", node, "addr", "add", "10.244.0.1/24", "dev", "br0")
        _ip("-n", node, "link", "set", "br0", "up")
        for pod, address in PODS.items():
            peer = ("peer", "name", "eth0", "netns", self.name(pod))
            _ip("-n", node, "link", "add", f"v-{pod}", "type", "veth", *peer)
            _ip("-n", node, "link", "set", f"v-{pod}", "master", "br0", "up")
            # A pod may be sent back to itself.
            _bridge("-n", node, "link", "set", "dev", f"v-{pod}", "hairpin", "on")
            _ip("-n", self.name(pod), "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", self.name(pod), "link", "set", "eth0", "up")
            _ip("-n", self.name(pod), "route", "add", "default", "via", "10.244.0.1")
        self.sysctl("net/ipv4/ip_forward", 1)
        # The pods are on one bridge: what goes from one to the other must pass the node's rules all the same.
        self.sysctl("net/bridge/bridge-nf-call-iptables", 1)
        if mode == "iptables":
            self.run("node", "iptables-restore", text=_IPTABLES)
        else:
            self.run("node", "nft", "-f", "-", text=_NFTABLES)

    def sysctl(self, name: str, value: int) -> None:
        """Set one of the node's."""
        self.run("node", "sh", "-c", f"echo {value} > /proc/sys/{name}")

    def down(self) -> None:
        """Remove it; what runs in it must have ended."""
        for pod in ("node", *PODS):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", self.name(pod))


@contextmanager
def service_net(mode: str = "iptables") -> Iterator[ServiceNet]:
    """A node with a Service for as long as the block runs."""
    net = ServiceNet()
    try:
        net.up(mode)
        yield net
    finally:
        net.down()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _bridge(*words: str) -> None:
    subprocess.run(["bridge", *words], check=True, capture_output=True)


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
