"""A writer of small LTTng-like traces (CTF 1.8): what a test needs that no real recording has.

Times are as given, streams and chunks are as many as wanted, and events may be such as no program
of ours records. tests/golden/relay has a real recording of the same events.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

Layout = Mapping[str, str]
Fields = Mapping[str, Any]

# Of a field's type: its size in bits, and if it is unsigned.
_INTEGERS = {
    f"{'iu'[unsigned]}{bits}": (bits, unsigned) for unsigned in (0, 1) for bits in (8, 16, 32, 64)
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
_SEQUENCES = {"words": 8, "bytes": 1}  # bytes of an element


@dataclass(frozen=True)
class Event:
    """An event; fields that are not given are 0 or empty."""

    time_ns: int
    name: str
    fields: Fields
    context: Fields = field(default_factory=dict)


@dataclass(frozen=True)
class Packet:
    """A packet of a stream, with what LTTng counts in it."""

    events: Sequence[Event]
    events_discarded: int = 0
    number: int = 0
    end_ns: int | None = None


@dataclass(frozen=True)
class Style:
    """How a tracer writes; the default is not any real one's, but the plainest.

    Attributes:
        byte_order: `le` or `be`.
        natural: Each integer is aligned to its size, as LTTng-UST does on aarch64; else bytes are packed, as on x86.
        header: Of events: `plain` (16 bits of id, 64 of time), LTTng's `large` (16 and 32) or `compact` (5 and 27);
            the last two have a longer form for what does not fit.
        context: The fields of the event context, by their types.
        uuid: Of the trace; the same in all chunks of a session.
        long_bits: Size of `unsigned long`, which counts discarded events.
        clock_uuid: Of its clock; LTTng's has the id of the boot.
        clock_offset_s: What is added to the times that are recorded.
    """

    byte_order: str = "le"
    natural: bool = False
    header: str = "plain"
    context: Layout = field(default_factory=dict)
    uuid: UUID | None = None
    long_bits: int = 64
    clock_uuid: UUID | None = None
    clock_offset_s: int = 0

    def align(self, kind: str) -> int:
        """The alignment of a type in bits."""
        bits = {"text": 8, "words": 64, "bytes": 8}.get(kind) or _INTEGERS[kind][0]
        return bits if self.natural else 8


PLAIN = Style()


def write_trace(
    folder: Path,
    streams: Iterable[Sequence[Packet | Event]],
    layouts: Mapping[str, Layout] = LAYOUTS,
    style: Style = PLAIN,
) -> Path:
    """Write a trace folder with one stream for each CPU.

    Args:
        folder: Made if it does not exist.
        streams: What each CPU recorded: packets, or events that go into one packet.
        layouts: The fields of each event, by its name; in the order of the events' numbers.
        style: How it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata").write_text(metadata(layouts, style))
    for cpu, content in enumerate(streams):
        packets = [each for each in content if isinstance(each, Packet)]
        if not packets:
            packets = [Packet([each for each in content if isinstance(each, Event)])]
        data = b"".join(_Writer(style, layouts).packet(packet, cpu) for packet in packets)
        (folder / f"channel_{cpu}").write_bytes(data)
    return folder


