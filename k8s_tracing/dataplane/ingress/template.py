# SPDX-License-Identifier: Apache-2.0
"""The proxies' configuration files beside this module, with the user's names filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from k8s_tracing.errors import K8sTracingError

# They end up between quotes of the proxy's own language and of JSON.
_NAME = re.compile(r"[A-Za-z0-9._/-]{1,128}\Z")
_TARGET = re.compile(r"[A-Za-z0-9._/:@\[\]-]{1,256}\Z")


def template(name: str, fields: Mapping[str, str], service: str, target: str) -> str:
    """Fill in a template.

    Args:
        name: Of the file.
        fields: Of the JSON object that is logged, with the proxy's expressions as values.
        service: What the spans call the proxy.
        target: Where it logs to.

    Raises:
        K8sTracingError: A name has characters that would have to be escaped.
    """
    if not _NAME.match(service):
        raise K8sTracingError(
            f"a service name of letters, digits, '.', '_', '/' and '-' is needed, not {service!r}"
        )
    if not _TARGET.match(target):
        raise K8sTracingError(f"not an address that a proxy can log to: {target!r}")
    line = "{" + ",".join(f'"{key}":"{value}"' for key, value in fields.items()) + "}"
    text = Path(__file__).with_name(name).read_text()
    return text.replace("@FORMAT@", line).replace("@SERVICE@", service).replace("@TARGET@", target)
