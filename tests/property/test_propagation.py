"""Headers that anybody may send: never an exception; a valid parent is continued, any other begins a new trace."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry import baggage, trace

import k8s_tracing
from k8s_tracing import api
from k8s_tracing.backends.memory import MemoryBackend
from k8s_tracing.provider import TracerProvider
from k8s_tracing.sampling import Sampling
from k8s_tracing.settings import Limits

#: Time says nothing of what is tested here; the first run ever makes tables of Unicode, too.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(autouse=True, scope="module")
def provider() -> Iterator[None]:
    api._use(TracerProvider(MemoryBackend({}, Limits(), Sampling())))
    yield
    api._use(None)


def hexadecimal(digits: int) -> st.SearchStrategy[str]:
    return st.integers(1, 16**digits - 1).map(lambda number: f"{number:0{digits}x}")


trace_ids, span_ids = hexadecimal(32), hexadecimal(16)
flags = st.integers(0, 255).map(lambda number: f"{number:02x}")
parents = st.builds("00-{}-{}-{}".format, trace_ids, span_ids, flags)

# The grammar of W3C Trace Context, section 3.3.1: each key once, at most 32 members.
_lower = "abcdefghijklmnopqrstuvwxyz"
_simple_keys = st.from_regex(r"[a-z][a-z0-9_\-*/]{0,12}", fullmatch=True)
_tenant_keys = st.from_regex(r"[a-z0-9][a-z0-9_\-*/]{0,8}@[a-z][a-z0-9_\-*/]{0,8}", fullmatch=True)
_state_values = st.from_regex(r"[ -+\--<>-~]{0,12}[!-+\--<>-~]", fullmatch=True)
states = st.dictionaries(_simple_keys | _tenant_keys, _state_values, min_size=1, max_size=32)

_tokens = st.from_regex(r"[a-zA-Z0-9!#$%&'*+.^_`|~\-]{1,10}", fullmatch=True)
# OpenTelemetry's propagator takes blanks away from both ends of a value.
bags = st.dictionaries(_tokens, st.text(max_size=10).map(str.strip), min_size=1, max_size=5)

_anything = st.text(max_size=60) | st.text(" ,;=-%@0123456789abcdefABCDEF", max_size=80)


@st.composite
def mutated(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    """A valid header with some characters taken out, put in or changed."""
    text = draw(texts)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(text)))
        taken = draw(st.integers(0, 3))
        text = text[:place] + draw(st.text(max_size=3)) + text[place + taken :]
    return text


def state_header(entries: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in entries.items())


@patient
@given(parents, st.none() | states, st.none() | bags)
def test_what_was_extracted_is_injected_again(
    parent: str, state: dict[str, str] | None, bag: dict[str, str] | None
) -> None:
    headers = {"traceparent": parent}
    if state is not None:
        headers["tracestate"] = state_header(state)
    if bag is not None:
        carried = k8s_tracing.extract({})
        for key, value in bag.items():
            carried = baggage.set_baggage(key, value, carried)
        k8s_tracing.inject(headers, carried)
    again: dict[str, str] = {}
    with k8s_tracing.extracted(headers):
        k8s_tracing.inject(again)
    assert again == headers


@patient
@given(parents, states)
@example("00-" + "f" * 32 + "-" + "f" * 16 + "-ff", {"a": "b"})
@example("00-" + "0" * 31 + "1-" + "0" * 15 + "1-00", {"1@a": " b"})
def test_a_valid_parent_is_continued(parent: str, state: dict[str, str]) -> None:
    _, trace_id, span_id, flags = parent.split("-")
    headers = {"traceparent": parent, "tracestate": state_header(state)}
    with k8s_tracing.extracted(headers), k8s_tracing.span("work") as span:
        context = span.get_span_context()
        out: dict[str, str] = {}
        k8s_tracing.inject(out)
    assert f"{context.trace_id:032x}" == trace_id
    assert f"{span.parent.span_id:016x}" == span_id  # type: ignore[attr-defined]
    assert span.parent.is_remote  # type: ignore[attr-defined]
    assert not context.is_remote
    # sampled and random are defined and kept, all other flags are set to 0
    assert context.trace_flags == int(flags, 16) & 0x03
    assert dict(context.trace_state) == state
    assert out["traceparent"] == (
        f"00-{trace_id}-{context.span_id:016x}-{int(flags, 16) & 0x03:02x}"
    )
    assert out["tracestate"] == headers["tracestate"]


def names_a_parent(header: str) -> bool:
    """By the Recommendation; blanks may stand around a header's value."""
    found = re.fullmatch(
        r"\s*([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?\s*", header, re.S
    )
    if found is None:
        return False
    version, trace_id, span_id, rest = found.groups()
    if version == "ff" or (version == "00" and rest):
        return False
    return int(trace_id, 16) != 0 and int(span_id, 16) != 0


@patient
@given(mutated(parents) | _anything | parents.map(str.upper) | parents.map(" {} ".format))
@example("ff-" + "1" * 32 + "-" + "1" * 16 + "-01")
@example("01-" + "1" * 32 + "-" + "1" * 16 + "-01-more")
@example("00-" + "1" * 32 + "-" + "1" * 16 + "-01-more")
@example("00-" + "0" * 32 + "-" + "1" * 16 + "-01")
@example("00-" + "1" * 32 + "-" + "0" * 16 + "-01")
def test_any_other_parent_begins_a_new_trace(header: str) -> None:
    with k8s_tracing.extracted({"traceparent": header}), k8s_tracing.span("work") as span:
        parent: Any = span.parent  # type: ignore[attr-defined]
    assert span.get_span_context().is_valid
    assert (parent is not None) == names_a_parent(header), (header, parent)


@patient
@given(st.dictionaries(st.sampled_from(["traceparent", "tracestate", "baggage"]), _anything))
def test_no_headers_raise(headers: dict[str, str]) -> None:
    with k8s_tracing.extracted(headers), k8s_tracing.span("work") as span:
        out: dict[str, str] = {}
        k8s_tracing.inject(out)
    assert out["traceparent"].startswith(f"00-{span.get_span_context().trace_id:032x}-")
    k8s_tracing.inject({}, k8s_tracing.extract(out))


@patient
@given(parents, mutated(states.map(state_header)) | _anything)
def test_a_broken_state_does_not_lose_the_parent(parent: str, state: str) -> None:
    headers = {"traceparent": parent, "tracestate": state}
    with k8s_tracing.extracted(headers), k8s_tracing.span("work") as span:
        pass
    assert f"{span.get_span_context().trace_id:032x}" == parent.split("-")[1]
    passed_on = span.get_span_context().trace_state.to_header()
    assert len(passed_on.split(",")) <= 32


@patient
@given(bags)
def test_baggage_comes_through_spans_of_several_services(bag: dict[str, str]) -> None:
    headers: dict[str, str] = {}
    carried = k8s_tracing.extract({})
    for key, value in bag.items():
        carried = baggage.set_baggage(key, value, carried)
    k8s_tracing.inject(headers, carried)
    for hop in range(3):
        with k8s_tracing.extracted(headers), k8s_tracing.span(f"hop {hop}"):
            assert dict(baggage.get_all()) == bag
            headers = {}
            k8s_tracing.inject(headers)
    assert not baggage.get_all()
    assert not trace.get_current_span().get_span_context().is_valid
