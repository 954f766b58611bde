"""What the integration tests believe about babeltrace2's text is tested here, on a golden sample.

The sample is what babeltrace2 2.0.4 printed for a real trace, `vm` made `node-1`.
"""

import sys

import pytest

from tests.support import bt2text

START = (
    "timestamp = 1795322074.694909363, trace:hostname = node-1, name = k8s_tracing:start_span, "
    "stream.packet.context = { cpu_id = 1 }, "
    "stream.event.context = { vpid = 71, vtid = 72, pid_ns = 4026531836, cgroup_ns = 4026531835 }, "
    "event.fields = { trace_id_high = 0xFEDCBA9876543210, span_id = 0x3, start_time = -5, "
    r'op_name = "a \"q\", b = { x } \'é\\ \n\t\x01\x7f \?" }'
)
END = (
    "timestamp = 1795322074.694912329, trace:hostname = node-1, name = k8s_tracing:end_span, "
    "stream.packet.context = { cpu_id = 0 }, "
    'event.fields = { status = 1, status_message = "", _attributes_length = 3, '
    "attributes = [ [0] = 1, [1] = 2, [2] = 255 ], _none_length = 0, none = [ ] }"
)


def test_a_line_becomes_an_event_with_its_groups_apart() -> None:
    event = bt2text.parse_line(START)
    assert event.name == "k8s_tracing:start_span"
    assert event.timestamp_ns == 1_795_322_074_694_909_363
    assert event.cpu_id == 1
    assert event.context == {
        "vpid": 71, "vtid": 72, "pid_ns": 4026531836, "cgroup_ns": 4026531835
    }  # fmt: skip
    assert event["trace_id_high"] == 0xFEDCBA9876543210
    assert event["start_time"] == -5


def test_a_string_that_looks_like_the_syntax_is_still_one_string() -> None:
    expected = 'a "q", b = { x } \'é\\ \n\t\x01\x7f ?'
    assert bt2text.parse_line(START)["op_name"] == expected


def test_sequences_become_lists_and_may_be_empty() -> None:
    event = bt2text.parse_line(END)
    assert event["attributes"] == [1, 2, 255]
    assert event.otlp_bytes("none") == b""
    assert event["status_message"] == ""
    assert event.context == {}


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"\x4a\x00",
        b"\x4a\x03\x0a\x01a",
        b"\x4a\x01\x00\x1a\x05abcde",
        b"\x4a\x80\x01" + bytes(128),
    ],
)
def test_otlp_bytes_lose_the_zeros_behind_them_and_none_of_their_own(fields: bytes) -> None:
    padded = fields + bytes(-len(fields) % 8)
    words = [int.from_bytes(padded[i : i + 8], sys.byteorder) for i in range(0, len(padded), 8)]
    event = bt2text.Event("x", 0, {"attributes": list(words)}, {}, 0)
    assert event.otlp_bytes("attributes") == fields


def test_events_keep_their_order() -> None:
    assert [event.cpu_id for event in bt2text.parse(f"{START}\n{END}\n")] == [1, 0]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "hello",
        START[:-1],
        START.replace("name = k8s", "nom = k8s"),
        END.replace("[1]", "[7]"),
        END.replace('""', "( x )"),
    ],
)
def test_anything_else_is_refused_with_the_line_quoted(line: str) -> None:
    with pytest.raises(ValueError, match="not an event as babeltrace2 prints it") as caught:
        bt2text.parse_line(line)
    assert repr(line) in str(caught.value)
