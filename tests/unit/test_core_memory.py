"""The native span leaks nothing, is collected when it is part of a cycle, and touches no memory that is not its own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
import weakref
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, StatusCode
from opentelemetry.trace.span import TraceState

from k8s_tracing import _core, native

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
LINK = SpanContext(1, 2, True, trace.TraceFlags(1), TraceState([("a", "b")]))


class Trap:
    def __str__(self) -> NoReturn:
        raise ValueError("a trap")

    __repr__ = __bool__ = __index__ = __str__  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Nothing that a warning allocates is counted, nor what other tests left to collect, or is looked at again."""
    gc.collect()
    gc.freeze()
    native._logger.disabled = True
    yield
    native._logger.disabled = False
    gc.unfreeze()


@pytest.fixture
def tracer() -> Any:
    tracer = _core.Tracer(native.Scope("tests"), {}, 1, False)
    tracer.listen(lambda span, parent: None, lambda span: None)
    return tracer


# ---- what a loop of it must leave behind: nothing


def bare(tracer: Any) -> None:
    with tracer.start_as_current_span("work"), tracer.start_as_current_span("child"):
        pass


def attributes(tracer: Any) -> None:
    with tracer.start_as_current_span("work", attributes={"a": 1, "b": "x" * 5000}) as span:
        span.set_attribute("c", [1, "x", None, {"k": [b"x", 0.5]}])
        span.set_attributes({f"key {n}": 2**70 for n in range(40)})
        span.set_attribute("a", "\ud800" * 300)
        _ = span.attributes


def hostile(tracer: Any) -> None:
    with tracer.start_as_current_span(
        Trap(), links=[Trap(), Link(LINK)], start_time=Trap(), end_on_exit=Trap()
    ) as span:
        span.set_attributes({"a": Trap(), "b": [Trap(), 1], "c": {"d": Trap()}, 1: 2, "": 3})
        span.set_attributes(Trap())
        span.add_link(Trap(), Trap())
        span.add_event(Trap(), {"a": Trap()}, Trap())
        span.set_status(Trap())
        span.end(Trap())


def events_and_links(tracer: Any) -> None:
    with tracer.start_as_current_span("work", links=[Link(LINK, {"a": [1]})]) as span:
        span.add_event("event", {"a": 1})
        span.add_link(LINK, {"a": 1})
        span.update_name("renamed")
        span.set_status(StatusCode.ERROR, "text")
        _ = span.events, span.links, span.status, span.parent, span.kind, span.context, repr(span)


def measured(tracer: Any) -> None:
    """Where its time went: alone, within another root, on another thread's, never ended."""
    _core.split_cpu(0, "/proc/self/status")
    with tracer.start_as_current_span("work"):
        tracer.start_span("root", context=Context()).end()
    tracer.start_span("dropped", context=Context())
    _core.split_cpu(-1, None)


def exceptions(tracer: Any) -> None:
    with contextlib.suppress(ValueError), tracer.start_as_current_span("work"):
        raise ValueError("x")


def contexts(tracer: Any) -> None:
    token = context.attach(baggage.set_baggage("a", "b"))
    with tracer.start_as_current_span("work") as span:
        inner = context.attach(context.set_value("key", span))
        with tracer.start_as_current_span("child", context=trace.set_span_in_context(span)):
            context.get_current()
        with trace.use_span(tracer.start_span("other", trace.set_span_in_context(span))):
            tracer.start_span("never ended")
        context.detach(inner)
    context.detach(token)


def entered_again(tracer: Any) -> None:
    token = context.attach(baggage.set_baggage("a", "b"))
    span = tracer.start_as_current_span("work", end_on_exit=False)
    for _ in range(3):
        with span:
            pass
    context.detach(token)


def remote(tracer: Any) -> None:
    parent = trace.set_span_in_context(trace.NonRecordingSpan(LINK))
    with tracer.start_as_current_span("work", context=parent) as span:
        _ = span.get_span_context().trace_state, span.parent


def decorated(tracer: Any) -> None:
    @tracer.start_as_current_span("work", attributes={"a": 1})
    def work() -> None:
        pass

    work()


def wrong_calls(tracer: Any) -> None:
    span = tracer.start_span("work")
    for call in (
        tracer.start_span,
        lambda: tracer.start_span("a", b=1),
        lambda: span.set_attribute("a"),
        lambda: span.add_link(),
        lambda: span.end(1, 2),
        lambda: setattr(span, "name", "x"),
        lambda: _core.set_limits(-1, 1, 1, 1, 1, 1),
        lambda: _core.connect("/no-such-file.so"),
        lambda: _core.encode_resource(Trap()),
    ):
        with contextlib.suppress(TypeError, AttributeError, ValueError, OSError):
            call()


def samplers(tracer: Any) -> None:
    class Sampler:
        def should_sample(self, *args: object) -> NoReturn:
            raise ValueError("a trap")

    sampled = _core.Tracer(native.Scope("tests"), {}, 1, False, sampler=Sampler())
    hook, sys.unraisablehook = sys.unraisablehook, lambda event: None
    try:
        sampled.start_span("work").end()
    finally:
        sys.unraisablehook = hook


def own_attributes(tracer: Any) -> None:
    span = tracer.start_span("work")
    span.mine = span
    reference = weakref.ref(span)
    del span.mine, span
    assert reference() is None


