"""A span among Python's objects."""

from __future__ import annotations

import copy
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace

import k8s_tracing
from k8s_tracing import native
from k8s_tracing.backends.memory import MemoryBackend


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
