# SPDX-License-Identifier: Apache-2.0
"""Functions wrapped in spans."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar, cast

from opentelemetry import trace

F = TypeVar("F", bound=Callable[..., Any])


def decorate(function: F, tracer: trace.Tracer, name: str, **arguments: Any) -> F:
    """Return `function` with a span around each of its runs.

    A coroutine's span lasts until it has run. A generator's lasts from its first step to its end, and is current only
    while the generator's own code runs: whoever iterates over it keeps his own current span.

    Args:
        function: a function, method, coroutine function, generator function or asynchronous generator function.
        tracer: makes the spans.
        name: their name.
        arguments: what ``start_as_current_span`` takes beside it.

    Raises:
        TypeError: `function` is none of these.
    """
    if isinstance(function, (staticmethod, classmethod)):
        kind = type(function)
        return cast(F, kind(decorate(function.__func__, tracer, name, **arguments)))
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"functions can be traced, {function!r} is none")
    if inspect.isasyncgenfunction(function):
        return cast(F, _async_generator(function, tracer, name, arguments))
    if inspect.isgeneratorfunction(function):
        return cast(F, _generator(function, tracer, name, arguments))
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def traced_coroutine(*args: Any, **kwargs: Any) -> Any:
            with tracer.start_as_current_span(name, **arguments):
                return await function(*args, **kwargs)

        return cast(F, traced_coroutine)

    @functools.wraps(function)
    def traced_function(*args: Any, **kwargs: Any) -> Any:
        with tracer.start_as_current_span(name, **arguments):
            return function(*args, **kwargs)

    return cast(F, traced_function)


def default_name(function: Callable[..., Any]) -> str:
    """Return the span name of a function: its qualified name, without where it was defined."""
    inner = getattr(function, "__func__", function)
    name: str = getattr(inner, "__qualname__", type(inner).__qualname__)
    return name.rpartition("<locals>.")[2]


class _Run:
    """The span of one generator: entered for each of its steps, ended with the last."""

    def __init__(self, tracer: trace.Tracer, name: str, arguments: dict[str, Any]) -> None:
        self.end_on_exit = arguments.get("end_on_exit", True)
        start = {key: value for key, value in arguments.items() if key != "end_on_exit"}
        self.options = {
            option: arguments.get(option, True)
            for option in ("record_exception", "set_status_on_exception")
        }
        self.span = tracer.start_span(name, **start)

    def step(self) -> Any:
        return trace.use_span(self.span, **self.options)

    def end(self) -> None:
        if self.end_on_exit:
            self.span.end()


def _generator(
    function: Callable[..., Generator[Any, Any, Any]],
    tracer: trace.Tracer,
    name: str,
    arguments: dict[str, Any],
) -> Callable[..., Generator[Any, Any, Any]]:
    @functools.wraps(function)
    def traced_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        generator = function(*args, **kwargs)
        run = _Run(tracer, name, arguments)
        resume: Callable[[], Any] = functools.partial(next, generator)
        try:
            while True:
                with run.step():
                    try:
                        item = resume()
                    except StopIteration as stop:
                        return stop.value
                try:
                    resume = functools.partial(generator.send, (yield item))
                except GeneratorExit:
                    with run.step():
                        generator.close()
                    raise
                except BaseException as error:
                    resume = functools.partial(generator.throw, error)
        finally:
            run.end()

    return traced_generator


def _async_generator(
    function: Callable[..., AsyncGenerator[Any, Any]],
    tracer: trace.Tracer,
    name: str,
    arguments: dict[str, Any],
) -> Callable[..., AsyncGenerator[Any, Any]]:
    @functools.wraps(function)
    async def traced_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        generator = function(*args, **kwargs)
        run = _Run(tracer, name, arguments)
        resume: Callable[[], Any] = generator.__anext__
        try:
            while True:
                with run.step():
                    try:
                        item = await resume()
                    except StopAsyncIteration:
                        return
                try:
                    resume = functools.partial(generator.asend, (yield item))
                except GeneratorExit:
                    with run.step():
                        await generator.aclose()
                    raise
                except BaseException as error:
                    resume = functools.partial(generator.athrow, error)
        finally:
            run.end()

    return traced_generator
