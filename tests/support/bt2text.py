r"""Reads the text that `babeltrace2` prints, with nothing guessed.

With the options in `OPTIONS` an event is one line, each group of fields carries its name, and
strings are quoted with C escapes, so that no value can look like something else:

    timestamp = 1700000000.000000001, trace:hostname = node-1, name = k8s_tracing:start_span,
    stream.packet.context = { cpu_id = 1 }, stream.event.context = { vpid = 7 },
    event.fields = { span_id = 0x3, op_name = "a \"b\"", attributes = [ [0] = 1, [1] = 255 ] }

(one line there). babeltrace2's Python bindings belong to the system's Python and cannot be
imported from a virtual environment; and the tests want a judge that shares no code with us.
"""

import re
import sys
from dataclasses import dataclass
from decimal import Decimal

OPTIONS = ("--clock-seconds", "--no-delta", "--names=all", "--fields=trace:hostname")

Value = int | str | list["Value"] | dict[str, "Value"]


@dataclass(frozen=True)
class Event:
    """One event of a trace."""

    name: str
    timestamp_ns: int  # since the epoch
    fields: dict[str, Value]
    context: dict[str, Value]  # what `lttng add-context` asked for: vpid, vtid, ...
    cpu_id: int

    def __getitem__(self, field: str) -> Value:
        return self.fields[field]

    def otlp_bytes(self, field: str) -> bytes:
        """Return the OTLP fields that a sequence of 64-bit words holds, without the zeros at its end."""
        words = self.fields[field]
        assert isinstance(words, list), f"{field} is not a sequence: {words!r}"
        text = b"".join(word.to_bytes(8, sys.byteorder) for word in words if isinstance(word, int))
        # A field may end in a zero itself, but no field begins with one: protobuf says where it ends.
        return text[: len(text) - _padding(text)]


def _padding(text: bytes) -> int:
    """How many bytes at the end belong to no field, from the lengths of those before."""
    position = 0
    while position < len(text) and text[position]:
        length = shift = 0
        position += 1
        while True:
            byte = text[position]
            length |= (byte & 0x7F) << shift
            shift += 7
            position += 1
            if byte < 0x80:
                break
        position += length
    return len(text) - position


_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string> "(?:[^"\\]|\\.)*" )
    | (?P<mark> [{}()\[\]=,] )
    | (?P<word> [^\s{}()\[\]=,"]+ )
    )""",
    re.VERBOSE,
)
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|.)", re.DOTALL)
_ESCAPED = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_ESCAPED |= {b"v": b"\v", b"0": b"\0"}


def parse(text: str) -> list[Event]:
    """Return the events in what babeltrace2 printed, in its order.

    Raises:
        ValueError: a line is not what the options in `OPTIONS` make; the message quotes it.
    """
    return [parse_line(line) for line in text.split("\n") if line]


def parse_line(line: str) -> Event:
    """Return the event in one line that babeltrace2 printed."""
    try:
        groups = _Reader(line).members(end=None)
        packet, context = groups["stream.packet.context"], groups.get("stream.event.context", {})
        fields = groups.get("event.fields", {})
        assert isinstance(packet, dict)
        assert isinstance(context, dict)
        assert isinstance(fields, dict)
        name, cpu_id = groups["name"], packet["cpu_id"]
        assert isinstance(name, str)
        assert isinstance(cpu_id, int)
        timestamp_ns = int(Decimal(str(groups["timestamp"])).scaleb(9))
    except (AssertionError, KeyError, ValueError) as error:
        raise ValueError(f"not an event as babeltrace2 prints it ({error}): {line!r}") from error
    return Event(name, timestamp_ns, fields, context, cpu_id)


class _Reader:
    """Reads the values of one line from left to right."""

    def __init__(self, line: str) -> None:
        self.line = line
        self.at = 0

    def token(self) -> tuple[str, str]:
        """Take the next token; return its kind ("" at the end of the line) and its text."""
        match = _TOKEN.match(self.line, self.at)
        if match is None:
            if self.line[self.at :].strip():
                raise ValueError(f"unexpected text at column {self.at}")
            return "", ""
        self.at = match.end()
        kind = match.lastgroup or ""
        return kind, match[kind]

    def take(self, expected: str) -> None:
        if (found := self.token()[1]) != expected:
            raise ValueError(f"expected {expected!r} but found {found!r} at column {self.at}")

    def members(self, end: str | None) -> dict[str, Value]:
        """Read `name = value, ...` up to the mark `end`, or to the end of the line."""
        members: dict[str, Value] = {}
        while True:
            kind, text = self.token()
            if (end is None and not kind) or (kind == "mark" and text == end):
                return members
            if kind == "mark" and text == ",":
                continue
            if kind != "word":
                raise ValueError(f"expected a name but found {text!r} at column {self.at}")
            self.take("=")
            members[text] = self.value()

    def value(self) -> Value:
        kind, text = self.token()
        if kind == "string":
            return _unescape(text[1:-1])
        if kind == "word":
            return _scalar(text)
        if text == "{":
            return self.members("}")
        if text == "[":
            return self.elements()
        if text == "(":
            return self.enumeration()
        raise ValueError(f"expected a value but found {text!r} at column {self.at}")

    def enumeration(self) -> Value:
        """Read `"label" : container = value )`."""
        while (found := self.token()) != ("word", "container"):
            if not found[0]:
                raise ValueError("an enumeration has no value")
        self.take("=")
        value = self.value()
        self.take(")")
        return value

    def elements(self) -> list[Value]:
        """Read `[0] = value, [1] = value ]`."""
        elements: list[Value] = []
        while True:
            text = self.token()[1]
            if text == "]":
                return elements
            if text == ",":
                continue
            if text != "[":
                raise ValueError(f"expected '[' but found {text!r} at column {self.at}")
            self.take(str(len(elements)))
            self.take("]")
            self.take("=")
            elements.append(self.value())


def _scalar(word: str) -> Value:
    """Return an integer in any base that LTTng prints; a time stamp or a name stays text."""
    if re.fullmatch(r"-?\d+", word):
        return int(word)
    if re.fullmatch(r"0[xX][0-9a-fA-F]+", word):
        return int(word, 16)
    return word


def _unescape(text: str) -> str:
    def replace(match: re.Match[bytes]) -> bytes:
        escaped = match[1]
        if len(escaped) == 3:
            return bytes([int(escaped[1:], 16)])
        return _ESCAPED.get(escaped, escaped)

    return _ESCAPE.sub(replace, text.encode("utf-8", "surrogateescape")).decode(
        "utf-8", "surrogateescape"
    )
