# SPDX-License-Identifier: Apache-2.0
"""Where a request's time went, measured in the process: K8S_TRACING_CPU_SPLIT. The measuring is _native/cpu.c."""

from __future__ import annotations

import logging

from k8s_tracing import cgroup

_logger = logging.getLogger("k8s_tracing")

_NATIVE = ("lttng", "memory")


def split(shortest_ns: int, backend: str) -> None:
    """From now on, tell local root spans of at least that length where their thread's time went.

    Args:
        shortest_ns: the limit.
        backend: the name of the backend; only native spans are measured.
    """
    if backend not in _NATIVE:
        if backend != "noop":
            _logger.warning(
                "K8S_TRACING_CPU_SPLIT has no effect: only native spans are measured, and the backend is %s",
                backend,
            )
        return
    from k8s_tracing import _core

    folder = cgroup.own_cpu_folder()
    if folder is None:
        _logger.info(
            "the cgroup's cpu.stat is not found: throttling is not told apart from waiting for a CPU"
        )
    _core.split_cpu(shortest_ns, folder and folder / cgroup.CPU_STAT)
