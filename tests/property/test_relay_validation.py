"""What the relay copies unread: all that a producer of ours may send, nothing that a receiver would refuse."""

from collections.abc import Callable
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from k8s_tracing.agent.relay import is_valid_fields

MESSAGES: dict[str, Callable[[], Any]] = {
    "RESOURCE": Resource,
    "SPAN": Span,
    "SPAN_EVENT": Span.Event,
    "SPAN_LINK": Span.Link,
}
MAX_DEPTH = 16

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), texts, st.binary()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(sorted(MESSAGES))


def put(to: AnyValue, value: Any) -> None:
    """Set a value, however deep."""
    if isinstance(value, dict):
        to.kvlist_value.SetInParent()
        for key, element in value.items():
            put(to.kvlist_value.values.add(key=key).value, element)
    elif isinstance(value, list):
        to.array_value.SetInParent()
        for element in value:
            put(to.array_value.values.add(), element)
    elif value is not None:
        types = {bool: "bool", int: "int", float: "double", str: "string", bytes: "bytes"}
        setattr(to, f"{types[type(value)]}_value", value)


@st.composite
def fields(draw: st.DrawFn) -> tuple[str, bytes]:
    """The name of a message, and fields that our producers may send of it."""
    name = draw(names)
    message = MESSAGES[name]()
    for key, value in draw(st.dictionaries(texts, values, max_size=4)).items():
        put(message.attributes.add(key=key).value, value)
    if name in ("SPAN", "SPAN_LINK"):
        message.trace_state = draw(texts)
    return name, message.SerializeToString()


@given(fields())
def test_what_producers_send_is_accepted(message: tuple[str, bytes]) -> None:
    assert is_valid_fields(*message)


@given(fields(), st.data())
def test_what_is_accepted_parses(message: tuple[str, bytes], data: st.DataObject) -> None:
    """Bytes changed anywhere are refused, or still are fields of the message and no others."""
    name, body = message
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed)))
        changed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    check(name, bytes(changed))


@given(names, st.binary(max_size=60))
@example("SPAN", b"\x0a\x10" + bytes(16))  # a trace id, which is not the producer's to say
@example("SPAN", b"\x4a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02")  # a length of more than 64 bits
@example("SPAN", b"\x4a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example("SPAN", b"\x4a\x04\x12\x02\x08\x00")  # a field that AnyValue does not have
@example("SPAN", b"\x4b\x4c")  # a group
def test_any_bytes(name: str, body: bytes) -> None:
    check(name, body)


def check(name: str, body: bytes) -> None:
    if not is_valid_fields(name, body):
        return
    parsed = MESSAGES[name].FromString(body)  # type: ignore[attr-defined]
    allowed = {"attributes", "trace_state"} if name in ("SPAN", "SPAN_LINK") else {"attributes"}
    assert {field.name for field, _ in parsed.ListFields()} <= allowed


@given(st.integers(0, 40))
def test_depth_is_bounded(depth: int) -> None:
    value: Any = "leaf"
    for _ in range(depth):
        value = [value]
    span = Span()
    put(span.attributes.add(key="k").value, value)
    assert is_valid_fields("SPAN", span.SerializeToString()) == (depth <= MAX_DEPTH)
