# SPDX-License-Identifier: Apache-2.0
"""Names of Services and endpoints from the Kubernetes API server, kept up to date by watching.

Two lists and two watches of objects of which a handful of fields is kept: that is less code than a client library has
to be told, and its objects would hold whole Services in memory. Nobody waits for the API server: what is not known yet
has no name. Source: Kubernetes API concepts, "Efficient detection of changes".
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from k8s_tracing.dataplane.backends import Backends
from k8s_tracing.dataplane.names import Service, backend, describe
from k8s_tracing.errors import K8sTracingError

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)

#: Of each kind; beyond it new ones have no names, which is logged.
MAX_OBJECTS = 50_000

_PATHS = {"services": "/api/v1/services", "slices": "/apis/discovery.k8s.io/v1/endpointslices"}
_PAGE = 500
_WATCH_S = 240
_RETRY_S = (1.0, 30.0)
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_OF_SERVICE = "kubernetes.io/service-name"

_Key = tuple[str, str]  # namespace and name
_Place = tuple[str, int]


class _Gone(Exception):
    """The API server does not know changes from that far back: begin again."""


@dataclass(frozen=True, slots=True)
class _Slice:
    service: _Key
    ports: dict[str, int]
    endpoints: dict[str, dict[str, Any]]  # attributes by address


@dataclass(frozen=True, slots=True)
class _Ports:
    addresses: tuple[str, ...]
    ports: dict[str, int]


class ClusterNames:
    """Follows the API server from `with` on, in threads of its own.

    Args:
        url: The API server's.
        account: Folder of the service account's `token` and `ca.crt`; they may be renewed there.
        retry_s: How long is waited after an error, at first and at most.
    """

    def __init__(
        self, url: str, account: Path = _ACCOUNT, retry_s: tuple[float, float] = _RETRY_S
    ) -> None:
        self._url = url.rstrip("/")
        self._account = account
        self._retry_s = retry_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._ports: dict[_Key, _Ports] = {}
        self._slices: dict[_Key, _Slice] = {}
        self._slices_of: dict[_Key, set[_Key]] = {}
        self._services: dict[_Place, Service] = {}
        self.backends = Backends()
        self._is_full = False

    @classmethod
    def in_cluster(cls, environ: Mapping[str, str] = os.environ) -> ClusterNames:
        """With what Kubernetes gives each pod.

        Raises:
            K8sTracingError: This is no pod, or one without a service account.
        """
        host, port = (environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        if not host or not (_ACCOUNT / "token").exists():
            raise K8sTracingError(
                "names of Services from Kubernetes need a pod with a service account that may get, list and watch "
                "services and endpointslices; elsewhere --services takes a FILE"
            )
        return cls(f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}")

    def service(self, address: str, port: int) -> Service | None:
        """The Service with that virtual IP and port."""
        return self._services.get((address, port))

    def __enter__(self) -> Self:
        for kind in _PATHS:
            threading.Thread(
                target=self._follow, args=(kind,), name=f"names-{kind}", daemon=True
            ).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()  # a thread that reads ends with the process

    def _follow(self, kind: str) -> None:
        """List and watch one kind until the end; an error is told once, until it works again."""
        wait_s, told = self._retry_s[0], False
        while not self._stop.is_set():
            try:
                version = self._list(kind)
                if told:
                    log.info("names of Services come from the API server again (%s)", kind)
                wait_s, told = self._retry_s[0], False
                while not self._stop.is_set():
                    version = self._watch(kind, version)
            except _Gone:
                self._stop.wait(random.uniform(0, wait_s))  # noqa: S311
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                if not told:
                    log.warning(
                        "names of Services cannot be read from the API server (%s): %s; it is tried again, and "
                        "what was known stays",
                        kind,
                        error,
                    )
                told = True
                self._stop.wait(random.uniform(wait_s / 2, wait_s))  # noqa: S311
                wait_s = min(2 * wait_s, self._retry_s[1])

    def _list(self, kind: str) -> str:
        """Take in all objects of a kind; return the version that they are of."""
        known: set[_Key] = set()
        parameters = {"limit": str(_PAGE)}
        while True:
            with self._get(kind, parameters) as response:
                page = response.json()
            for content in page.get("items") or ():
                known.add(self._put(kind, content))
            parameters["continue"] = page["metadata"].get("continue") or ""
            if not parameters["continue"]:
                break
        with self._lock:
            for key in [key for key in self._known(kind) if key not in known]:
                self._index(self._remove(kind, key))
        return str(page["metadata"]["resourceVersion"])

    def _watch(self, kind: str, version: str) -> str:
        """Take in what changes until the API server ends the watch; return the last version."""
        parameters = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_S),
        }
        with self._get(kind, parameters) as response:
            for event in _lines(response):
                content = event["object"]
                if event["type"] == "ERROR":
                    if content.get("code") == 410:
                        raise _Gone
                    raise ValueError(content.get("message") or "the watch failed")
                version = content["metadata"]["resourceVersion"]
                if event["type"] == "DELETED":
                    with self._lock:
                        self._index(self._remove(kind, _key(content)))
                elif event["type"] != "BOOKMARK":
                    self._put(kind, content)
        return version

    def _get(self, kind: str, parameters: Mapping[str, str]) -> requests.Response:
        headers, authority = {}, True
        token, certificate = self._account / "token", self._account / "ca.crt"
        if token.exists():
            headers["Authorization"] = f"Bearer {token.read_text().strip()}"
        response = requests.get(
            self._url + _PATHS[kind],
            params=dict(parameters),
            headers=headers,
            verify=str(certificate) if certificate.exists() else authority,
            stream=True,
            timeout=(5.0, _WATCH_S + 30.0),
        )
        if response.status_code == 410:
            response.close()
            raise _Gone
        response.raise_for_status()
        return response

    def _known(self, kind: str) -> Mapping[_Key, object]:
        return self._ports if kind == "services" else self._slices

    def _put(self, kind: str, content: dict[str, Any]) -> _Key:
        key = _key(content)
        with self._lock:
            known = self._known(kind)
            if key not in known and len(known) >= MAX_OBJECTS:
                if not self._is_full:
                    log.warning("names: more than %d %s; others have none", MAX_OBJECTS, kind)
                self._is_full = True
                return key
            of = self._remove(kind, key)
            if kind == "services":
                self._ports[key] = _ports(content)
                of = key
            elif (found := _slice(content)) is not None:
                self._slices[key] = found
                self._slices_of.setdefault(found.service, set()).add(key)
                if of != found.service:
                    self._index(of)
                of = found.service
            self._index(of)
        return key

    def _remove(self, kind: str, key: _Key) -> _Key | None:
        """Take an object out; return the Service that is to be indexed then, if there is one."""
        if kind == "services":
            for place in _places(self._ports.pop(key, None)):
                self._services.pop(place, None)
            return key
        old = self._slices.pop(key, None)
        if old is None:
            return None
        slices = self._slices_of[old.service]
        slices.discard(key)
        if not slices:
            del self._slices_of[old.service]
        return old.service

    def _index(self, key: _Key | None) -> None:
        """Say anew what the ports of a Service are called, and which endpoints each has."""
        if key is None:
            return
        service = self._ports.get(key)
        if service is None:
            self.backends.remove(*key)
            return
        slices = [self._slices[each] for each in self._slices_of.get(key, ())]
        routes = []
        for name, port in service.ports.items():
            leads_to = {
                (address, each.ports[name]): attributes
                for each in slices  # an endpoint may stand in two of them for a while
                if name in each.ports
                for address, attributes in each.endpoints.items()
            }
            said = describe(*key, name, len({address for address, _ in leads_to}))
            for address in service.addresses:
                if self._services.get((address, port)) != said:
                    self._services[address, port] = said
            if service.addresses:
                endpoints = [(*place, attributes) for place, attributes in leads_to.items()]
                routes.append((backend(*key, service.addresses, port, said), endpoints))
        self.backends.put(*key, routes)


def _places(service: _Ports | None) -> Iterator[_Place]:
    for address in service.addresses if service is not None else ():
        for port in service.ports.values() if service is not None else ():
            yield address, port


def _key(content: dict[str, Any]) -> _Key:
    metadata = content["metadata"]
    return metadata["namespace"], metadata["name"]


def _ports(content: dict[str, Any]) -> _Ports:
    spec = content["spec"]
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP") or "None"]
    return _Ports(
        tuple(address for address in addresses if address != "None"),
        {
            port.get("name") or "": int(port["port"])
            for port in spec.get("ports") or ()
            if port.get("protocol", "TCP") == "TCP"  # a Service of DNS has the same port twice
        },
    )


def _slice(content: dict[str, Any]) -> _Slice | None:
    """None: it belongs to no Service, or to one by names instead of addresses."""
    service = (content["metadata"].get("labels") or {}).get(_OF_SERVICE)
    if not service or content.get("addressType") == "FQDN":
        return None
    endpoints: dict[str, dict[str, Any]] = {}
    for endpoint in content.get("endpoints") or ():
        if (endpoint.get("conditions") or {}).get("ready") is False:
            continue
        target = endpoint.get("targetRef") or {}
        attributes = {
            "k8s.pod.name": target.get("name") if target.get("kind") == "Pod" else None,
            "k8s.node.name": endpoint.get("nodeName"),
        }
        for address in endpoint["addresses"]:
            endpoints[address] = {key: value for key, value in attributes.items() if value}
    ports = {port.get("name") or "": port.get("port") for port in content.get("ports") or ()}
    return _Slice(
        (content["metadata"]["namespace"], service),
        {name: int(port) for name, port in ports.items() if port},
        endpoints,
    )


def _lines(response: requests.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines(chunk_size=None):
        if line:
            yield json.loads(line)
