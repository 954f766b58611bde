"""A writer of small LTTng-like traces (CTF 1.8): what a test needs that no real recording has.

Times are as given, streams and chunks are as many as wanted, and events may be such as no program
of ours records. tests/golden/relay has a real recording of the same events.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Layout = Mapping[str, str]
Fields = Mapping[str, Any]

# Of a field's type: how it is declared, and how it is packed.
_INTEGERS = {
    f"{'iu'[unsigned]}{bits}": (bits, unsigned, "<" + "bhiq BHIQ"[unsigned * 5 + index])
    for unsigned in (0, 1)
    for index, bits in enumerate((8, 16, 32, 64))
}

#: The events of _native/tracepoints.h: the types of their fields.
LAYOUTS: Mapping[str, Layout] = {
    "k8s_tracing:start_span": {
        "trace_id_high": "u64",
        "trace_id_low": "u64",
        "span_id": "u64",
        "parent_span_id": "u64",
        "instance_id": "u64",
        "start_time": "i64",
        "scope_id": "u16",
        "kind": "u8",
        "flags": "u8",
        "op_name": "text",
    },
    "k8s_tracing:end_span": {
        "trace_id_low": "u64",
        "span_id": "u64",
        "end_time": "i64",
        "status": "u8",
        "dropped_attributes": "u16",
        "dropped_events": "u16",
        "dropped_links": "u16",
        "op_name": "text",
        "status_message": "text",
        "attributes": "words",
    },
    "k8s_tracing:span_event": {
        "span_id": "u64",
        "time": "i64",
        "dropped_attributes": "u16",
        "name": "text",
        "attributes": "words",
    },
    "k8s_tracing:span_link": {
        "span_id": "u64",
        "linked_trace_id_high": "u64",
        "linked_trace_id_low": "u64",
        "linked_span_id": "u64",
        "flags": "u8",
        "dropped_attributes": "u16",
        "attributes": "words",
    },
    "k8s_tracing:process": {"instance_id": "u64", "pid": "i32", "resource": "words"},
    "k8s_tracing:scope": {
        "instance_id": "u64",
        "scope_id": "u16",
        "name": "text",
        "version": "text",
    },
}

_EMPTY = {"text": b"", "words": b"", "bytes": b""}


@dataclass(frozen=True)
class Event:
    """An event; fields that are not given are 0 or empty."""

    time_ns: int
    name: str
    fields: Fields


@dataclass(frozen=True)
class Packet:
    """A packet of a stream, with what LTTng counts in it."""

    events: Sequence[Event]
    events_discarded: int = 0
    number: int = 0
    end_ns: int | None = None


def write_trace(
    folder: Path,
    streams: Iterable[Sequence[Packet | Event]],
    layouts: Mapping[str, Layout] = LAYOUTS,
) -> Path:
    """Write a trace folder with one stream for each CPU.

    Args:
        folder: Made if it does not exist.
        streams: What each CPU recorded: packets, or events that go into one packet.
        layouts: The fields of each event, by its name; in the order of the events' numbers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata").write_text(_metadata(layouts))
    for cpu, content in enumerate(streams):
        packets = [each for each in content if isinstance(each, Packet)]
        if not packets:
            packets = [Packet([each for each in content if isinstance(each, Event)])]
        data = b"".join(_packet(packet, cpu, layouts) for packet in packets)
        (folder / f"channel_{cpu}").write_bytes(data)
    return folder


def _packet(packet: Packet, cpu: int, layouts: Mapping[str, Layout]) -> bytes:
    names = list(layouts)
    body = b"".join(
        struct.pack("<HQ", names.index(event.name), event.time_ns)
        + _payload(event.fields, layouts[event.name])
        for event in packet.events
    )
    begin_ns = packet.events[0].time_ns if packet.events else packet.end_ns or 0
    end_ns = packet.end_ns or (packet.events[-1].time_ns if packet.events else 0)
    context = struct.Struct("<IIQQQQQQQI")
    bits = 8 * (context.size + len(body))
    counts = (bits, bits, packet.number, packet.events_discarded, cpu)
    return context.pack(0xC1FC1FC1, 0, cpu, begin_ns, end_ns, *counts) + body


def _payload(fields: Fields, layout: Layout) -> bytes:
    assert fields.keys() <= layout.keys(), fields.keys() - layout.keys()
    return b"".join(
        _field(kind, fields.get(name, _EMPTY.get(kind, 0))) for name, kind in layout.items()
    )


def _field(kind: str, value: Any) -> bytes:
    if kind in _INTEGERS:
        return struct.pack(_INTEGERS[kind][2], value)
    if kind == "text":
        return (value if isinstance(value, bytes) else value.encode()) + b"\0"
    if kind == "bytes":
        return struct.pack("<I", len(value)) + value
    padded = value + bytes(-len(value) % 8)
    return struct.pack("<I", len(padded) // 8) + padded


def _metadata(layouts: Mapping[str, Layout]) -> str:
    events = "".join(
        f'event {{ name = "{name}"; id = {number}; stream_id = 0;'
        f" fields := struct {{ {_declarations(layout)} }}; }};\n"
        for number, (name, layout) in enumerate(layouts.items())
    )
    return _METADATA + events


def _declarations(layout: Layout) -> str:
    declared = []
    for name, kind in layout.items():
        if kind in _INTEGERS:
            declared.append(f"{_integer(kind)} _{name};")
        elif kind == "text":
            declared.append(f"string _{name};")
        else:
            element = _integer("u64" if kind == "words" else "u8")
            length = f"__{name}_length"
            declared.append(f"{_integer('u32')} {length}; {element} _{name}[ {length} ];")
    return " ".join(declared)


def _integer(kind: str) -> str:
    bits, unsigned, _ = _INTEGERS[kind]
    return f"integer {{ size = {bits}; align = 8; signed = {int(not unsigned)}; }}"


_METADATA = """/* CTF 1.8 */
typealias integer { size = 16; align = 8; signed = false; } := uint16_t;
typealias integer { size = 32; align = 8; signed = false; } := uint32_t;
typealias integer { size = 64; align = 8; signed = false; } := uint64_t;
trace {
	major = 1; minor = 8; byte_order = le;
	packet.header := struct { uint32_t magic; uint32_t stream_id; uint64_t stream_instance_id; };
};
env { domain = "ust"; tracer_name = "lttng-ust"; tracer_major = 2; tracer_minor = 13; };
clock { name = "monotonic"; freq = 1000000000; offset = 0; };
typealias integer { size = 64; align = 8; signed = false; map = clock.monotonic.value; } := time_t;
stream {
	id = 0;
	event.header := struct { uint16_t id; time_t timestamp; };
	packet.context := struct {
		time_t timestamp_begin; time_t timestamp_end;
		uint64_t content_size; uint64_t packet_size;
		uint64_t packet_seq_num; uint64_t events_discarded; uint32_t cpu_id;
	};
};
"""
