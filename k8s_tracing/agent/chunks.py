# SPDX-License-Identifier: Apache-2.0
"""What LTTng calls the folders that it writes, and what their names say.

    SESSION/archives/BEGIN-END-NUMBER   a chunk, closed by a rotation: two times in whole seconds, and a count
    SESSION/BEGIN-NUMBER                the one that is written now
    .../ust/uid/1000/64-bit             a trace: streams, and `metadata`; in SESSION itself if it was never rotated

The times are the clock's, which may be set back; the numbers are not. Those that leftovers.py makes are
`archives/unfinished-NUMBER`.
"""

from __future__ import annotations

import calendar
import re
from pathlib import Path

ARCHIVES = "archives"
UNFINISHED = "unfinished-"

_TIME = "([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})([+-][0-9]{2})([0-9]{2})"
_NAMED = re.compile(f"[0-9]{{8}}T.*|{UNFINISHED}.*")


def trace_folders(path: Path) -> list[Path]:
    """The LTTng trace folders at or below a folder, in a stable order: those that have a file `metadata`."""
    return sorted(metadata.parent for metadata in path.rglob("metadata") if metadata.is_file())


def chunk_folders(path: Path) -> list[Path]:
    """The chunks at or below a folder, a session's oldest first; a trace that was never rotated is one chunk."""
    chunks = {_chunk_of(folder, path) for folder in trace_folders(path)}
    return sorted(chunks, key=lambda chunk: [_place(part) for part in chunk.parts])


def chunk_number(name: str) -> int | None:
    """The number that ends the name of a chunk, by which those of a session are in order; None without one."""
    number = name.rpartition("-")[2]
    return int(number) if number.isdecimal() and number.isascii() else None


def chunk_duration_ns(path: Path) -> int:
    """How long a chunk was recorded, by LTTng's name for it; 0 if it says nothing.

    A difference, not a time: what the time of day was set by in between is the only error, and the next chunk has none.
    """
    found = re.fullmatch(f"{_TIME}-{_TIME}-[0-9]+", path.name)
    if not found:
        return 0
    numbers = [int(text) for text in found.groups()]
    try:
        return (_seconds(*numbers[8:]) - _seconds(*numbers[:8])) * 10**9
    except ValueError:
        return 0


def _seconds(*numbers: int) -> int:
    """Seconds since the Unix epoch, of the numbers of such a time."""
    *time, zone_hours, zone_minutes = numbers
    sign = -1 if zone_hours < 0 else 1
    return calendar.timegm((*time, 0, 0, 0)) - 3600 * zone_hours - 60 * sign * zone_minutes


def _chunk_of(folder: Path, top: Path) -> Path:
    parts = folder.relative_to(top).parts
    return top.joinpath(*parts[: parts.index("ust")]) if "ust" in parts else folder


def _place(part: str) -> tuple[int, str]:
    """Sort key of a folder among its siblings: what is archived is older than what is not."""
    if part == ARCHIVES:
        return -2, part
    number = chunk_number(part) if _NAMED.fullmatch(part) else None
    return -1 if number is None else number, part