@pytest.mark.parametrize(
    "turn",
    [
        bare,
        attributes,
        hostile,
        events_and_links,
        measured,
        exceptions,
        contexts,
        entered_again,
        remote,
        decorated,
        wrong_calls,
        samplers,
        own_attributes,
    ],
)
def test_no_memory_is_left_behind(tracer: Any, turn: Callable[[Any], None]) -> None:
    def blocks_after(turns: int) -> int:
        for _ in range(turns):
            turn(tracer)
        gc.collect()
        return sys.getallocatedblocks()

    blocks_after(200)  # caches fill, ours of freed spans among them
    # What the interpreter itself keeps may still grow now and then; a leak grows each time.
    for _ in range(3):
        grown = [blocks_after(100) for _ in range(4)]
        if grown[-1] - grown[0] < 150:  # one leaked object a turn would be 300 blocks
            break
    else:
        pytest.fail(f"allocated blocks: {grown}")


def test_objects_that_are_kept_are_let_go_of(tracer: Any) -> None:
    class Anything:
        pass

    def references() -> list[int]:
        return [
            sys.getrefcount(held)
            for held in (*helds, tracer, native.Span, context._SUPPRESS_INSTRUMENTATION_KEY)
        ]

    helds = [Anything() for _ in range(5)]
    key, name, text = "key" * 20, "name" * 20, "text" * 20
    helds += [key, name, text]  # type: ignore[list-item]
    before = references()
    for _ in range(100):
        span = tracer.start_span(name, attributes={key: text})
        span.held = helds
        span.set_attribute(key, text)
        span.update_name(name)
        span.add_event(name, {key: text})
        span.set_status(StatusCode.ERROR, text)
        with tracer.start_as_current_span(name, context=Context({key: helds[0]})):
            pass
        span.end()
    del span
    gc.collect()
    assert references() == before


# ---- cycles


def test_a_span_in_a_cycle_is_collected(tracer: Any) -> None:
    def through_its_attributes() -> Any:
        span = tracer.start_span("work")
        span.itself = span
        return weakref.ref(span)

    def through_a_context_that_a_closure_holds() -> Any:
        held = tracer.start_span("work")
        in_context = context.set_value("function", lambda: held)
        with tracer.start_as_current_span("child", context=in_context) as span:
            held.child = span
            held.above = context.set_value("span", held)
        return weakref.ref(span)

    def through_a_generator_that_is_never_closed() -> Any:
        def numbers() -> Generator[int, None, None]:
            with tracer.start_as_current_span("work") as span:
                references.append(weakref.ref(span))
                span.generator = generator
                yield 1

        references: list[Any] = []
        generator = numbers()
        contextvars.copy_context().run(next, generator)
        return references[0]

    def through_the_token_of_a_context_that_is_gone() -> Any:
        def enter() -> Any:
            span = tracer.start_as_current_span("work").__enter__()
            span.above = contextvars.copy_context()
            return weakref.ref(span)

        return contextvars.copy_context().run(enter)

    def through_what_it_is_to_start_with() -> Any:
        given: dict[str, Any] = {}
        span = tracer.start_as_current_span("work", attributes=given, links=[given])
        given["span"] = span
        return weakref.ref(span)

    def through_its_tracer() -> Any:
        own = _core.Tracer(native.Scope("tests"), {}, 1, False)
        span = own.start_span("work")
        own.listen(None, lambda ended: span)
        return weakref.ref(span)

    for make in list(locals().values()):
        if make is tracer:
            continue
        reference = make()
        gc.collect()
        assert reference() is None, make.__name__


def test_a_chain_of_jobs_keeps_only_its_last_spans(tracer: Any) -> None:
    """Each job starts the next within its span and with its context, as a timer that sets itself again does."""
    references: list[Any] = []

    def job(inherited: Context) -> Context:
        token = context.attach(inherited)
        with tracer.start_as_current_span("job") as span:
            references.append(weakref.ref(span))
            with tracer.start_as_current_span("step"):
                following = context.get_current()
            following = context.set_value("turn", len(references))
        context.detach(token)
        return following

    inherited = baggage.set_baggage("customer", "123")
    for _ in range(200):
        inherited = contextvars.copy_context().run(job, inherited)
        assert baggage.get_baggage("customer", inherited) == "123"
    gc.collect()
    assert sum(reference() is not None for reference in references) <= 3


def test_tasks_that_start_tasks_keep_baggage_and_not_all_spans(tracer: Any) -> None:
    references: list[Any] = []

    async def step(number: int, done: asyncio.Future[str]) -> None:
        token = context.attach(context.get_current())
        with tracer.start_as_current_span("step") as span:
            references.append(weakref.ref(span))
            if number:
                tasks.add(asyncio.create_task(step(number - 1, done)))
            else:
                done.set_result(str(baggage.get_baggage("customer")))
        context.detach(token)
        await asyncio.sleep(0)
        tasks.discard(asyncio.current_task())  # type: ignore[arg-type]

    tasks: set[asyncio.Task[None]] = set()

    async def main() -> str:
        token = context.attach(baggage.set_baggage("customer", "123"))
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        tasks.add(asyncio.create_task(step(200, done)))
        context.detach(token)
        seen = await done
        gc.collect()
        assert sum(reference() is not None for reference in references) <= 8
        return seen

    assert asyncio.run(main()) == "123"
