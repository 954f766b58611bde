"""Attributes, encoded by us and by OpenTelemetry's own exporter: the bytes are the same."""

from __future__ import annotations

import array
import collections
import enum
import itertools
import logging
import struct
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common._internal import _encode_attributes
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from k8s_tracing import _core, native
from k8s_tracing.settings import Limits

#: Time says nothing of what is tested here; the first run ever makes tables of Unicode, too.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

VALUE_LENGTH = Limits().value_length
#: So many sequences and mappings inside one another are kept; a list may contain itself.
DEPTH = 8


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not its text"


class Whole(int):
    def __str__(self) -> str:
        return "not its number"

    __repr__ = __str__


class Real(float):
    def __float__(self) -> float:
        return 0.0


class Color(str, enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Plain(enum.Enum):
    ONE = 1


class NumpyLike:
    """A number of a library's own type."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number

    __int__ = __index__

    def __float__(self) -> float:
        return float(self.number)

    def __repr__(self) -> str:
        return f"np.int64({self.number})"

    def __str__(self) -> str:
        return str(self.number)


class Custom(Sequence[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)


class CustomMapping(Mapping[Any, Any]):
    def __init__(self, entries: dict[Any, Any]) -> None:
        self.entries = entries

    def __getitem__(self, key: Any) -> Any:
        return self.entries[key]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.entries)


class Subscripted:
    """No Sequence, though it can be subscripted."""

    def __getitem__(self, index: int) -> int:
        return index

    def __str__(self) -> str:
        return "subscripted"


text = st.text(
    st.characters(exclude_categories=()) | st.sampled_from("\0é\ud800\udfff\U0001f600"), max_size=20
)
keys = text.filter(bool)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**63) - 2, -(2**63) + 2),
    st.integers(2**63 - 2, 2**64 + 2),
    st.floats(),
    text,
    st.binary(max_size=20),
    text.map(Text),
    st.integers(-(2**70), 2**70).map(Whole),
    st.floats().map(Real),
    st.integers().map(NumpyLike),
    st.sampled_from(
        [Color.RED, Level.HIGH, Plain.ONE, object(), Exception("x"), int, Subscripted(), len]
    ),
    st.sampled_from([range(3), bytearray(b"ab"), memoryview(b"ab"), array.array("d", [0.5])]),
)


def containers(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(items, max_size=4)
    # without surrogates: two keys may become one when these are replaced
    dicts = st.dictionaries(st.text(max_size=20) | st.integers() | st.none(), items, max_size=4)
    return st.one_of(
        lists,
        lists.map(tuple),
        lists.map(collections.deque),
        lists.map(collections.UserList),
        lists.map(Custom),
        dicts,
        dicts.map(collections.OrderedDict),
        dicts.map(collections.UserDict),
        dicts.map(types.MappingProxyType),
        dicts.map(CustomMapping),
    )


values = st.recursive(scalars, containers, max_leaves=8)


def replaced(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def settled(value: Any, depth: int = 0) -> Any:
    """What OpenTelemetry made of a value, and what we do where its exporter would fail or not end."""
    if isinstance(value, (bool, bytes)) or value is None:
        return value
    if isinstance(value, float):  # of a subclass, too, the number that it is
        return struct.unpack("d", struct.pack("d", value))[0]
    if isinstance(value, str):
        return replaced(str.__str__(value))
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            return int.__repr__(value)[:VALUE_LENGTH]
        return value + 0
    if isinstance(value, Mapping):
        if depth == DEPTH:
            return {}
        return {replaced(key): settled(item, depth + 1) for key, item in value.items()}
    if depth == DEPTH:
        return ()
    return tuple(settled(item, depth + 1) for item in value)


def expected(attributes: Mapping[str, Any]) -> dict[str, Any]:
    cleaned = BoundedAttributes(attributes=attributes, max_value_len=VALUE_LENGTH)
    # alone, an object without a text of its own is dropped here and null there
    refused = {key for key, value in attributes.items() if type(value) is object}
    result: dict[str, Any] = {}
    for key, value in cleaned.items():
        if key not in refused:
            result.pop(replaced(key), None)
            result[replaced(key)] = settled(value)
    return result


def encoded(attributes: Mapping[str, Any]) -> bytes:
    return Resource(attributes=_encode_attributes(attributes)).SerializeToString()


@pytest.fixture(autouse=True, scope="module")
def default_limits() -> Iterator[None]:
    limits = Limits()
    _core.set_limits(
        limits.value_length,
        limits.attributes,
        limits.events,
        limits.links,
        limits.event_attributes,
        limits.link_attributes,
    )
    oracle = logging.getLogger("opentelemetry.attributes")
    oracle.setLevel(logging.ERROR)
    yield
    oracle.setLevel(logging.NOTSET)


def recording_tracer() -> Any:
    tracer = _core.Tracer(native.Scope("tests"), {}, 1, False)
    tracer.listen(None, lambda span: None)
    return tracer


tracer = recording_tracer()


@patient
@given(st.dictionaries(keys, values, max_size=5))
@example({"a": float("nan"), "b": -0.0, "c": float("inf")})
@example({"\ud83d\ude00": "\ud83d\ude00", "\0": "a\0b", "": "no key"})
@example({"a": ["x" * 127], "b": ["x" * 128], "c": [["x" * 123]], "d": {"k": "x" * 16383}})
def test_the_bytes_are_those_of_opentelemetrys_encoder(attributes: dict[str, Any]) -> None:
    without_empty = {key: value for key, value in attributes.items() if key}
    assert _core.encode_resource(attributes) == encoded(expected(without_empty))


@patient
@given(st.dictionaries(keys, values, max_size=5))
def test_attributes_are_read_back_as_they_were_set(attributes: dict[str, Any]) -> None:
    span = tracer.start_span("work", attributes=attributes)
    assert repr(span.attributes) == repr(expected(attributes))


@patient
@given(st.lists(st.tuples(st.sampled_from("abcdef"), scalars), max_size=30), st.integers(0, 6))
def test_the_last_value_of_a_key_wins_and_stands_last(
    given_values: list[tuple[str, Any]], limit: int
) -> None:
    model: dict[str, Any] = {}
    dropped = 0
    _core.set_limits(VALUE_LENGTH, limit, 1, 1, 1, 1)
    try:
        span = tracer.start_span("work")
        for key, value in given_values:
            span.set_attribute(key, value)
            if type(value) is object:
                dropped += 1
                continue
            model.pop(key, None)
            if len(model) < limit:  # the specification: what is beyond the limit is discarded
                model.update(expected({key: value}))
            else:
                dropped += 1
        assert repr(span.attributes) == repr(model)
        assert list(span.attributes) == list(model)
        assert span._dropped[0] == dropped
    finally:
        _core.set_limits(VALUE_LENGTH, 128, 128, 128, 128, 128)


@patient
@given(values, st.integers(0, 8))
def test_texts_are_cut_to_their_limit_in_characters(value: Any, length: int) -> None:
    _core.set_limits(length, 128, 128, 128, 128, 128)
    try:
        span = tracer.start_span("work", attributes={"key": value})
        assert_cut(span.attributes.get("key"), length)
    finally:
        _core.set_limits(VALUE_LENGTH, 128, 128, 128, 128, 128)


def assert_cut(value: Any, length: int) -> None:
    if isinstance(value, (str, bytes)):
        assert len(value) <= length
    elif isinstance(value, dict):
        for item in value.values():
            assert_cut(item, length)
    elif isinstance(value, tuple):
        for item in value:
            assert_cut(item, length)


@patient
@given(st.text(max_size=30), st.integers(0, 30))
def test_a_cut_text_is_the_beginning_of_the_text(value: str, length: int) -> None:
    _core.set_limits(length, 128, 128, 128, 128, 128)
    try:
        span = tracer.start_span("work", attributes={"key": value, "bytes": value.encode()})
        assert span.attributes == {"key": value[:length], "bytes": value.encode()[:length]}
    finally:
        _core.set_limits(VALUE_LENGTH, 128, 128, 128, 128, 128)


# ---- objects that mean harm


class Trap:
    def _fail(self, *args: object) -> NoReturn:
        raise ValueError("a trap")

    __str__ = __repr__ = __iter__ = __len__ = __bool__ = __getitem__ = __index__ = _fail


class BadList(Custom):
    def __iter__(self) -> Iterator[Any]:
        yield 1
        raise ValueError("a trap")


class Endless(Custom):
    def __iter__(self) -> Iterator[Any]:
        return itertools.count()


class BadMapping(CustomMapping):
    def items(self) -> Any:
        raise ValueError("a trap")


class OddItems(CustomMapping):
    def items(self) -> Any:
        return [1, (1, 2, 3), ("a", 1)]


class Starts:
    """Its text is made in a span of its own."""

    def __str__(self) -> str:
        with tracer.start_as_current_span("other", attributes={"a": [Trap(), "b"]}):
            return "text"


class Liar:
    @property
    def __class__(self) -> Any:
        raise ValueError("a trap")


def self_containing() -> list[Any]:
    itself: list[Any] = [1]
    itself += [itself, {"a": itself}, itself]
    return itself


makers = [
    Trap,
    Starts,
    Liar,
    self_containing,
    object,
    lambda: BadList([]),
    lambda: Endless([]),
    lambda: BadMapping({}),
    lambda: OddItems({}),
    lambda: [Trap(), 1],
    lambda: {"a": Trap(), 7: [Trap]},
    lambda: 10**5000,
    lambda: [10**5000],
    lambda: "x" * 100_000,
    lambda: ["x" * 5000] * 100,
    lambda: list(range(100_000)),
    lambda: {str(n): n for n in range(20_000)},
    lambda: {"x" * 100_000: 1},
]
hostile = st.sampled_from(makers)  # not yet made: hypothesis looks at what it gives


@patient
@given(st.lists(hostile | scalars, max_size=6))
def test_no_value_raises_or_takes_the_others_along(given_values: list[Any]) -> None:
    attributes = {
        f"key {number}": value() if callable(value) and value in makers else value
        for number, value in enumerate(given_values)
    }
    with tracer.start_as_current_span("work", attributes={"first": 1, **attributes}) as span:
        span.set_attributes(attributes)
        span.add_event("event", attributes)
        for key, value in attributes.items():
            span.set_attribute(key, value)
        span.set_attribute("last", 2)
    kept = span.attributes
    assert (kept["first"], kept["last"]) == (1, 2)
    bytes_written = _core.encode_resource(attributes)
    assert len(bytes_written) <= 60 * 1024
    message = Resource.FromString(bytes_written)
    assert {entry.key for entry in message.attributes} == set(kept) - {"first", "last"}


def test_a_list_in_itself_ends() -> None:
    itself: list[Any] = [1]
    itself.append(itself)
    span = tracer.start_span("work", attributes={"key": itself})
    value, depth = span.attributes["key"], 1
    while len(value) == 2:
        assert value[0] == 1
        value, depth = value[1], depth + 1
    assert (value, depth) == ((), DEPTH + 1)


def test_a_mapping_that_is_the_attributes_may_be_of_any_kind() -> None:
    given_values = {"a": 1, "b": [1, 2]}
    for kind in (dict, collections.OrderedDict, collections.UserDict, CustomMapping):
        span = tracer.start_span("work", attributes=kind(given_values))
        assert span.attributes == {"a": 1, "b": (1, 2)}


def test_keys_that_are_no_text_are_dropped_and_counted() -> None:
    span = tracer.start_span("work", attributes={1: "a", None: "b", "": "c", (): "d", "e": 1})
    assert span.attributes == {"e": 1}
    assert span._dropped[0] == 4
