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
        K8sTracingError: It is not installed, is of another build than the Python code, or cannot be loaded.
    """
    ffi = cffi.FFI()
    page = _installed(f"{name}.cdef.txt")
    ffi.cdef(page.read_text())
    _check_that_it_is_of_this_source(page)
    library = _installed(f"libk8s_tracing_{name}.so")
    try:
        return ffi, ffi.dlopen(str(library))
    except OSError as error:
        raise K8sTracingError(
            f"{library.name} cannot be loaded: {error}. Reinstall k8s-tracing"
        ) from error


def _check_that_it_is_of_this_source(page: Path) -> None:
    """Tell an editable install whose C was not compiled again; else a name that is missing would raise anywhere."""
    source = Path(k8s_tracing.__file__).parents[1] / "_native" / page.name
    if source.is_file() and source.read_bytes() != page.read_bytes():
        raise K8sTracingError(
            f"{page.parent} was compiled from another version of {source}, and does not fit the Python code: "
            "`make setup` compiles it again, and so does `pip install --editable .`"
        )


def _installed(name: str) -> Path:
    """Find what the build made: in an editable install that is not beside the source."""
    for folder in k8s_tracing.__path__:
        path = Path(folder) / name
        if path.is_file():
            return path
    raise K8sTracingError(
        f"{name} is not installed: this build has none. Reinstall k8s-tracing where there is a C compiler"
    )
