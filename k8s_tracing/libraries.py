# SPDX-License-Identifier: Apache-2.0
"""The shared objects that the build puts beside the package, bound with cffi by the page of their ABI."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import cffi

import k8s_tracing
from k8s_tracing.errors import K8sTracingError


@functools.cache
def load(name: str) -> tuple[cffi.FFI, Any]:
    """Load `libk8s_tracing_<name>.so`, whose ABI is `<name>.cdef.txt`.

    Raises:
        K8sTracingError: It is not installed, or cannot be loaded.
    """
    ffi = cffi.FFI()
    ffi.cdef(_installed(f"{name}.cdef.txt").read_text())
    library = _installed(f"libk8s_tracing_{name}.so")
    try:
        return ffi, ffi.dlopen(str(library))
    except OSError as error:
        raise K8sTracingError(
            f"{library.name} cannot be loaded: {error}. Reinstall k8s-tracing"
        ) from error


def _installed(name: str) -> Path:
    """Find what the build made: in an editable install that is not beside the source."""
    for folder in k8s_tracing.__path__:
        path = Path(folder) / name
        if path.is_file():
            return path
    raise K8sTracingError(
        f"{name} is not installed: this build has none. Reinstall k8s-tracing where there is a C compiler"
    )
