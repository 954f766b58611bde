"""Writes what fuzzing begins with: small traces of every layout, and LTTng's own metadata.

    python -m tests.fuzz.make_corpus [FOLDER]

fuzz_relay.c says what an input consists of. Inputs that once showed a fault are in the corpus too, as `fault-*`.
"""

import itertools
import struct
import sys
import tempfile
from pathlib import Path
from uuid import UUID

from tests.support.ctf import Event, Packet, Style, write_trace
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
        found[name] = _input(style)
    return found


def _input(style: Style) -> bytes:
    told: list[Event] = [
        *announced(),
        start(1, 1),
        event("span_event", 2, span_id=1, name="moment"),
        event("span_link", 3, span_id=1, linked_span_id=5, attributes=b""),
        end(1, MS, attributes=attributes(key="value"), status=2, status_message="why"),
    ]
    packets = [
        Packet(told, number=1, events_discarded=1),
        Packet([start(2, 9 * S), end(2, 10 * S, op_name="renamed")], number=3, events_discarded=4),
    ]
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
