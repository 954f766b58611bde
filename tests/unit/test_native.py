"""What may happen to a native span that nobody planned: tracing must not break the application."""

from __future__ import annotations

import copy
import importlib
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time as clock
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, StatusCode, TraceFlags

import k8s_tracing
from k8s_tracing import _core, native
from k8s_tracing.backends.memory import MemoryBackend
from k8s_tracing.provider import TracerProvider
from k8s_tracing.sampling import Sampling
from k8s_tracing.settings import Limits
from k8s_tracing.testing import using


@pytest.fixture
def backend() -> Iterator[MemoryBackend]:
    backend = MemoryBackend({"service.name": "tests"}, Limits(), Sampling())
    native._reported.clear()
    with using(TracerProvider(backend)):
        yield backend


@pytest.fixture
def tracer(backend: MemoryBackend) -> Any:
    return backend.tracer("tests")


class Fails:
    """Every question to it is an error."""

    def _fail(self, *args: object) -> NoReturn:
        raise ValueError("a trap")

    __bool__ = __str__ = __repr__ = __iter__ = __len__ = __index__ = __getitem__ = _fail
    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> NoReturn:
        raise ValueError("a trap")


def hostile(given: Any) -> Any:
    """The class Fails stands for one of it, which pytest must not touch."""
    if isinstance(given, list):
        return [hostile(item) for item in given]
    return Fails() if given is Fails else given


def run(program: str, **environment: str) -> str:
    """What a program prints in an interpreter of its own."""
    answer = subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


# ---- wrong arguments


def test_an_argument_whose_truth_fails_is_true(backend: MemoryBackend, tracer: Any) -> None:
    options = dict.fromkeys(("record_exception", "set_status_on_exception", "end_on_exit"), Fails())
    with pytest.raises(KeyError), tracer.start_as_current_span("work", **options):
        raise KeyError("x")
    [record] = backend.records
    assert record.status == "ERROR"
    assert len(record.events) == 1


@pytest.mark.parametrize("time", ["now", object(), Fails, 2**70, float("nan"), float("inf"), []])
def test_a_wrong_time_is_reported_and_is_now(
    backend: MemoryBackend, tracer: Any, time: object, caplog: pytest.LogCaptureFixture
) -> None:
    before, time = clock.time_ns(), hostile(time)
    span = tracer.start_span("work", start_time=time)
    span.add_event("event", timestamp=time)
    span.end(time)
    [record] = backend.records
    [event] = record.events
    assert before <= record.start_time_ns <= event.time_ns <= record.end_time_ns <= clock.time_ns()
    assert "times are int" in caplog.text


def test_a_time_may_be_a_float_or_count_as_an_int(backend: MemoryBackend, tracer: Any) -> None:
    class Like:
        def __index__(self) -> int:
            return 1_700_000_000_000_000_001

    tracer.start_span("work", start_time=1.7e18).end(Like())
    [record] = backend.records
    assert record.start_time_ns == 1_700_000_000_000_000_000
    assert record.end_time_ns == 1_700_000_000_000_000_001


@pytest.mark.parametrize(
    ("name", "expected"), [(None, "None"), (7, "7"), (Fails, "<Fails>"), (b"x", "b'x'")]
)
def test_a_name_that_is_no_str_becomes_one(
    backend: MemoryBackend, tracer: Any, name: object, expected: str
) -> None:
    name = hostile(name)
    span = tracer.start_span(name)
    assert span.name == expected
    span.update_name("good")
    span.update_name(name)
    span.add_event(name)
    span.end()
    [record] = backend.records
    assert (record.name, record.events[0].name) == (expected, expected)


@pytest.mark.parametrize(
    "links", [7, [object()], [None], Fails, [Link(None)], [Link(object())], [Fails]]
)
def test_wrong_links_are_reported_and_the_good_ones_stay(
    backend: MemoryBackend, tracer: Any, links: Any, caplog: pytest.LogCaptureFixture
) -> None:
    links = hostile(links)
    good = Link(SpanContext(1, 2, False))
    given = [good, *links, good] if isinstance(links, list) else links
    with tracer.start_as_current_span("work", links=given) as span:
        span.add_link(links)
        span.add_link(None)
    [record] = backend.records
    assert len(record.links) == (2 if isinstance(links, list) else 0)
    assert "link" in caplog.text


def test_a_link_to_nowhere_is_kept_if_it_says_something(
    backend: MemoryBackend, tracer: Any
) -> None:
    with tracer.start_as_current_span("work") as span:
        span.add_link(trace.INVALID_SPAN_CONTEXT)
        span.add_link(trace.INVALID_SPAN_CONTEXT, {"why": "unknown"})
    [record] = backend.records
    assert [dict(link.attributes) for link in record.links] == [{"why": "unknown"}]


