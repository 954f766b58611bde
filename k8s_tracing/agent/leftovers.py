# SPDX-License-Identifier: Apache-2.0
"""What a session that has ended did not archive: made into chunks, so that none of it is lost.

    OUTPUT/.tmp_old_chunk, OUTPUT/TIME-NUMBER   the chunks that were being written, up to their last whole packet
    OUTPUT/ust                                  the only one of a session that was never rotated
    SHM/SESSION-TIME                            the ring buffers, with what nobody fetched: lttng-crash(1) reads them

They go into OUTPUT/archives as `unfinished-NUMBER`, the buffers as the last one. Each by one rename, because the agent
reads there meanwhile. Whatever moment this is interrupted at, the next call goes on with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

from k8s_tracing.agent.buffers import SHARED_MEMORY
from k8s_tracing.agent.chunks import ARCHIVES, UNFINISHED, chunk_number
from k8s_tracing.agent.lttng import program
from k8s_tracing.errors import SessionError

log = logging.getLogger(__name__)

_BUFFERS = ".buffers"
_CRASH_TIMEOUT_S = 60.0

_QUIET_S = 1.0
_MAX_QUIET_WAIT_S = 10.0

# The head of every packet that LTTng writes, on every architecture (ctf-1.8, lttng-ust 2.13 to 2.15): magic, uuid,
# stream_id, stream_instance_id, timestamp_begin, timestamp_end, content_size, packet_size; the sizes in bits.
_PACKET = struct.Struct("=I16sIQQQQQ")
_MAGIC = 0xC1FC1FC1


def shared_folder(spool: Path) -> Path:
    """Where the buffers of a spool's sessions are.

    Named after the spool's inode: no two agents of one kernel have the same, whatever their mount namespaces call it.
    """
    info = spool.stat()
    return SHARED_MEMORY / f"k8s-tracing-{info.st_dev:x}-{info.st_ino:x}"


def collect(output: Path, shm: Path | None) -> int:
    """Make chunks of what a session left behind that nobody writes to any more.

    Args:
        output: The session's output folder.
        shm: The folder with its buffers, which is removed.

    Returns:
        How many.
    """
    places = [place for place in (shm, _away(shm)) if place.is_dir()] if shm is not None else []
    for place in places:
        _read_buffers(place, output / _BUFFERS)
    archives = output / ARCHIVES
    _complete_metadata(output)
    made = 0
    for part in _in_order(output):
        whole = part
        if part.name == "ust":
            whole = output / ".whole"
            whole.mkdir()
            part.rename(whole / "ust")
        if not _has_data(whole):
            shutil.rmtree(whole, ignore_errors=True)
            continue
        _end_at_whole_packets(whole)
        archives.mkdir(exist_ok=True)
        whole.rename(archives / f"{UNFINISHED}{_next_number(archives, part)}")
        made += 1
    for place in places:
        shutil.rmtree(place, ignore_errors=True)
    return made


def move_away(shm: Path) -> None:
    """Give the folder of a session's buffers another name, where `collect` finds it as well."""
    if shm.is_dir():
        shutil.rmtree(_away(shm), ignore_errors=True)
        shm.rename(_away(shm))


def await_quiet(output: Path) -> None:
    """Wait until the daemon has written out what it can."""

    def size_bytes() -> int:
        total = 0
        for path in output.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    deadline = time.monotonic() + _MAX_QUIET_WAIT_S
    before = -1
    while (now := size_bytes()) != before and time.monotonic() < deadline:
        before = now
        time.sleep(_QUIET_S)


def _away(shm: Path) -> Path:
    return shm.with_name(f"{shm.name}.abandoned")


def whole_packets_bytes(path: Path) -> int:
    """How many bytes of a stream's file are whole packets: a daemon that is killed leaves half of one."""
    size = path.stat().st_size
    end = 0
    with path.open("rb") as file:
        while True:
            file.seek(end)
            head = file.read(_PACKET.size)
            if len(head) < _PACKET.size:
                return end
            magic, *_, packet_bits = _PACKET.unpack(head)
            if magic != _MAGIC or packet_bits < 8 * _PACKET.size or end + packet_bits // 8 > size:
                return end
            end += packet_bits // 8


def _read_buffers(shm: Path, target: Path) -> None:
    """Write what lies unread in ring buffers as a trace; the buffers may be in use."""
    shutil.rmtree(target, ignore_errors=True)
    for session in sorted(path for path in shm.iterdir() if path.is_dir()):
        command = [program("lttng-crash"), f"--extract={target}", str(session)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_CRASH_TIMEOUT_S, check=False
            )
        except (SessionError, subprocess.TimeoutExpired) as error:
            log.error("what was left in the buffers %s is lost: %s", session, error)
            continue
        if done.returncode:
            log.warning("some of the buffers %s cannot be read: %s", session, done.stderr.strip())


def _complete_metadata(output: Path) -> None:
    """Give the chunks that were being written the buffers' metadata: theirs may have been cut short."""
    buffers = output / _BUFFERS
    for metadata in list(buffers.rglob("metadata")):
        for part in _in_order(output):
            chunk = output if part.name == "ust" else part
            place = chunk / metadata.relative_to(buffers)
            if part != buffers and place.parent.is_dir():
                shutil.copyfile(metadata, place)


def _in_order(output: Path) -> list[Path]:
    """What was left, the oldest first."""

    def age(path: Path) -> tuple[int, str]:
        first = {"ust": 0, ".whole": 0, ".tmp_old_chunk": 1, ".tmp_new_chunk": 3, _BUFFERS: 4}
        return first.get(path.name, 2), path.name

    left = (path for path in output.iterdir() if path.name != ARCHIVES and path.is_dir())
    return sorted(left, key=age)


def _has_data(chunk: Path) -> bool:
    return any(stream.stat().st_size for stream in _streams(chunk))


def _streams(chunk: Path) -> list[Path]:
    """The files with events: beside a file `metadata`, and not it."""
    return [
        path
        for metadata in chunk.rglob("metadata")
        for path in metadata.parent.iterdir()
        if path.is_file() and path.name != "metadata"
    ]


def _end_at_whole_packets(chunk: Path) -> None:
    for stream in _streams(chunk):
        size, whole = stream.stat().st_size, whole_packets_bytes(stream)
        if whole < size:
            log.warning("%s ends within a packet: its last %d bytes are lost", stream, size - whole)
            os.truncate(stream, whole)
        # The index may name a packet that is not there, or lack one that is. Nobody needs it.
        shutil.rmtree(stream.parent / "index", ignore_errors=True)


def _next_number(archives: Path, part: Path) -> int:
    """LTTng's number for this chunk where it has one, and in any case one more than all that are there."""
    numbers = [chunk_number(path.name) or 0 for path in archives.iterdir()]
    return max([chunk_number(part.name) or 0, *(number + 1 for number in numbers)])
