"""Who this process is: the resource attributes of its spans.

Names are OpenTelemetry's semantic conventions 1.4x (service, telemetry, process, host, os, container).
"""

from __future__ import annotations

import os
import platform
import re
import sys
import uuid
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from opentelemetry.util.types import AttributeValue

Attributes = dict[str, AttributeValue]

_CONTAINER_ID = re.compile(r"(?:^|[-/:])([0-9a-f]{64})(?:\.scope)?$")
#: Files that a container runtime mounts from the container's own folder: .../containers/<id>/hostname
_OWN_FOLDER = re.compile(
    r"/containers/([0-9a-f]{64})/(?:userdata/)?(?:hostname|resolv\.conf|hosts)$"
)


def version() -> str:
    """Return this package's version."""
    try:
        return metadata.version("k8s-tracing")
    except metadata.PackageNotFoundError:  # run from a folder that was never installed
        return "0"


def detect(
    service_name: str | None, given: Mapping[str, AttributeValue], root: Path = Path("/")
) -> Attributes:
    """Return all that is known of this process.

    Args:
        service_name: name of the service; `unknown_service:<program>` when None, as OpenTelemetry says.
        given: attributes from the user and OTEL_RESOURCE_ATTRIBUTES; they win over what is detected.
        root: where /proc and /etc lie.
    """
    attributes: Attributes = {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "k8s_tracing",
        "telemetry.sdk.version": version(),
        "host.name": platform.node(),
        "host.arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(
            platform.machine(), platform.machine()
        ),
        "os.type": platform.system().lower(),
        **process_attributes(),
    }
    container = container_id(root)
    if container:
        attributes["container.id"] = container
    attributes.update(given)
    program = Path(sys.executable or "python").name
    attributes["service.name"] = (
        service_name or given.get("service.name") or f"unknown_service:{program}"
    )
    return attributes


def process_attributes() -> Attributes:
    """Return what is another in each process, also in a forked one.

    The command line is left out: it may hold secrets.
    """
    return {
        "service.instance.id": str(uuid.uuid4()),
        "process.pid": os.getpid(),
        "process.executable.name": Path(sys.executable or "python").name,
        "process.executable.path": sys.executable or "",
        "process.runtime.name": sys.implementation.name,
        "process.runtime.version": platform.python_version(),
    }


def container_id(root: Path = Path("/")) -> str | None:
    """Return the id of the container this process runs in, 64 hex digits, or None.

    From /proc/self/cgroup (version 1, or version 2 without a cgroup namespace). With a namespace that file says
    "0::/", and the mounted /etc/hostname tells, but not in Kubernetes: there it lies in the pod sandbox's folder and
    would name the pause container.
    """
    for line in _lines(root / "proc/self/cgroup"):
        found = _CONTAINER_ID.search(line.strip())
        if found:
            return found.group(1)
    if _in_kubernetes(root):
        return None
    for line in _lines(root / "proc/self/mountinfo"):
        fields = line.split()
        found = _OWN_FOLDER.search(fields[3]) if len(fields) > 3 else None
        if found:
            return found.group(1)
    return None


def _in_kubernetes(root: Path) -> bool:
    return (
        "KUBERNETES_SERVICE_HOST" in os.environ
        or (root / "var/run/secrets/kubernetes.io").exists()
        or any("/kubelet/pods/" in line for line in _lines(root / "proc/self/mountinfo"))
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
