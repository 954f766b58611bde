# SPDX-License-Identifier: Apache-2.0
"""A batch of the outbox: the requests of one chunk, as a file.

A batch is a sequence of frames: size and spans of a request, the CRC-32 of its bytes (three little-endian u32), and
the bytes. It has its name, <number>-<spans>, from the moment it is complete.
"""

from __future__ import annotations

import contextlib
import re
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_FRAME = struct.Struct("<III")
_NAME = re.compile(r"(\d{12})-(\d+)")


@dataclass(frozen=True)
class Batch:
    """The requests of one chunk, complete.

    Attributes:
        number: Its place in the order.
        spans: In all its requests.
        written_s: When, by the system's clock.
    """

    number: int
    spans: int
    path: Path
    size_bytes: int
    written_s: float

    @classmethod
    def at(cls, path: Path) -> Batch | None:
        """The batch in this file; None if its name is not that of one."""
        name = _NAME.fullmatch(path.name)
        if name is None:
            return None
        info = path.stat()
        return cls(int(name[1]), int(name[2]), path, info.st_size, info.st_mtime)


@dataclass(frozen=True)
class Item:
    """One request that an endpoint takes next."""

    body: bytes
    spans: int

    @property
    def frame_bytes(self) -> int:
        """What it takes in its batch."""
        return _FRAME.size + len(self.body)


class DamagedBatchError(Exception):
    """What is in a batch is not what was written: the machine lost power before the disk had it."""


class BatchWriter:
    """A batch in the making.

    What it is given is all there or not at all, even on a full disk: `add` and `complete` can be called again.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.spans = 0
        self._folder = folder
        self._path = folder / f"{number:012d}.new"
        self._size = 0
        self._file: BinaryIO | None = None

    def add(self, body: bytes, spans: int) -> None:
        """Append a request.

        Raises:
            OSError: There is no room, for instance; the batch is as before.
        """
        if self._file is None:
            self._file = self._path.open("wb", buffering=0)
        frame = _FRAME.pack(len(body), spans, zlib.crc32(body)) + body
        self._file.seek(self._size)
        rest = memoryview(frame)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            raise
        self._size += len(frame)
        self.spans += spans

    def complete(self) -> Batch | None:
        """Give the batch its name; None if it has no requests."""
        if self._file is None:
            return None
        self._file.close()
        path = self._folder / f"{self.number:012d}-{self.spans}"
        if self._path.exists():  # else it has its name from an earlier call
            self._path.rename(path)
        return Batch(self.number, self.spans, path, self._size, time.time())

    def discard(self) -> None:
        """Throw it away."""
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)


def read_item(file: BinaryIO, batch: Batch, offset: int) -> Item | None:
    """The request at an offset of a batch's file; None at the end.

    Raises:
        DamagedBatchError: What is there is none.
    """
    try:
        file.seek(offset)
        head = file.read(_FRAME.size)
        if not head and offset == batch.size_bytes:
            return None
        size, spans, checksum = _FRAME.unpack(head)
        body = file.read(size) if size <= batch.size_bytes else b""
    except (OSError, struct.error) as error:
        raise DamagedBatchError(str(error)) from error
    if len(body) != size or zlib.crc32(body) != checksum:
        raise DamagedBatchError("the checksum is wrong")
    return Item(body, spans)
