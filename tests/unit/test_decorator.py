from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest
from opentelemetry import trace

import k8s_tracing
from k8s_tracing.backends.memory import MemoryBackend
from k8s_tracing.decorator import default_name
from k8s_tracing.provider import TracerProvider
from k8s_tracing.record import SpanRecord
from k8s_tracing.sampling import Sampling
from k8s_tracing.settings import Limits
from k8s_tracing.testing import using


@pytest.fixture
def records() -> Iterator[list[SpanRecord]]:
    backend = MemoryBackend({}, Limits(), Sampling())
    with using(TracerProvider(backend)):
        yield backend.records


def current_name() -> str:
    return getattr(trace.get_current_span(), "name", "")


def test_a_function_runs_within_the_span_and_keeps_its_face(records: list[SpanRecord]) -> None:
    @k8s_tracing.traced
    def add(a: int, *, b: int) -> int:
        """Add."""
        assert current_name().endswith("add")
        return a + b

    assert add(1, b=2) == 3
    assert (add.__name__, add.__doc__) == ("add", "Add.")
    assert [span.name for span in records] == ["add"]


def test_a_function_decorated_before_init_is_traced_after_it() -> None:
    @k8s_tracing.traced
    def work() -> str:
        return current_name()

    assert work() == ""
    backend = MemoryBackend({}, Limits(), Sampling())
    with using(TracerProvider(backend)):
        assert work() == "work"


def test_the_span_of_a_coroutine_function_lasts_until_it_has_run(records: list[SpanRecord]) -> None:
    @k8s_tracing.traced("work", {"a": 1})
    async def work() -> str:
        await asyncio.sleep(0)
        return current_name()

    assert inspect.iscoroutinefunction(work)
    assert asyncio.run(work()) == "work"
    assert [dict(span.attributes) for span in records] == [{"a": 1}]


def test_static_and_class_methods_stay_what_they_are(records: list[SpanRecord]) -> None:
    class Shop:
        @k8s_tracing.traced
        @staticmethod
        def price() -> int:
            return 1

        @k8s_tracing.traced
        @classmethod
        def name(cls) -> str:
            return cls.__name__

        @k8s_tracing.traced
        def sell(self) -> str:
            return self.name()

    assert (Shop.price(), Shop.name(), Shop().sell()) == (1, "Shop", "Shop")
    assert [span.name for span in records] == ["Shop.price", "Shop.name", "Shop.name", "Shop.sell"]


def test_a_generators_span_is_current_only_within_it(records: list[SpanRecord]) -> None:
    @k8s_tracing.traced
    def numbers() -> Generator[int, str, str]:
        assert current_name() == "numbers"
        answer = yield 1
        assert current_name() == "numbers"
        return answer

    def outer() -> Generator[int, str, str]:
        return (yield from numbers())

    with k8s_tracing.span("caller"):
        generator = outer()
        assert records == []
        assert next(generator) == 1
        assert current_name() == "caller"
        with pytest.raises(StopIteration) as stop:
            generator.send("answer")
        assert stop.value.value == "answer"
        assert current_name() == "caller"
    assert [span.name for span in records] == ["numbers", "caller"]
    assert records[0].parent_span_id == records[1].span_id
    assert records[0].status == "UNSET"


def test_an_exception_thrown_into_a_generator_reaches_it(records: list[SpanRecord]) -> None:
    @k8s_tracing.traced
    def careful() -> Iterator[str]:
        try:
            yield "first"
        except KeyError:
            yield "caught"

    generator: Any = careful()
    assert next(generator) == "first"
    assert generator.throw(KeyError("x")) == "caught"
    assert list(generator) == []
    assert [span.status for span in records] == ["UNSET"]


def test_an_exception_that_leaves_a_generator_is_recorded(records: list[SpanRecord]) -> None:
    @k8s_tracing.traced
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(broken())
    assert [(span.status, span.status_message) for span in records] == [
        ("ERROR", "ValueError: no more")
    ]


def test_a_generator_that_is_closed_early_cleans_up_and_is_no_error(
    records: list[SpanRecord],
) -> None:
    seen = []

    @k8s_tracing.traced
    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            seen.append(current_name())

    for _ in endless():
        break
    assert seen == ["endless"]
    assert [span.status for span in records] == ["UNSET"]


def test_asynchronous_generators_likewise(records: list[SpanRecord]) -> None:
    @k8s_tracing.traced
    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0)
            assert current_name() == "numbers"
            yield number

    async def main() -> list[int]:
        with k8s_tracing.span("caller"):
            found = []
            async for number in numbers():
                assert current_name() == "caller"
                found.append(number)
            return found

    assert asyncio.run(main()) == [0, 1, 2]
    assert [span.name for span in records] == ["numbers", "caller"]


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match="functions can be traced"):
        k8s_tracing.traced(7)  # type: ignore[call-overload]

    class Shop: ...

    with pytest.raises(TypeError, match="functions can be traced"):
        k8s_tracing.traced(Shop)


def test_the_default_name_has_no_trace_of_where_a_function_was_defined() -> None:
    class Shop:
        def sell(self) -> None: ...

    assert default_name(Shop.sell) == "Shop.sell"
    assert default_name(staticmethod(Shop.sell)) == "Shop.sell"
