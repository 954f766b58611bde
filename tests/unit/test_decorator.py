import asyncio
import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from k8s_tracing.decorator import decorate, default_name

log: list[str] = []


@contextmanager
def recorded() -> Iterator[None]:
    log.append("start")
    try:
        yield
    finally:
        log.append("end")


@pytest.fixture(autouse=True)
def empty_log() -> None:
    log.clear()


def test_a_function_is_called_within_the_span_and_keeps_its_face() -> None:
    def add(a: int, *, b: int) -> int:
        """Add."""
        log.append("body")
        return a + b

    wrapped = decorate(add, recorded)
    assert wrapped(1, b=2) == 3
    assert log == ["start", "body", "end"]
    assert (wrapped.__name__, wrapped.__doc__) == ("add", "Add.")


def test_the_span_of_a_coroutine_function_lasts_until_it_has_run() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        log.append("body")
        return 7

    wrapped = decorate(work, recorded)
    assert inspect.iscoroutinefunction(wrapped)
    assert asyncio.run(wrapped()) == 7
    assert log == ["start", "body", "end"]


def test_static_and_class_methods_stay_what_they_are() -> None:
    class Shop:
        @staticmethod
        def price() -> int:
            return 1

        @classmethod
        def name(cls) -> str:
            return cls.__name__

        price = decorate(price, recorded)
        name = decorate(name, recorded)

    assert (Shop.price(), Shop.name(), Shop().price()) == (1, "Shop", 1)
    assert log == ["start", "end"] * 3


def test_a_generator_function_is_refused_with_what_to_do_instead() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match=r"with k8s_tracing\.span"):
        decorate(numbers, recorded)


def test_the_default_name_has_no_trace_of_where_a_function_was_defined() -> None:
    class Shop:
        def sell(self) -> None: ...

    assert default_name(Shop.sell) == "Shop.sell"
    assert default_name(staticmethod(Shop.sell)) == "Shop.sell"