class _Writer:
    """Writes one packet; all positions count from its beginning."""

    def __init__(self, style: Style, layouts: Mapping[str, Layout]) -> None:
        self.style = style
        self.layouts = layouts
        self.names = list(layouts)
        self.data = bytearray()
        self.clock = 0

    def packet(self, packet: Packet, cpu: int) -> bytes:
        times = [event.time_ns for event in packet.events]
        begin_ns = times[0] if times else packet.end_ns or 0
        end_ns = packet.end_ns or (times[-1] if times else 0)
        self.clock = begin_ns
        self.integer("u32", 0xC1FC1FC1)
        if self.style.uuid:
            self.data += self.style.uuid.bytes
        self.integer("u32", 0)
        self.integer("u64", cpu)
        self.align(64)
        self.integer("u64", begin_ns)
        self.integer("u64", end_ns)
        sizes = len(self.data)
        self.data += bytes(16)
        self.integer("u64", packet.number)
        self.integer(f"u{self.style.long_bits}", packet.events_discarded)
        self.integer("u32", cpu)
        for event in packet.events:
            self.event(event)
        bits = (8 * len(self.data)).to_bytes(8, self.order)
        self.data[sizes : sizes + 16] = bits * 2
        # LTTng fills a packet up to a page; to eight bytes is as good, and keeps the next one aligned.
        self.align(64)
        self.data[sizes + 8 : sizes + 16] = (8 * len(self.data)).to_bytes(8, self.order)
        return bytes(self.data)

    @property
    def order(self) -> Any:
        return "little" if self.style.byte_order == "le" else "big"

    def align(self, bits: int) -> None:
        if self.style.natural:
            self.data += bytes(-len(self.data) % (bits // 8))

    def integer(self, kind: str, value: int) -> None:
        bits, unsigned = _INTEGERS[kind]
        self.align(bits)
        self.data += value.to_bytes(bits // 8, self.order, signed=not unsigned)

    def event(self, event: Event) -> None:
        self.header(self.names.index(event.name), event.time_ns)
        self.fields(event.context, self.style.context)
        self.fields(event.fields, self.layouts[event.name])

    def header(self, number: int, time_ns: int) -> None:
        passed, self.clock = time_ns - self.clock, time_ns
        if self.style.header == "plain":
            self.align(64)
            self.integer("u16", number)
            self.integer("u64", time_ns)
        elif self.style.header == "large":
            self.align(16)
            fits = number < 65535 and passed < 1 << 32
            self.integer("u16", number if fits else 65535)
            self.time(number, time_ns, 32 if fits else 64)
        else:
            self.align(32)
            if number < 31 and passed < 1 << 27:
                time = time_ns % (1 << 27)
                both = time << 5 | number if self.style.byte_order == "le" else number << 27 | time
                self.data += both.to_bytes(4, self.order)
            else:
                self.data.append(31 if self.style.byte_order == "le" else 31 << 3)
                self.time(number, time_ns, 64)

    def time(self, number: int, time_ns: int, bits: int) -> None:
        if bits == 64:
            self.align(64)
            self.integer("u32", number)
        self.integer(f"u{bits}", time_ns % (1 << bits))

    def fields(self, fields: Fields, layout: Layout) -> None:
        assert fields.keys() <= layout.keys(), fields.keys() - layout.keys()
        kinds = [*layout.values(), *("u32" for kind in layout.values() if kind in _SEQUENCES)]
        self.align(max((self.style.align(kind) for kind in kinds), default=8))
        for name, kind in layout.items():
            self.field(kind, fields.get(name, _EMPTY.get(kind, 0)))

    def field(self, kind: str, value: Any) -> None:
        if kind in _INTEGERS:
            self.integer(kind, value)
        elif kind == "text":
            self.data += (value if isinstance(value, bytes) else value.encode()) + b"\0"
        else:
            size = _SEQUENCES[kind]
            padded = value + bytes(-len(value) % size)
            self.integer("u32", len(padded) // size)
            self.align(8 * size)
            self.data += padded


def metadata(layouts: Mapping[str, Layout] = LAYOUTS, style: Style = PLAIN) -> str:
    """The metadata of such a trace, as text."""

    def struct(layout: Layout) -> str:
        return f"struct {{ {_declarations(layout, style)} }}"

    def integer(bits: int, more: str = "") -> str:
        align = bits if style.natural and bits in (8, 16, 32, 64) else 8 if bits > 27 else 1
        align = 8 if bits in (8, 16) and not style.natural else align
        return f"integer {{ size = {bits}; align = {align}; signed = false; {more} }}"

    aliases = [f"typealias {integer(bits)} := uint{bits}_t;" for bits in (5, 8, 16, 32, 64)]
    aliases.append(f"typealias {integer(style.long_bits)} := unsigned long;")
    clocks = [
        f"typealias {integer(bits, 'map = clock.monotonic.value;')} := uint{bits}_clock_t;"
        for bits in (27, 32, 64)
    ]
    id_of_trace = f'uuid = "{style.uuid}";' if style.uuid else ""
    clock = f'uuid = "{style.clock_uuid}"; ' if style.clock_uuid else ""
    if style.clock_offset_s:
        clock += f"offset_s = {style.clock_offset_s}; "
    id_of_packet = "uint8_t uuid[16];" if style.uuid else ""
    context = f"event.context := {struct(style.context)};" if style.context else ""
    events = "".join(
        f'event {{ name = "{name}"; id = {number}; stream_id = 0; fields := {struct(layout)}; }};\n'
        for number, (name, layout) in enumerate(layouts.items())
    )
    header = _HEADERS[style.header].replace(
        "ALIGN",
        str({"compact": 32, "large": 16, "plain": 64}[style.header] if style.natural else 8),
    )
    return "\n".join(
        [
            "/* CTF 1.8 */",
            *aliases,
            f"trace {{ major = 1; minor = 8; {id_of_trace} byte_order = {style.byte_order};",
            f"packet.header := struct {{ uint32_t magic; {id_of_packet} uint32_t stream_id;",
            "uint64_t stream_instance_id; }; };",
            'env { domain = "ust"; tracer_name = "lttng-ust"; tracer_major = 2; tracer_minor = 13; };',
            f'clock {{ name = "monotonic"; {clock}freq = 1000000000; offset = 0; }};',
            *clocks,
            f"struct event_header {header}",
            f"stream {{ id = 0; event.header := struct event_header; {context}",
            _PACKET_CONTEXT,
            events,
        ]
    )


def _declarations(layout: Layout, style: Style) -> str:
    declared = []
    for name, kind in layout.items():
        if kind in _INTEGERS:
            declared.append(f"{_integer(kind, style)} _{name};")
        elif kind == "text":
            declared.append(f"string _{name};")
        else:
            element = _integer("u64" if kind == "words" else "u8", style)
            length = f"__{name}_length"
            declared.append(f"{_integer('u32', style)} {length}; {element} _{name}[ {length} ];")
    return " ".join(declared)


def _integer(kind: str, style: Style) -> str:
    bits, unsigned = _INTEGERS[kind]
    return (
        f"integer {{ size = {bits}; align = {style.align(kind)}; signed = {int(not unsigned)}; }}"
    )


_HEADERS = {
    "plain": "{ uint16_t id; uint64_clock_t timestamp; } align(ALIGN);",
    "large": """{
	enum : uint16_t { compact = 0 ... 65534, extended = 65535 } id;
	variant <id> {
		struct { uint32_clock_t timestamp; } compact;
		struct { uint32_t id; uint64_clock_t timestamp; } extended;
	} v;
} align(ALIGN);""",
    "compact": """{
	enum : uint5_t { compact = 0 ... 30, extended = 31 } id;
	variant <id> {
		struct { uint27_clock_t timestamp; } compact;
		struct { uint32_t id; uint64_clock_t timestamp; } extended;
	} v;
} align(ALIGN);""",
}

_PACKET_CONTEXT = """packet.context := struct {
	uint64_clock_t timestamp_begin; uint64_clock_t timestamp_end;
	uint64_t content_size; uint64_t packet_size;
	uint64_t packet_seq_num; unsigned long events_discarded; uint32_t cpu_id;
}; };"""