def test_a_state_that_is_none_of_opentelemetrys_is_left_out(tracer: Any) -> None:
    class Odd:
        def __len__(self) -> int:
            return 1

        def to_header(self) -> int:
            return 7

    tracer.listen(None, lambda ended: None)
    for state in ("text", Odd()):
        context = SpanContext(1, 2, True, TraceFlags(1), state)  # type: ignore[arg-type]
        span = tracer.start_span("work", links=[Link(context)])
        span.add_link(context)
        span.end()
        assert len(span.links) == 2
        parent = trace.set_span_in_context(trace.NonRecordingSpan(context))
        with tracer.start_as_current_span("work", parent):
            if state == "text":
                k8s_tracing.inject({})


@pytest.mark.parametrize("status", [1, "ERROR", None, Fails, object()])
def test_a_wrong_status_is_ignored(backend: MemoryBackend, tracer: Any, status: Any) -> None:
    with tracer.start_as_current_span("work") as span:
        span.set_status(hostile(status))
        span.set_status(StatusCode.ERROR, 7)
    [record] = backend.records
    assert (record.status, record.status_message) == ("ERROR", "7")


@pytest.mark.parametrize("attributes", [7, "text", [("a", 1)], Fails])
def test_attributes_that_are_no_mapping_are_reported(
    backend: MemoryBackend, tracer: Any, attributes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    attributes = hostile(attributes)
    with tracer.start_as_current_span("work", attributes=attributes) as span:
        span.set_attributes(attributes)
        span.add_event("event", attributes)
        span.record_exception(KeyError("x"), attributes)
    [record] = backend.records
    assert dict(record.attributes) == {}
    assert record.events[1].attributes["exception.type"] == "KeyError"
    assert "no mapping" in caplog.text


def test_a_warning_names_the_line_of_the_application_and_comes_once(
    backend: MemoryBackend, caplog: pytest.LogCaptureFixture
) -> None:
    with k8s_tracing.span("work") as span:
        for _ in range(3):
            span.set_attribute("bad", object())  # type: ignore[arg-type]
        for _ in range(3):
            span.record_exception(KeyError("x"), {"bad": object()})  # type: ignore[dict-item]
    places = [record.getMessage().partition(": ")[0] for record in caplog.records]
    assert len(places) == 2
    assert all(place.startswith(__file__) for place in places), places


@pytest.mark.parametrize(
    "span_context",
    [
        SpanContext(2**130, 1, True),
        SpanContext(1, 2**70, True),
        SpanContext(-1, 1, True),
        SpanContext(1, -1, True),
        SpanContext(0, 1, True),
        SpanContext(1, 0, True),
    ],
    ids=repr,
)
def test_an_impossible_parent_begins_a_new_trace(
    backend: MemoryBackend, tracer: Any, span_context: SpanContext
) -> None:
    given = trace.set_span_in_context(trace.NonRecordingSpan(span_context), Context())
    tracer.start_span("work", given).end()
    [record] = backend.records
    assert record.parent_span_id == ""
    assert int(record.trace_id, 16) not in (0, 1)


def test_a_parent_that_fails_begins_a_new_trace(backend: MemoryBackend, tracer: Any) -> None:
    class Broken(trace.NonRecordingSpan):
        def get_span_context(self) -> NoReturn:
            raise ValueError("a trap")

    given = trace.set_span_in_context(Broken(trace.INVALID_SPAN_CONTEXT), Context())
    tracer.start_span("work", given).end()
    assert backend.records[0].parent_span_id == ""


def test_undefined_flags_of_a_caller_are_not_passed_on(backend: MemoryBackend, tracer: Any) -> None:
    caller = SpanContext(1, 2, True, TraceFlags(0xFF))
    given = trace.set_span_in_context(trace.NonRecordingSpan(caller), Context())
    assert tracer.start_span("work", given).get_span_context().trace_flags == 0x03


# ---- exceptions on the way out


def test_an_exception_that_cannot_be_described_is_recorded_all_the_same(
    backend: MemoryBackend,
) -> None:
    class Awkward(Exception):
        __module__ = None  # type: ignore[assignment]

        def __str__(self) -> str:
            raise ValueError("a trap")

        __repr__ = __str__

    with k8s_tracing.span("work") as span:
        span.record_exception("no exception")  # type: ignore[arg-type]
        span.record_exception(Awkward())
    with pytest.raises(Awkward), k8s_tracing.span("work"):
        raise Awkward
    record, failed = backend.records
    assert failed.status == "ERROR"
    assert len(failed.events) == 1
    assert record.events[0].attributes["exception.type"] == "str"
    name = "test_an_exception_that_cannot_be_described_is_recorded_all_the_same.<locals>.Awkward"
    assert record.events[1].attributes["exception.type"] == name
    assert record.events[1].attributes["exception.message"] == "<no text: ValueError>"


def test_a_failure_to_record_does_not_hide_the_applications_exception_or_the_status(
    backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []

    def fail(*args: object) -> NoReturn:
        raise ValueError("a trap")

    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    monkeypatch.setattr(native.Span, "record_exception", fail)
    with pytest.raises(KeyError, match="own"), k8s_tracing.span("work"):
        raise KeyError("own")
    assert [type(event.exc_value) for event in shown] == [ValueError]
    assert backend.records[0].status == "ERROR"
    assert not trace.get_current_span().get_span_context().is_valid


def test_an_interrupt_while_recording_goes_on_and_the_span_ends(
    backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(native.Span, "record_exception", interrupt)
    with pytest.raises(KeyboardInterrupt), k8s_tracing.span("work"):
        raise KeyError("own")
    assert len(backend.records) == 1
    assert not trace.get_current_span().get_span_context().is_valid


def test_exit_without_enter_or_with_odd_arguments(backend: MemoryBackend) -> None:
    span = k8s_tracing.span("work")
    assert span.__exit__(None, None, None) is None  # type: ignore[func-returns-value]
    span.__exit__()  # type: ignore[call-arg]
    span.end()
    assert backend.records == []
    with span:
        span.__exit__(1, 2, 3)  # type: ignore[arg-type]
    assert len(backend.records) == 1


def test_the_end_of_a_span_that_has_not_started_is_forgotten(backend: MemoryBackend) -> None:
    span = k8s_tracing.span("work")
    span.end(1)
    with span:
        pass
    assert backend.records[0].duration_ns >= 0


def test_a_span_can_be_entered_twice(backend: MemoryBackend) -> None:
    with k8s_tracing.span("outer") as outer:
        span = k8s_tracing.span("work", end_on_exit=False)
        with span, span:
            assert trace.get_current_span() is span
        assert trace.get_current_span() is outer
        with span:
            assert trace.get_current_span() is span
        assert trace.get_current_span() is outer
        span.end()
        with span:
            assert trace.get_current_span() is outer
    assert [record.name for record in backend.records] == ["work", "outer"]


# ---- code that runs meanwhile


def test_an_attribute_may_end_the_span_it_is_set_on(backend: MemoryBackend) -> None:
    remote = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "a=b",
    }

    class Ends:
        def __str__(self) -> str:
            span.end()
            return "text"

    with k8s_tracing.extracted(remote):
        span = k8s_tracing.start_span("attribute", {"first": 1})
        span.set_attribute("key", Ends())  # type: ignore[arg-type]
        span = k8s_tracing.start_span("event", {"first": 1})
        span.add_event("event", {"key": Ends()})  # type: ignore[dict-item]
        span = k8s_tracing.start_span("link", {"first": 1})
        span.add_link(SpanContext(1, 2, False), {"key": Ends()})  # type: ignore[dict-item]
    assert len(backend.records) == 3
    for record in backend.records:
        assert dict(record.attributes) == {"first": 1}
        assert (record.events, record.links) == ((), ())
    assert dict(span.attributes) == {"first": 1}  # type: ignore[attr-defined]


def test_an_attribute_may_use_the_span_it_is_set_on(backend: MemoryBackend) -> None:
    class Busy:
        def __str__(self) -> str:
            span.set_attribute("inner", "x" * 100)
            span.update_name("renamed")
            with k8s_tracing.span("other"):
                return "text"

    with k8s_tracing.span("work") as span:
        span.set_attributes({"a": Busy(), "b": [Busy(), 1]})  # type: ignore[dict-item]
    other, _, record = backend.records
    assert other.parent_span_id == record.span_id
    assert record.name == "renamed"
    assert dict(record.attributes) == {"inner": "x" * 100, "a": "text", "b": ("text", 1)}


def test_attributes_may_change_their_dict_while_it_is_read(backend: MemoryBackend) -> None:
    attributes: dict[Any, Any] = {}

    class Grows:
        def __str__(self) -> str:
            attributes[len(attributes)] = Grows()
            return "text"

    class Clears:
        def __str__(self) -> str:
            attributes.clear()
            return "text"

    for hostile in (Grows, Clears):
        attributes.clear()
        attributes.update({"a": hostile(), "b": hostile(), "c": 3})
        with k8s_tracing.span("work", attributes):
            pass
        assert backend.records.pop().attributes["a"] == "text"


def test_a_listener_may_start_spans_and_replace_itself(tracer: Any) -> None:
    log: list[str] = []

    def start(span: Any, parent: Any) -> None:
        span.set_attribute("by", "listener")

    def make_end() -> Callable[[Any], None]:
        def end(span: Any) -> None:
            log.append(span.name)
            tracer.listen(start, make_end())
            if len(log) < 5:
                with tracer.start_as_current_span(f"of {span.name}"):
                    assert span.attributes == {"by": "listener"}

        return end

    tracer.listen(start, make_end())
    with tracer.start_as_current_span("x"):
        pass
    assert log == ["x", "of x", "of of x", "of of of x", "of of of of x"]


def test_a_listener_hears_the_end_only_of_what_it_heard_the_start_of(tracer: Any) -> None:
    log: list[str] = []
    tracer.listen(None, None)
    early = tracer.start_span("early")
    tracer.listen(None, lambda span: log.append(span.name))
    late = tracer.start_span("late")
    early.end()
    late.end()
    assert log == ["late"]


def test_threads_may_share_one_span(backend: MemoryBackend) -> None:
    def work(number: int) -> None:
        start.wait()
        for turn in range(300):
            span.set_attribute(f"key {number}.{turn % 10}", "x" * turn)
            contexts.append(span.get_span_context())
            with k8s_tracing.span("child"):
                pass
            if turn == 250:
                span.end()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        start = threading.Barrier(4)
        contexts: list[SpanContext] = []
        span = k8s_tracing.start_span("shared")
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len({id(found) for found in contexts}) == 1
    shared = [record for record in backend.records if record.name == "shared"]
    assert len(shared) == 1
    assert set(shared[0].attributes) <= {f"key {n}.{t}" for n in range(4) for t in range(10)}
    assert len(backend.records) == 1 + 4 * 300


def test_a_span_has_one_context_whoever_asks_first(
    tracer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faster(*args: Any) -> SpanContext:
        monkeypatch.undo()
        found.append(span.get_span_context())
        return SpanContext(*args)

    found: list[SpanContext] = []
    span = tracer.start_span("work")
    monkeypatch.setattr(trace, "SpanContext", faster)
    assert span.get_span_context() is found[0]
    assert span.get_span_context() is found[0]


def test_threads_end_one_anothers_spans(backend: MemoryBackend, tracer: Any) -> None:
    spans = [tracer.start_span(f"span {number}") for number in range(2000)]

    def end_all() -> None:
        for span in spans:
            span.end()

    threads = [threading.Thread(target=end_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.name for r in backend.records) == sorted(span.name for span in spans)


# ---- a span among Python's objects


def test_a_span_is_an_object_like_others(backend: MemoryBackend, tracer: Any) -> None:
    span, other = tracer.start_span("work"), tracer.start_span("work")
    assert isinstance(span, trace.Span)
    assert span.__class__ is native.Span
    assert bool(span)
    assert span == span
    assert span != other
    assert len({span, other, span}) == 2
    assert f"{span.get_span_context().span_id:016x}" in repr(span)


def test_a_span_can_be_referred_to_weakly(backend: MemoryBackend, tracer: Any) -> None:
    span = tracer.start_span("work")
    gone: list[object] = []
    reference = weakref.ref(span, gone.append)
    by_span = weakref.WeakKeyDictionary({span: 1})
    assert reference() is span
    del span
    assert gone == [reference]
    assert not by_span


def test_others_may_put_attributes_on_a_span_but_not_replace_its_own(tracer: Any) -> None:
    span = tracer.start_span("work")
    span.mine = 1
    span._theirs = 2
    assert span.__dict__ == {"mine": 1, "_theirs": 2}
    del span.mine
    assert not hasattr(span, "mine")
    for name in ("name", "attributes", "context", "kind", "parent", "start_time", "_tracer"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(span, name, "x")
        with pytest.raises((AttributeError, TypeError)):
            delattr(span, name)
    assert tracer.start_span("next").__dict__ == {}


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_span_is_not_copied_as_opentelemetrys_is_not(
    tracer: Any, duplicate: Callable[[object], object]
) -> None:
    with pytest.raises(TypeError):
        duplicate(tracer.start_span("work"))


def test_nobody_makes_or_derives_a_span_but_a_tracer() -> None:
    with pytest.raises(TypeError):
        native.Span()
    with pytest.raises(TypeError):
        object.__new__(native.Span)
    with pytest.raises(TypeError):
        type("Mine", (native.Span,), {})


def test_a_name_of_a_str_subclass_is_kept_as_str(tracer: Any) -> None:
    class Text(str):
        __slots__ = ("back",)

    name = Text("work")
    span = tracer.start_span(name)
    assert type(span.name) is str
    span.update_name(name)
    assert type(span.name) is str


def test_only_defined_arguments_are_taken(tracer: Any) -> None:
    for call in (
        lambda: tracer.start_span(),
        lambda: tracer.start_span("a", nonsense=1),
        lambda: tracer.start_span("a", name="b"),
        lambda: k8s_tracing.span("a", {}, None),  # type: ignore[misc]
        lambda: tracer.start_span("a").set_attribute("key"),
        lambda: tracer.start_span("a").end(1, 2),
    ):
        with pytest.raises(TypeError):
            call()


# ---- the current span


def test_what_is_no_context_may_be_attached(backend: MemoryBackend) -> None:
    for odd in (None, 7, {}):
        token = context.attach(odd)  # type: ignore[arg-type]
        with k8s_tracing.span("work") as span:
            assert trace.get_current_span() is span
            context.get_current()
        context.detach(token)


def test_spans_left_in_another_order_than_they_were_entered(backend: MemoryBackend) -> None:
    first, second = k8s_tracing.span("first"), k8s_tracing.span("second")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not trace.get_current_span().get_span_context().is_valid
    second.__exit__(None, None, None)
    assert trace.get_current_span() is first  # as OpenTelemetry's tokens do
    context.attach(Context())


# ---- the module


def test_the_module_can_be_imported_anew(backend: MemoryBackend) -> None:
    before = sys.modules["k8s_tracing._core"]
    del sys.modules["k8s_tracing._core"]
    try:
        again = importlib.import_module("k8s_tracing._core")
        assert again.Span is before.Span
        assert again.Tracer is before.Tracer
    finally:
        sys.modules["k8s_tracing._core"] = before
        k8s_tracing._core = before  # type: ignore[attr-defined]
    with k8s_tracing.span("work"):
        pass
    assert len(backend.records) == 1


def test_a_second_interpreter_is_refused_and_the_first_goes_on() -> None:
    module = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    printed = run(
        f"""
        import warnings
        warnings.simplefilter("ignore")
        import {module} as interpreters
        import k8s_tracing
        k8s_tracing.init("first", backend="memory")
        other = interpreters.create(*(["legacy"] if {sys.version_info >= (3, 13)} else []))
        interpreters.run_string(other, '''if True:
            try:
                import k8s_tracing.native
            except ImportError as error:
                print("refused:", error)
            import k8s_tracing
            k8s_tracing.init("second", backend="noop")
            with k8s_tracing.span("work"):
                print("falls back")
        ''')
        interpreters.destroy(other)
        with k8s_tracing.span("work") as span:
            print("first:", span.name)
        """
    )
    assert printed.startswith("refused: ")
    assert printed.endswith("falls back\nfirst: work\n")


def test_opentelemetry_loads_the_context_before_anything_else_of_us() -> None:
    printed = run(
        """
        from opentelemetry import baggage, context, trace
        print(type(context._RUNTIME_CONTEXT).__module__)
        token = context.attach(baggage.set_baggage("key", "value"))
        import k8s_tracing
        k8s_tracing.init("service", backend="memory")
        with k8s_tracing.span("work") as span:
            print(trace.get_current_span() is span, baggage.get_baggage("key"))
        context.detach(token)
        print(context.get_current())
        """,
        OTEL_PYTHON_CONTEXT="k8s_tracing",
    )
    assert printed == "k8s_tracing.context\nTrue value\n{}\n"


def test_a_provider_of_another_build_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "provider.c"
    source.write_text("const struct { unsigned abi; } k8s_tracing_provider = {9999};")
    library = tmp_path / "provider.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    with pytest.raises(OSError, match=r"provider\.so speaks version 9999"):
        _core.connect(library)
    empty = tmp_path / "empty.so"
    source.write_text("")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", empty, source], check=True)
    with pytest.raises(OSError, match="k8s_tracing_provider"):
        _core.connect(empty)
    with pytest.raises(OSError, match="no-such-file"):
        _core.connect("/no-such-file.so")


def test_limits_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        _core.set_limits(-1, 1, 1, 1, 1, 1)
