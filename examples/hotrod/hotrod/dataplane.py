# SPDX-License-Identifier: Apache-2.0
"""HotROD as pods of a node: two ingresses, a Service for each of its services, two endpoints where that makes sense.

    haproxy ┐
            ├─ Service frontend ─ frontend ┬─ Service customer ─ customer-1, customer-2
    nginx   ┘                              ├─ Service driver ─── driver, with its Redis
                                           └─ Service route ──── route-1, route-2

What the agent knows of it is what it knows of a node: it runs in the node's namespace and in no pod's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from . import ingress
from .config import Address
from .node import NODE_ADDRESS, Node, Service
from .processes import (
    Child,
    accepts_connections,
    is_healthy,
    redis_command,
    service_command,
    service_environment,
    wait_for,
)
from .quota import Quota

PODS = {
    "haproxy": "10.244.0.10",
    "nginx": "10.244.0.11",
    "frontend": "10.244.0.20",
    "customer-1": "10.244.0.31",
    "customer-2": "10.244.0.32",
    "driver": "10.244.0.40",
    "route-1": "10.244.0.51",
    "route-2": "10.244.0.52",
}
SERVICES = {
    service.name: service
    for service in (
        Service("frontend", "10.96.0.10", 80, ("frontend",), 8080),
        Service("customer", "10.96.0.11", 80, ("customer-1", "customer-2"), 8081),
        Service("driver", "10.96.0.12", 50051, ("driver",), 8082, "grpc"),
        Service("route", "10.96.0.13", 80, ("route-1", "route-2"), 8083),
    )
}
#: Where each takes requests, and where the agent on the node takes their log lines.
INGRESSES = {kind: Address(PODS[kind], 80) for kind in ("haproxy", "nginx")}
LOG_TO = f"{NODE_ADDRESS}:5514"

#: Whose CPU is limited when one is: its requests have a thread each, so that its spans can tell.
THROTTLED = "driver"
THROTTLED_MS = 4  # of every 100

READY_S = 60.0


def node() -> Node:
    """The node, with nothing running yet."""
    return Node(PODS, list(SERVICES.values()))


class DataPlane:
    """All that runs in the pods, for as long as the `with`.

    Args:
        directory: For logs and configurations.
        env: For the services.
        flags: For the services, too.
        throttle: Give one of the pods less CPU time than it needs, as soon as it is ready.
        measure: Each process measures where its requests' time goes.
    """

    def __init__(
        self,
        node: Node,
        directory: Path,
        env: Mapping[str, str],
        flags: Iterable[str] = (),
        *,
        throttle: bool = False,
        measure: bool = False,
    ) -> None:
        self.node = node
        self.quota = Quota() if throttle else None
        self.children: dict[str, Child] = {}
        self._directory = directory
        self._env = service_environment(env)
        self._flags = list(flags)
        self._measure = measure
        self._stack = ExitStack()

    def __enter__(self) -> DataPlane:
        with self._stack as stack:
            if self.quota:
                stack.enter_context(self.quota)
            # What is started first is stopped last: no request must meet a service that is gone.
            redis = Address("127.0.0.1", 6379)
            command = redis_command(redis)
            if command:
                child = self._start("redis", "driver", command)
                wait_for(
                    lambda: self.node.inside("driver", lambda: accepts_connections(redis)),
                    child,
                    READY_S,
                )
            for name in ("driver", "route", "customer", "frontend"):
                self._start_service(SERVICES[name], f"redis://{redis}/0" if command else "")
            frontend = Address(SERVICES["frontend"].virtual_ip, SERVICES["frontend"].port)
            for kind, write in (
                ("haproxy", ingress.haproxy_command),
                ("nginx", ingress.nginx_command),
            ):
                command = write(self._directory, INGRESSES[kind], frontend, LOG_TO)
                self._start(kind, kind, command)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def wait_until_healthy(self) -> None:
        """Return when every pod answers, asked at its own address: no Service is used for it."""
        for service in SERVICES.values():
            for pod in service.pods:
                address = Address(PODS[pod], service.target_port)
                wait_for(
                    lambda name=service.name, at=address: self.node.inside(
                        "node", lambda: is_healthy(name, at)
                    ),
                    self.children[pod],
                    READY_S,
                )
        if self.quota:
            self.quota.limit(THROTTLED_MS)
        for kind, address in INGRESSES.items():
            wait_for(
                lambda at=address: self.node.inside("node", lambda: accepts_connections(at)),
                self.children[kind],
                READY_S,
            )

    def check(self) -> None:
        """Raise ProcessError when one of the processes has ended."""
        for child in self.children.values():
            child.check()

    def _start_service(self, service: Service, redis_url: str) -> None:
        peers = {
            peer: Address(SERVICES[peer].virtual_ip, SERVICES[peer].port)
            for peer in ("customer", "driver", "route")
        }
        for pod in service.pods:
            listen = Address(PODS[pod], service.target_port)
            command = service_command(service.name, listen, peers, redis_url)
            # What the Downward API tells a container.
            own = {
                "OTEL_RESOURCE_ATTRIBUTES_POD_NAME": pod,
                "OTEL_RESOURCE_ATTRIBUTES_NODE_NAME": "node-1",
                "K8S_TRACING_CPU_SPLIT": "1" if self._measure else "0",
            }
            command += self._flags
            if self.quota and pod == THROTTLED:
                command = self.quota.command(*command)
            self._start(pod, pod, command, own)

    def _start(
        self, name: str, pod: str, command: list[str], env: Mapping[str, str] | None = None
    ) -> Child:
        child = Child(
            name, self.node.command(pod, *command), self._directory, {**self._env, **(env or {})}
        )
        self._stack.callback(child.stop)
        self.children[name] = child
        return child
