# SPDX-License-Identifier: Apache-2.0
"""Spans into LTTng-UST's shared memory: nothing is queued or sent by this process.

A span is in memory that another process owns as soon as it has started, and again when it has ended, so neither exit
nor SIGKILL loses one.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cffi
from opentelemetry.util import types

from k8s_tracing import _core
from k8s_tracing.backends.native import NativeTracers
from k8s_tracing.errors import BackendUnavailable
from k8s_tracing.procfs import KEY, process_key
from k8s_tracing.resource import in_child
from k8s_tracing.sampling import Sampling
from k8s_tracing.settings import Limits

_ffi = cffi.FFI()
_library: Any = None


def load() -> Any:
    """Load the LTTng provider and return cffi's handle of it; for good, LTTng cannot be unloaded.

    Raises:
        BackendUnavailable: it was not built, or liblttng-ust is missing.
    """
    global _library
    if _library is None:
        folder = Path(_core.__file__).parent
        path = folder / "libk8s_tracing_lttng.so"
        if not path.exists():
            raise BackendUnavailable(
                "k8s-tracing was built without LTTng: install its headers (Debian, Ubuntu: "
                "apt-get install liblttng-ust-dev) and install k8s-tracing again"
            )
        _make_wait_files()
        try:
            library: Any = _ffi.dlopen(str(path))
            _core.connect(path)
        except OSError as error:
            raise BackendUnavailable(
                f"the LTTng provider cannot be loaded ({error}): install liblttng-ust "
                "(Debian, Ubuntu: apt-get install liblttng-ust1)"
            ) from error
        _ffi.cdef((folder / "lttng.cdef.txt").read_text())
        if library.k8s_tracing_handle_forks():
            raise MemoryError
        os.register_at_fork(before=library.k8s_tracing_fork_follows)
        _library = library
    return _library


def _make_wait_files() -> None:
    """Let liblttng-ust find a daemon that starts later, also without a shared /dev/shm.

    The library waits on a word in these files which only a daemon that shares /dev/shm can change; with 1 in it the
    library looks for the daemon every 5 s instead. They must be there before it is loaded. Where they are already, or
    cannot be made, the library does what it does by itself.
    """
    for name in ("lttng-ust-wait-8", f"lttng-ust-wait-8-{os.getuid()}"):
        try:
            file = os.open(
                f"/dev/shm/{name}",  # noqa: S108 - LTTng's name; O_EXCL follows nothing that lies there
                os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW,
                0o664,
            )
        except OSError:
            continue
        with os.fdopen(file, "wb") as stream:
            stream.write(struct.pack("=i", 1))


class LttngBackend(NativeTracers):
    """Native spans that go to LTTng.

    Args:
        resource: resource attributes.
        limits: what a span may hold.
        sampling: which traces are recorded.

    Raises:
        BackendUnavailable: LTTng's library or the provider is missing.
    """

    name = "lttng"

    def __init__(
        self,
        resource: Mapping[str, types.AttributeValue],
        limits: Limits,
        sampling: Sampling,
    ) -> None:
        self._library = load()
        super().__init__(resource, limits, sampling, emit=True)
        self._announce_process(resource)
        os.register_at_fork(after_in_child=self._after_fork)

    def _announce_process(self, resource: Mapping[str, types.AttributeValue]) -> None:
        # By it an agent without privileges finds this process; it goes before what a user says under that name.
        key = process_key(Path("/proc/self"))
        encoded = _core.encode_resource({**resource, KEY: key} if key else resource)
        if self._library.k8s_tracing_set_process(_core.random_id(), encoded, len(encoded)):
            raise MemoryError

    def _after_fork(self) -> None:
        """A forked process is an instance of its own."""
        self._resource = in_child(self._resource)
        for tracer in self._scopes.values():
            tracer.resource = self._resource
        self._announce_process(self._resource)

    def _announce(self, number: int, name: str, version: str) -> None:
        encoded = [text.encode("utf-8", "replace") for text in (name, version)]
        if self._library.k8s_tracing_add_scope(number, *encoded):
            raise MemoryError
