# SPDX-License-Identifier: Apache-2.0
"""Who this process is: the resource attributes of its spans.

Names are OpenTelemetry's semantic conventions 1.44 (service, telemetry, process, host, os, container, k8s). What the
user says goes before environment variables, and these go before what files say.
"""

from __future__ import annotations

import os
import platform
import sys
import uuid
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from opentelemetry.util.types import AttributeValue

from k8s_tracing import kubernetes

Attributes = dict[str, AttributeValue]

_INSTANCE = "service.instance.id"
_instance_id = ""  # the last one that was made here


def version() -> str:
    """Return this package's version."""
    try:
        return metadata.version("k8s-tracing")
    except metadata.PackageNotFoundError:  # run from a folder that was never installed
        return "0"


def detect(
    service_name: str | None,
    given: Mapping[str, AttributeValue],
    root: Path = Path("/"),
    environ: Mapping[str, str] = os.environ,
) -> Attributes:
    """Return all that is known of this process.

    Args:
        service_name: name of the service; `unknown_service:<program>` when None, as OpenTelemetry says.
        given: attributes from the user and OTEL_RESOURCE_ATTRIBUTES; they win over what is detected.
        root: where /proc and /var lie.
        environ: where the variables of the Downward API are.
    """
    attributes: Attributes = {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "k8s_tracing",
        "telemetry.sdk.version": version(),
        "telemetry.distro.name": "k8s_tracing",
        "telemetry.distro.version": version(),
        "host.name": platform.node(),
        "host.arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(
            platform.machine(), platform.machine()
        ),
        "os.type": platform.system().lower(),
        **process_attributes(),
        **kubernetes.identity(environ, root),
    }
    container = kubernetes.container_id(environ, root)
    if container:
        attributes["container.id"] = container
    attributes.update(given)
    program = Path(sys.executable or "python").name
    attributes["service.name"] = (
        service_name or given.get("service.name") or f"unknown_service:{program}"
    )
    return attributes


def process_attributes() -> Attributes:
    """Return what is another in each process.

    The conventions want a `service.instance.id` that no other process of the service has: a random UUID, unless the
    user gives one. The command line is left out: it may hold secrets.
    """
    global _instance_id
    _instance_id = str(uuid.uuid4())
    return {
        _INSTANCE: _instance_id,
        "process.pid": os.getpid(),
        "process.executable.name": Path(sys.executable or "python").name,
        "process.executable.path": sys.executable or "",
        "process.runtime.name": sys.implementation.name,
        "process.runtime.version": platform.python_version(),
    }


def in_child(attributes: Mapping[str, AttributeValue]) -> Attributes:
    """Return the attributes of a forked child, given its parent's; an instance id that the user gave stays."""
    own: Attributes = {"process.pid": os.getpid()}
    if attributes.get(_INSTANCE) == _instance_id:
        own |= process_attributes()
    return {**attributes, **own}
