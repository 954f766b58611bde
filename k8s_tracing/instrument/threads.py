# SPDX-License-Identifier: Apache-2.0
"""Pools whose work belongs to the span that gave it to them.

A thread begins with an empty context, a pool's thread has the one it was started in: spans that they make are not the
children of the span that asked for the work. Here each piece of work gets a copy of the context of whoever submits it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import copy_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class ContextExecutor(ThreadPoolExecutor):
    """A ThreadPoolExecutor that runs each call in the context it was submitted in.

    That goes for `submit`, `map`, ``loop.run_in_executor`` and, as the loop's default executor, for all that asyncio
    runs in threads. Its arguments are those of ThreadPoolExecutor.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` in a thread, in a copy of the caller's context."""
        return super().submit(copy_context().run, fn, *args, **kwargs)  # type: ignore[arg-type]


class _Carrying(Executor):
    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return self._executor.submit(copy_context().run, fn, *args, **kwargs)  # type: ignore[arg-type]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._executor.shutdown(wait, cancel_futures=cancel_futures)


def carry(executor: Executor) -> Executor:
    """Return an executor that gives its work to `executor`, each call in a copy of its submitter's context.

    Args:
        executor: a pool of threads that somebody else made.

    Raises:
        TypeError: the pool's workers are processes, which a context cannot reach; pass headers of `inject` instead.
    """
    if isinstance(executor, ProcessPoolExecutor):
        raise TypeError(
            "a context does not reach another process: inject() into a dict here, give that to the work, and "
            "use extracted() there"
        )
    return executor if isinstance(executor, ContextExecutor) else _Carrying(executor)
