# SPDX-License-Identifier: Apache-2.0
"""Which pod and container a process is in, as the node knows it: namespaces -> /proc -> cgroup.

What a process says of itself anybody can say. LTTng's contexts, which are recorded with it, are the kernel's: the inode
number of its PID namespace, and its process id there. /proc has the process with these, and the cgroup that the
container runtime put it into: docs/explanation/identity.md.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from k8s_tracing import kubernetes
from k8s_tracing.agent.processes import Found, Proc
from k8s_tracing.agent.relay import Process

log = logging.getLogger(__name__)

POD_UID = "k8s.pod.uid"
CONTAINER_ID = "container.id"

#: An inode number is given to another namespace when its last process is gone; a container that is restarted
#: gets other ones.
_REMEMBERED_S = 60.0
_MANY = 4096


@dataclass(frozen=True, slots=True)
class Container:
    """Where a process runs; None where it is not in a pod, or in no container."""

    pod_uid: str | None
    container_id: str | None


class Identities:
    """Says what the resource of each process is.

    Attributes:
        replaced: Processes whose own word on their container was another one than the node's.
    """

    def __init__(self, proc: Proc) -> None:
        self.replaced = 0
        self._proc = proc
        # For processes that are gone before anybody looks: who else was in the namespaces, and when.
        self._seen: dict[tuple[int, int], tuple[Container, float]] = {}
        self._warned: set[int] = set()

    def resource(self, process: Process) -> bytes | None:
        """Return the resource to hand out: OTLP Resource fields; None if it is what the process says.

        Its pod's uid and its container's id are the node's word. All other attributes of Kubernetes (names of the pod,
        the namespace, the node) are the process's, and dropped if it names another pod than the node does.
        """
        container = self.container(process)
        if container is None:
            return None
        true = {POD_UID: container.pod_uid}
        if container.container_id:
            true[CONTAINER_ID] = container.container_id
        attributes = Resource.FromString(process.resource).attributes
        claims = [(each.key, each.value.string_value) for each in attributes if each.key in true]
        if sorted(claims) == sorted((key, value) for key, value in true.items() if value):
            return None
        wrong = {key for key, value in claims if value != true[key]}
        if wrong:
            self._contradicted(process, [claim for claim in claims if claim[0] in wrong], true)
        # The names of a pod that it is not in are no better than its uid.
        another_pod = POD_UID in wrong
        answer = Resource()
        answer.attributes.extend(
            each
            for each in attributes
            if each.key not in true and not (another_pod and each.key.startswith("k8s."))
        )
        for key, value in true.items():
            if value:
                answer.attributes.add(key=key).value.string_value = value
        return answer.SerializeToString()

    def _contradicted(
        self, process: Process, claims: list[tuple[str, str]], true: Mapping[str, str | None]
    ) -> None:
        """Count it, and log it once for a process, which could claim another thing every time."""
        self.replaced += 1
        if process.instance_id in self._warned:
            return
        if len(self._warned) > _MANY:
            self._warned.clear()
        self._warned.add(process.instance_id)
        log.warning(
            "a process (%d in PID namespace %d) says that it has %s; the node knows %s, and that is taken",
            process.vpid,
            process.pid_ns,
            ", ".join(f"{key} {value!r}" for key, value in claims),
            ", ".join(f"{key} {value or 'none'}" for key, value in true.items()),
        )

    def container(self, process: Process) -> Container | None:
        """Where a process runs, or ran a moment ago; None if that is no container, or not known."""
        found = self._proc.find(process)
        if found is not None:
            return self._remember(process, found)
        if not process.pid_ns or process.pid_ns == self._proc.node_namespace():
            return None
        container, seen_s = self._seen.get((process.pid_ns, process.cgroup_ns), (None, 0.0))
        if container is None or time.monotonic() - seen_s > _REMEMBERED_S:
            return None
        return container

    def _remember(self, process: Process, found: Found) -> Container | None:
        container = self._read(found)
        if container is not None and found.pid_ns != self._proc.node_namespace():
            key = (process.pid_ns, process.cgroup_ns)
            now_s = time.monotonic()
            before, seen_s = self._seen.get(key, (container, now_s))
            known = container
            if before != container and now_s - seen_s <= _REMEMBERED_S:
                # a pod whose containers share their namespaces: of one that is gone, the pod is known
                known = Container(container.pod_uid, None)
            self._seen[key] = known, now_s
            self._forget(now_s)
        return container

    def _read(self, found: Found) -> Container | None:
        lines = self._proc.cgroup(found.pid)
        container = Container(
            kubernetes.pod_in_cgroup(lines), kubernetes.container_in_cgroup(lines)
        )
        return container if container.pod_uid or container.container_id else None

    def _forget(self, now_s: float) -> None:
        if len(self._seen) > _MANY:
            for key, (_, seen_s) in list(self._seen.items()):
                if now_s - seen_s > _REMEMBERED_S:
                    del self._seen[key]


def service_name(process: Process) -> str:
    """The name of a process's service, as it gives it; empty without."""
    attributes = Resource.FromString(process.resource).attributes
    names = [each.value.string_value for each in attributes if each.key == "service.name"]
    return names[0] if names else ""
