"""Pools that carry the context."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import ContextVar

import pytest
from opentelemetry import baggage, context

import k8s_tracing
from k8s_tracing.instrument.threads import ContextExecutor, carry
from k8s_tracing.record import SpanRecord

VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="none")


def work(number: int, *, name: str = "work") -> tuple[int, str, str]:
    with k8s_tracing.span(f"{name} {number}"):
        return number, VARIABLE.get(), threading.current_thread().name


def pools() -> list[Executor]:
    return [ContextExecutor(2, "pool"), carry(ThreadPoolExecutor(2, "pool"))]


@pytest.mark.parametrize("pool", pools(), ids=["own", "carried"])
def test_submitted_and_mapped_work_belongs_to_its_submitter(
    spans: list[SpanRecord], pool: Executor
) -> None:
    VARIABLE.set("mine")
    with pool:
        for round_ in ("first", "second"):  # the pool's threads are made in the first
            with k8s_tracing.span(round_):
                future = pool.submit(work, 0, name="submitted")
                results = [future.result(), *pool.map(work, [1, 2])]
                assert [result[0] for result in results] == [0, 1, 2]
                assert {result[1] for result in results} == {"mine"}
                assert all(result[2].startswith("pool") for result in results)
    rounds = [span for span in spans if span.name in ("first", "second")]
    for round_span in rounds:
        children = [span for span in spans if span.parent_span_id == round_span.span_id]
        assert sorted(span.name for span in children) == ["submitted 0", "work 1", "work 2"]


def test_what_the_work_sets_stays_with_it(spans: list[SpanRecord]) -> None:
    def sets() -> object:
        context.attach(baggage.set_baggage("k", "v"))
        return baggage.get_baggage("k")

    with ContextExecutor(1) as pool:
        assert pool.submit(sets).result() == "v"
        assert pool.submit(baggage.get_baggage, "k").result() is None


def test_exceptions_and_cancelling_are_the_pools(spans: list[SpanRecord]) -> None:
    pool = carry(ThreadPoolExecutor(1))
    started, gate = threading.Event(), threading.Event()

    def block() -> bool:
        started.set()
        return gate.wait(10)

    with pytest.raises(ValueError, match="invalid literal"):
        pool.submit(int, "x").result()
    blocking, waiting = pool.submit(block), pool.submit(work, 1)
    assert started.wait(10)
    pool.shutdown(wait=False, cancel_futures=True)
    assert waiting.cancelled()
    gate.set()
    assert blocking.result() is True
    pool.shutdown()


@pytest.mark.parametrize("pool", [*pools(), None], ids=["own", "carried", "default"])
def test_asyncio_runs_work_in_it(spans: list[SpanRecord], pool: Executor | None) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        if pool is None:
            loop.set_default_executor(ContextExecutor(1))
        with k8s_tracing.span("request"):
            await asyncio.gather(*(loop.run_in_executor(pool, work, n) for n in range(3)))

    asyncio.run(main())
    *workers, request = spans
    assert {span.parent_span_id for span in workers} == {request.span_id}
    assert len(workers) == 3
    if pool is not None:
        pool.shutdown()


def test_a_pool_that_carries_is_not_wrapped_again_and_processes_are_refused() -> None:
    with ContextExecutor(1) as pool:
        assert carry(pool) is pool
    with ProcessPoolExecutor(1) as processes, pytest.raises(TypeError, match="inject"):
        carry(processes)
