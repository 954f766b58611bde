"""Functions wrapped in spans."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def decorate(function: F, new_span: Callable[[], AbstractContextManager[object]]) -> F:
    """Return `function` with a span around each call; around the whole of it where it is a coroutine function.

    Args:
        function: a function, method or coroutine function.
        new_span: makes the span of one call, to be entered.

    Raises:
        TypeError: `function` is no function, or a generator function, whose body does not run in the call.
    """
    if isinstance(function, (staticmethod, classmethod)):
        kind = type(function)
        return cast(F, kind(decorate(function.__func__, new_span)))
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__} is a generator: it runs when it is iterated, not when it is called. "
            "Use `with k8s_tracing.span(...)` inside it."
        )
    if not callable(function):
        raise TypeError(f"only functions can be traced, not {type(function).__name__}")
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def traced_coroutine(*args: Any, **kwargs: Any) -> Any:
            with new_span():
                return await function(*args, **kwargs)

        return cast(F, traced_coroutine)

    @functools.wraps(function)
    def traced_function(*args: Any, **kwargs: Any) -> Any:
        with new_span():
            return function(*args, **kwargs)

    return cast(F, traced_function)


def default_name(function: Callable[..., Any]) -> str:
    """Return the span name of a function: its qualified name without where it was defined locally."""
    inner = getattr(function, "__func__", function)
    name: str = getattr(inner, "__qualname__", type(inner).__qualname__)
    return name.rpartition("<locals>.")[2]
