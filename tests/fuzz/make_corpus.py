"""Writes what fuzzing begins with: small traces of every layout, and LTTng's own metadata.

    python -m tests.fuzz.make_corpus [FOLDER]

fuzz_relay.c says what an input consists of. Inputs that once showed a fault are in the corpus too, as `fault-*`.
"""

import itertools
import re
import struct
import sys
import tempfile
from pathlib import Path
from uuid import UUID

from tests.support.ctf import Event, Packet, Style, write_trace
from tests.support.scheduler import CONTEXTS, on
from tests.support.spans import MS, S, announced, attributes, end, event, start

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
GOLDEN = HERE.parent / "golden" / "relay" / "recorded"

STREAM, METADATA, BOTH, TWICE = 0, 1, 2, 8


def golden_folder() -> Path:
    """The trace folder that stands beside an input that is a part of one only."""
    return min(GOLDEN.rglob("metadata")).parent


def seeds() -> dict[str, bytes]:
    """Every input by its name."""
    golden = golden_folder()
    found = {
        f"golden-{name}": bytes([kind]) + (golden / file).read_bytes().rstrip(b"\0")
        for name, kind, file in (
            ("stream", STREAM, "spans_1"),
            ("again", STREAM | TWICE, "spans_1"),
            ("metadata", METADATA, "metadata"),
        )
    }
    for order, natural, header in itertools.product(
        ("le", "be"), (False, True), ("plain", "large", "compact")
    ):
        style = Style(order, natural, header, {"vpid": "i32", "name": "text"}, UUID(int=3))
        name = f"{order}-{'natural' if natural else 'packed'}-{header}"
        found[name] = _input(style, _packets())
    style = Style(context=CONTEXTS, clock_uuid=golden_clock())
    found["threads"] = _input(style, [Packet(_threads()), Packet(_threads(9 * S), number=2)])
    return found


def golden_clock() -> UUID:
    """The id of the boot in which the golden trace was recorded: fuzz_relay.c says that it is this one."""
    metadata = (golden_folder() / "metadata").read_bytes()
    found = re.search(rb'clock \{\s*name = "monotonic";\s*uuid = "([^"]*)"', metadata)
    assert found
    return UUID(found[1].decode())


def _threads(at_ns: int = 0) -> list[Event]:
    """Spans that have their threads for themselves, and such as share them."""
    begin = 10 * (at_ns > 0) + 1
    a, b, c, d = range(begin, begin + 4)
    return [
        *on(1, *announced(at_ns), start(a, at_ns), start(b, at_ns + 1, parent_span_id=a)),
        *on(2, start(c, at_ns + 2)),
        *on(1, end(b, at_ns + 3, attributes=attributes(key="value"))),
        *on(2, start(d, at_ns + 4)),
        *on(1, end(a, at_ns + 5)),
        *on(2, end(c, at_ns + 6), end(d, at_ns + 7)),
    ]


def _packets() -> list[Packet]:
    told: list[Event] = [
        *announced(),
        start(1, 1),
        event("span_event", 2, span_id=1, name="moment"),
        event("span_link", 3, span_id=1, linked_span_id=5, attributes=b""),
        end(1, MS, attributes=attributes(key="value"), status=2, status_message="why"),
    ]
    return [
        Packet(told, number=1, events_discarded=1),
        Packet([start(2, 9 * S), end(2, 10 * S, op_name="renamed")], number=3, events_discarded=4),
    ]


def _input(style: Style, packets: list[Packet]) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        folder = write_trace(Path(name), [packets], style=style)
        metadata = (folder / "metadata").read_bytes()
        stream = (folder / "channel_0").read_bytes()
    return bytes([BOTH | TWICE]) + struct.pack("<I", len(metadata)) + metadata + stream


def main() -> None:
    """Write them."""
    corpus = Path(sys.argv[1]) if sys.argv[1:] else CORPUS
    corpus.mkdir(parents=True, exist_ok=True)
    for name, content in seeds().items():
        (corpus / name).write_bytes(content)


if __name__ == "__main__":
    main()
