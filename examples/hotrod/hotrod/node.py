# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes node as network namespaces on one machine: pods on a bridge, and Services.

A Service's virtual IP is on no interface. Rules of the shape that kube-proxy writes send each connection to one of the
endpoints, and the kernel's connection tracking remembers which: what happens to a packet here happens to it on a node.
Needs root.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

#: The node's own address, on the bridge that the pods are on.
NODE_ADDRESS = "10.244.0.1"

_CLONE_NEWNET = 0x40000000
_PROGRAMS = ("ip", "bridge", "nsenter", "iptables-restore")


class NodeError(Exception):
    """Something that makes up the node could not be made. Says which command failed, and how."""


@dataclass(frozen=True)
class Service:
    """A Service with one port.

    Attributes:
        virtual_ip: Its address.
        pods: Its endpoints.
        target_port: Where they listen.
    """

    name: str
    virtual_ip: str
    port: int
    pods: tuple[str, ...]
    target_port: int
    port_name: str = "http"


class Node:
    """The namespaces: `node`, where the rules and conntrack are, and one for each pod.

    Args:
        pods: Their names and addresses, all in 10.244.0.0/24.
        services: What there is to choose endpoints for.
        mode: Of kube-proxy: `iptables` or `nftables`.
    """

    def __init__(
        self, pods: Mapping[str, str], services: Sequence[Service], mode: str = "iptables"
    ) -> None:
        self.pods = dict(pods)
        self.services = list(services)
        self.mode = mode
        self._prefix = f"k8st-{secrets.token_hex(3)}"

    def namespace(self, place: str) -> str:
        """The name of a namespace, as `ip netns` lists it."""
        return f"{self._prefix}-{place}"

    def command(self, place: str, *words: str) -> list[str]:
        """A command that runs in a namespace.

        Not by `ip netns exec`: it mounts /sys anew, and the cgroups are not to be seen there.
        """
        return ["nsenter", f"--net=/run/netns/{self.namespace(place)}", *words]

    def run(self, place: str, *words: str, text: str | None = None) -> str:
        """Run a command in a namespace; what it prints."""
        return _run(self.command(place, *words), text)

    def inside(self, place: str, call: Callable[[], T]) -> T:
        """Call a function in a thread that has entered a namespace."""
        results: list[T] = []
        errors: list[BaseException] = []

        def enter() -> None:
            descriptor = os.open(f"/run/netns/{self.namespace(place)}", os.O_RDONLY)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(descriptor, _CLONE_NEWNET):
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

    def names(self) -> list[dict[str, Any]]:
        """What `k8s-tracing agent --services` is told of the Services."""
        return [
            {
                "namespace": "default",
                "name": service.name,
                "addresses": [service.virtual_ip],
                "ports": [
                    {
                        "name": service.port_name,
                        "port": service.port,
                        "endpoints": [
                            {
                                "address": self.pods[pod],
                                "port": service.target_port,
                                "pod": pod,
                                "node": "node-1",
                            }
                            for pod in service.pods
                        ],
                    }
                ],
            }
            for service in self.services
        ]

    def sysctl(self, name: str, value: int) -> None:
        """Set one of the node's."""
        self.run("node", "sh", "-c", f"echo {value} > /proc/sys/{name}")

    def __enter__(self) -> Self:
        for program in (*_PROGRAMS, *(["nft"] if self.mode == "nftables" else [])):
            if shutil.which(program) is None:
                raise NodeError(
                    f"{program} is not installed: run `tools/system-packages dataplane`"
                )
        try:
            self._up()
        except BaseException:
            self._down()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._down()

    def _up(self) -> None:
        for place in ("node", *self.pods):
            _run(["ip", "netns", "add", self.namespace(place)])
            self._ip(place, "link set lo up")
        self._ip("node", "link add br0 type bridge")
        self._ip("node", f"addr add {NODE_ADDRESS}/24 dev br0")
        self._ip("node", "link set br0 up")
        for number, (pod, address) in enumerate(self.pods.items()):
            end = f"veth{number}"
            peer = f"peer name eth0 netns {self.namespace(pod)}"
            self._ip("node", f"link add {end} type veth {peer}")
            self._ip("node", f"link set {end} master br0 up")
            # A pod may be sent back to itself.
            bridge = ["bridge", "-n", self.namespace("node")]
            _run([*bridge, "link", "set", "dev", end, "hairpin", "on"])
            self._ip(pod, f"addr add {address}/24 dev eth0")
            self._ip(pod, "link set eth0 up")
            self._ip(pod, f"route add default via {NODE_ADDRESS}")
        self.sysctl("net/ipv4/ip_forward", 1)
        # The pods are on one bridge: what goes from one to the other must pass the node's rules all the same.
        self.sysctl("net/bridge/bridge-nf-call-iptables", 1)
        if self.mode == "iptables":
            self.run("node", "iptables-restore", text="\n".join(self._iptables()) + "\n")
        else:
            self.run("node", "nft", "-f", "-", text="\n".join(self._nftables()) + "\n")

    def _down(self) -> None:
        """Remove it; what runs in it must have ended."""
        for place in ("node", *self.pods):
            with suppress(NodeError):
                _run(["ip", "netns", "delete", self.namespace(place)])

    def _ip(self, place: str, words: str) -> None:
        _run(["ip", "-n", self.namespace(place), *words.split()])

    def _iptables(self) -> Iterator[str]:
        # -A to a chain that is not there is an error, so they are all declared first.
        services = {service: f"KUBE-SVC-{service.name.upper()}" for service in self.services}
        yield "*nat"
        for chain in ("SERVICES", "MARK-MASQ", "POSTROUTING"):
            yield f":KUBE-{chain} - [0:0]"
        for service, chain in services.items():
            yield f":{chain} - [0:0]"
            for pod in service.pods:
                yield f":{_endpoint_chain(pod)} - [0:0]"
        yield "-A PREROUTING -j KUBE-SERVICES"
        yield "-A OUTPUT -j KUBE-SERVICES"
        yield "-A POSTROUTING -j KUBE-POSTROUTING"
        for service, chain in services.items():
            to = f"-d {service.virtual_ip}/32 -p tcp -m tcp --dport {service.port}"
            yield f"-A KUBE-SERVICES {to} -j {chain}"
            for left, pod in zip(range(len(service.pods), 0, -1), service.pods, strict=True):
                # The first of n is taken by one in n, the next of what is left by one in n - 1.
                chance = f"-m statistic --mode random --probability {1 / left:.11f} "
                endpoint = _endpoint_chain(pod)
                yield f"-A {chain} {chance if left > 1 else ''}-j {endpoint}"
                yield f"-A {endpoint} -s {self.pods[pod]}/32 -j KUBE-MARK-MASQ"
                target = f"{self.pods[pod]}:{service.target_port}"
                yield f"-A {endpoint} -p tcp -m tcp -j DNAT --to-destination {target}"
        yield "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000"
        yield "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN"
        yield "-A KUBE-POSTROUTING -j MASQUERADE --random-fully"
        yield "COMMIT"

    def _nftables(self) -> Iterator[str]:
        yield "table ip kube-proxy {"
        yield "chain mark-for-masquerade { mark set mark or 0x4000; }"
        elements = []
        for service in self.services:
            for pod in service.pods:
                target = f"{self.pods[pod]}:{service.target_port}"
                masquerade = f"ip saddr {self.pods[pod]} jump mark-for-masquerade"
                yield f"chain endpoint-{pod} {{ {masquerade}; meta l4proto tcp dnat to {target}; }}"
            goto = (f"{n} : goto endpoint-{pod}" for n, pod in enumerate(service.pods))
            choice = f"numgen random mod {len(service.pods)} vmap {{ {', '.join(goto)} }}"
            yield f"chain service-{service.name} {{ {choice}; }}"
            place = f"{service.virtual_ip} . tcp . {service.port}"
            elements.append(f"{place} : goto service-{service.name}")
        yield "map service-ips { type ipv4_addr . inet_proto . inet_service : verdict;"
        yield f"elements = {{ {', '.join(elements)} }}; }}"
        yield "chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }"
        for hook, priority in (("prerouting", "dstnat"), ("output", "-100")):
            kind = f"type nat hook {hook} priority {priority}; policy accept;"
            yield f"chain nat-{hook} {{ {kind} jump services; }}"
        yield "chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept;"
        yield "mark and 0x4000 == 0 return; mark set mark xor 0x4000; masquerade fully-random; }"
        yield "}"


def _endpoint_chain(pod: str) -> str:
    return f"KUBE-SEP-{pod.upper()}"


def _run(command: Sequence[str], text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NodeError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout
