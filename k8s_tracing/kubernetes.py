# SPDX-License-Identifier: Apache-2.0
"""Which pod and container this process is in, as Kubernetes' own means tell it to a process.

Attribute names are OpenTelemetry's semantic conventions 1.44 (k8s, container).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

#: What a pod's specification puts into its containers' environment through the Downward API, first come, first
#: served: the names of the OpenTelemetry operator, then the usual ones, which mean this only within Kubernetes.
VARIABLES: Mapping[str, tuple[str, ...]] = {
    "k8s.pod.name": ("OTEL_RESOURCE_ATTRIBUTES_POD_NAME", "POD_NAME"),
    "k8s.pod.uid": ("OTEL_RESOURCE_ATTRIBUTES_POD_UID", "POD_UID"),
    "k8s.pod.ip": ("OTEL_POD_IP", "POD_IP"),
    "k8s.namespace.name": ("POD_NAMESPACE",),
    "k8s.node.name": ("OTEL_RESOURCE_ATTRIBUTES_NODE_NAME", "NODE_NAME"),
    # The Downward API does not have it: it is written into the specification, or it is not there.
    "k8s.container.name": ("CONTAINER_NAME",),
}

_NAMESPACE = "var/run/secrets/kubernetes.io/serviceaccount/namespace"

_CONTAINER_ID = re.compile(r"(?:^|[-/:])([0-9a-f]{64})(?:\.scope)?$")
#: Files that a container runtime mounts from the container's own folder: .../containers/<id>/hostname
_OWN_FOLDER = re.compile(
    r"/containers/([0-9a-f]{64})/(?:userdata/)?(?:hostname|resolv\.conf|hosts)$"
)

# A UUID; a pod that the kubelet made from a file has a hash without the dashes. In the name of a systemd slice "-"
# separates levels, so the kubelet writes "_".
_UID = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}"
_POD_IN_CGROUP = re.compile(rf"kubepods.*[-/]pod({_UID})(?:\.slice)?(?:[/:]|$)")
# Another pod's cgroup, as a container with a cgroup namespace of its own sees it: relative to its own, so that
# "kubepods" may not be in it.
_POD_BESIDE = re.compile(rf":/\.\./.*(?<=[-/])pod({_UID})(?:\.slice)?/")
_POD_IN_MOUNT = re.compile(rf"/kubelet/pods/({_UID})/")


def identity(environ: Mapping[str, str], root: Path = Path("/")) -> dict[str, str]:
    """Return the k8s.* attributes of this process; none outside of Kubernetes.

    Args:
        environ: the process's environment, which goes before the files.
        root: where /proc and /var lie.
    """
    inside = is_inside(environ, root)
    found = {}
    for attribute, names in VARIABLES.items():
        for name in names:
            value = environ.get(name, "").strip()
            if value and (inside or name.startswith("OTEL_")):
                found[attribute] = value
                break
    if inside:
        files = {"k8s.namespace.name": _text(root / _NAMESPACE), "k8s.pod.uid": pod_uid(root)}
        found = {**{key: value for key, value in files.items() if value}, **found}
    return found


def is_inside(environ: Mapping[str, str], root: Path = Path("/")) -> bool:
    """Is this process in a pod?"""
    return (
        "KUBERNETES_SERVICE_HOST" in environ
        or (root / "var/run/secrets/kubernetes.io").exists()
        or pod_uid(root) is not None
    )


def pod_uid(root: Path = Path("/")) -> str | None:
    """Return the uid of the pod this process is in, or None.

    From the name of its cgroup, or, with a cgroup namespace, from what the kubelet mounts into each container, such as
    /etc/hosts. A pod that has the node's files mounted sees other pods' mounts as well: those lie in the kubelet's
    folder on this side, too.
    """
    uid = pod_in_cgroup(_lines(root / "proc/self/cgroup"))
    if uid:
        return uid
    for line in _lines(root / "proc/self/mountinfo"):
        fields = line.split()
        if len(fields) > 4 and "/kubelet/pods/" not in fields[4]:
            found = _POD_IN_MOUNT.search(fields[3])
            if found:
                return found[1]
    return None


def container_id(environ: Mapping[str, str], root: Path = Path("/")) -> str | None:
    """Return the id of the container this process is in, 64 hex digits, or None.

    From /proc/self/cgroup (version 1, or version 2 without a cgroup namespace). With a namespace that file says
    "0::/", and the mounted /etc/hostname tells, but not in Kubernetes: there it lies in the pod sandbox's folder and
    would name the pause container.
    """
    container = container_in_cgroup(_lines(root / "proc/self/cgroup"))
    if container:
        return container
    if is_inside(environ, root):
        return None
    for line in _lines(root / "proc/self/mountinfo"):
        fields = line.split()
        found = _OWN_FOLDER.search(fields[3]) if len(fields) > 3 else None
        if found:
            return found[1]
    return None


def pod_in_cgroup(lines: Iterable[str]) -> str | None:
    """Return the uid of the pod that a process is in, by its /proc/PID/cgroup."""
    for line in lines:
        found = _POD_IN_CGROUP.search(line) or _POD_BESIDE.search(line)
        if found:
            return found[1].replace("_", "-")
    return None


def container_in_cgroup(lines: Iterable[str]) -> str | None:
    """Return the id of the container that a process is in, by its /proc/PID/cgroup."""
    for line in lines:
        found = _CONTAINER_ID.search(line.strip())
        if found:
            return found[1]
    return None


def _text(path: Path) -> str:
    return "\n".join(_lines(path)).strip()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
