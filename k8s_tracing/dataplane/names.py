# SPDX-License-Identifier: Apache-2.0
"""What the Services and endpoints behind addresses are called."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from k8s_tracing.dataplane.backends import Backend, Backends, packed
from k8s_tracing.errors import K8sTracingError


class Service(NamedTuple):
    """What is said of a Service.

    Attributes:
        name: Of its spans.
        resource: Who they are of.
        attributes: Of its spans.
        of_requests: Attributes of the requests that go through it.
    """

    name: str
    resource: dict[str, Any]
    attributes: dict[str, Any]
    of_requests: dict[str, Any]


class Names(Protocol):
    """Where names come from; asked from one thread, with every flow. The same name is the same object."""

    @property
    def backends(self) -> Backends:
        """What leads to which endpoint; it goes on changing."""

    def service(self, address: str, port: int) -> Service | None:
        """The Service with that virtual IP and port."""


def describe(namespace: str, name: str, port: str, endpoints: int) -> Service:
    """What is said of a port of a Service.

    Args:
        namespace: Its namespace.
        name: Its name.
        port: The port's name; may be empty.
        endpoints: How many were there to choose from.
    """
    full = f"{namespace}/{name}:{port}" if port else f"{namespace}/{name}"
    return Service(
        f"service {full}",
        {
            "service.name": f"{namespace}/{name}",
            "k8s.namespace.name": namespace,
            "k8s.service.name": name,
        },
        {"k8s_tracing.service.endpoints": endpoints},
        {"k8s_tracing.service.name": full},
    )


def backend(
    namespace: str, name: str, addresses: Iterable[str], port: int, said: Service
) -> Backend:
    """A port of a Service, with what is said of it."""
    known = b"".join(filter(None, map(packed, addresses)))
    return Backend(namespace, name, known, port, said.of_requests, {})


def of_endpoint(found: Backend) -> dict[str, Any]:
    """Attributes of a request that went to that endpoint, where no span of the Service says so.

    The endpoint's keys are the Service's here: `k8s.pod.name` of a request is the pod that made it.
    """
    return {
        key.replace("k8s.", "k8s_tracing.service.", 1): value
        for key, value in found.endpoint.items()
    }


class StaticNames:
    """Names from a table.

    Args:
        services: Each with `namespace`, `name`, `addresses` (virtual IPs) and `ports`: a list with `port`, perhaps
            `name`, and `endpoints`: a list with `address`, `port`, and perhaps `pod` and `node`.

    Raises:
        K8sTracingError: The table is not like that.
    """

    def __init__(self, services: list[dict[str, Any]]) -> None:
        self._services: dict[tuple[str, int], Service] = {}
        self.backends = Backends()
        try:
            for service in services:
                self._add(service)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise K8sTracingError(
                f"a Service in the table of names lacks something, or has it of another kind: {error!r}"
            ) from error

    @classmethod
    def from_file(cls, path: Path) -> StaticNames:
        """Read a table: JSON, an object with the list `services`.

        Raises:
            K8sTracingError: The file cannot be read, or is something else.
        """
        try:
            content = json.loads(path.read_text())
            services = content["services"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise K8sTracingError(
                f"cannot read the names of Services from {path}: {error}"
            ) from error
        return cls(services)

    def service(self, address: str, port: int) -> Service | None:
        """The Service with that virtual IP and port."""
        return self._services.get((address, port))

    def _add(self, service: dict[str, Any]) -> None:
        namespace, name, addresses = service["namespace"], service["name"], service["addresses"]
        routes = []
        for port in service["ports"]:
            endpoints = [
                (each["address"], int(each["port"]), _attributes(each))
                for each in port.get("endpoints", [])
            ]
            said = describe(namespace, name, port.get("name", ""), len(endpoints))
            for address in addresses:
                self._services[address, int(port["port"])] = said
            if addresses:
                routes.append(
                    (backend(namespace, name, addresses, int(port["port"]), said), endpoints)
                )
        self.backends.put(namespace, name, routes)


def _attributes(endpoint: dict[str, Any]) -> dict[str, Any]:
    return {
        key: endpoint[source]
        for key, source in (("k8s.pod.name", "pod"), ("k8s.node.name", "node"))
        if endpoint.get(source)
    }
