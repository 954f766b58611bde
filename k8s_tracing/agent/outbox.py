# SPDX-License-Identifier: Apache-2.0
"""Encoded requests on disk, between the relay and the endpoints.

    SPOOL/outbox/<number>-<spans>      the requests of one chunk: a batch
    SPOOL/outbox/<endpoint>.position   how far that endpoint is

Every endpoint has a cursor of its own, so that one that is down holds up no other. A batch goes when all cursors are
past it, or when there is no room for it any more; then what an endpoint had not taken of it is counted as dropped.

A batch (batch.py) is visible by its name from the moment it is complete, and is sent once it is published.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from k8s_tracing.agent.batch import Batch, BatchWriter, DamagedBatchError, Item, read_item

log = logging.getLogger(__name__)

_POSITION_BYTES = 48


@dataclass(frozen=True)
class Behind:
    """What an endpoint has not taken yet.

    Attributes:
        age_s: How long the oldest of it has been waiting.
    """

    spans: int
    size_bytes: int
    age_s: float


class Cursor:
    """How far one endpoint is.

    The position is written in place: that needs no room on a full disk, and so few bytes are written whole or not at
    all, whatever kills the agent.

    Attributes:
        number: The batch that it is in, or the next one.
        offset: The bytes of it that were dealt with, and `taken` the spans.
        in_flight: The request in hand.
        dropped: Spans that there was no room for before this endpoint took them.
        damaged: Spans that were not on disk any more as they were written.
    """

    def __init__(self, outbox: Outbox, name: str) -> None:
        self.name = name
        self.number, self.offset, self.taken = 0, 0, 0
        self.in_flight: Item | None = None
        self.dropped = 0
        self.damaged = 0
        self._outbox = outbox
        self._file: BinaryIO | None = None
        self._position = os.open(
            outbox.folder / position_file(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        with contextlib.suppress(ValueError):
            words = os.pread(self._position, _POSITION_BYTES, 0).split()
            self.number, self.offset, self.taken = (int(word) for word in words)

    def next(self, wait_s: float) -> Item | None:
        """The next request; None if none comes within that time."""
        while (batch := self._outbox.batch_for(self.number, wait_s)) is not None:
            if batch.number != self.number or self._file is None:
                self._enter(batch)
            try:
                item = self._read(batch)
            except DamagedBatchError as error:
                self._give_up(batch, error)
                continue
            if item is None:
                self._leave(batch)
            elif self._outbox.take(self, batch, item):
                return item
        return None

    @property
    def wanted(self) -> bool:
        """Is what was taken in hand still on disk? There may have been no room for it any more."""
        return self._outbox.has(self.number)

    def done(self) -> None:
        """The request in hand was dealt with."""
        with self._outbox.changed:
            assert self.in_flight is not None
            self.offset += self.in_flight.frame_bytes
            self.taken += self.in_flight.spans
            self.in_flight = None
        self.save()

    def abandon(self) -> None:
        """The request in hand is not wanted any more."""
        with self._outbox.changed:
            assert self.in_flight is not None
            self.dropped += self.in_flight.spans
            self.in_flight = None

    def reset(self) -> None:
        """Begin with the oldest batch there is."""
        self.number, self.offset, self.taken = 0, 0, 0
        self.save()

    def save(self) -> None:
        """Write down how far this endpoint is."""
        text = f"{self.number} {self.offset} {self.taken}".ljust(_POSITION_BYTES - 1) + "\n"
        try:
            os.pwrite(self._position, text.encode(), 0)
        except OSError as error:
            log.warning("cannot write down how far %s is: %s", self.name, error.strerror)

    def close(self) -> None:
        """Let go of files."""
        os.close(self._position)
        self._close_batch()

    def _enter(self, batch: Batch) -> None:
        self._close_batch()
        if batch.number != self.number:
            with self._outbox.changed:
                self.number, self.offset, self.taken = batch.number, 0, 0

    def _leave(self, batch: Batch) -> None:
        self._close_batch()
        with self._outbox.changed:
            self.number, self.offset, self.taken = batch.number + 1, 0, 0
            self.save()
            self._outbox.delete_passed()

    def _read(self, batch: Batch) -> Item | None:
        """The request at this position; None at the end."""
        try:
            if self._file is None:
                self._file = batch.path.open("rb")
        except OSError as error:
            raise DamagedBatchError(str(error)) from error
        return read_item(self._file, batch, self.offset)

    def _give_up(self, batch: Batch, error: DamagedBatchError) -> None:
        """Pass over the rest of a batch, which cannot be read, unless it is gone because there was no room."""
        if self._outbox.has(batch.number):
            lost = batch.spans - self.taken
            self.damaged += lost
            log.error("%s: %d spans are lost for %s: %s", batch.path, lost, self.name, error)
        self._leave(batch)

    def _close_batch(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class Outbox:
    """The batches of one spool and the cursors of its endpoints.

    One thread writes; every cursor belongs to one thread.

    Args:
        spool: The spool's folder; the outbox is in it.
        endpoints: Their names, each once.

    Attributes:
        changed: Held by who reads or changes what several threads look at, and notified of new batches.
    """

    def __init__(self, spool: Path, endpoints: Iterable[str]) -> None:
        self.folder = spool / "outbox"
        self.changed = threading.Condition(threading.RLock())
        self.cursors: list[Cursor] = []
        self._names = list(endpoints)
        self._batches: list[Batch] = []
        self._size_bytes = 0
        self._next = 0
        self._finished = False

    def open(self, next_number: int | None) -> None:
        """Take over what an earlier run left.

        Args:
            next_number: Batches from this number on were never published: their chunks are read anew. None if nobody
                knows; then all that are complete count.

        Raises:
            OSError: The folder cannot be used.
        """
        self.folder.mkdir(exist_ok=True)
        expected = {position_file(name) for name in self._names}
        for path in self.folder.iterdir():
            batch = Batch.at(path)
            if batch is not None and (next_number is None or batch.number < next_number):
                self._batches.append(batch)
                self._size_bytes += batch.size_bytes
            elif path.name not in expected:
                path.unlink()  # not published, or the position of an endpoint that is not ours any more
        self._batches.sort(key=_number)
        self._next = max(self._batches[-1].number + 1 if self._batches else 0, next_number or 0)
        self.cursors = [Cursor(self, name) for name in self._names]
        for cursor in self.cursors:
            if cursor.number > self._next:
                cursor.reset()  # it was that far in an outbox that is gone
        self.delete_passed()

    def close(self) -> None:
        """Let go of everything; an outbox without batches leaves no files."""
        for cursor in self.cursors:
            cursor.close()
            if not self._batches:
                (self.folder / position_file(cursor.name)).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds batches
            self.folder.rmdir()

    @property
    def next_number(self) -> int:
        """The number of the next batch."""
        return self._next

    @property
    def size_bytes(self) -> int:
        """What all batches take on disk."""
        return self._size_bytes

    @property
    def count(self) -> int:
        """How many batches there are."""
        return len(self._batches)

    @property
    def finished(self) -> bool:
        """Does no batch come any more?"""
        return self._finished

    def begin(self) -> BatchWriter:
        """Begin the next batch."""
        return BatchWriter(self.folder, self._next)

    def publish(self, batch: Batch) -> None:
        """From now on it is sent."""
        with self.changed:
            self._batches.append(batch)
            self._size_bytes += batch.size_bytes
            self._next = batch.number + 1
            self.changed.notify_all()

    def finish(self) -> None:
        """No more batches come: who waits for one need not."""
        with self.changed:
            self._finished = True
            self.changed.notify_all()

    def behind(self, cursor: Cursor) -> Behind:
        """What an endpoint has not taken yet."""
        with self.changed:
            waiting = self._batches[self._index(cursor.number) :]
            begun = bool(waiting) and waiting[0].number == cursor.number
            return Behind(
                sum(batch.spans for batch in waiting) - (cursor.taken if begun else 0),
                sum(batch.size_bytes for batch in waiting) - (cursor.offset if begun else 0),
                max(0.0, time.time() - waiting[0].written_s) if waiting else 0.0,
            )

    def oldest(self) -> Batch | None:
        """The oldest batch that may go to make room: the newest one stays."""
        with self.changed:
            return self._batches[0] if len(self._batches) > 1 else None

    def drop(self, batch: Batch) -> None:
        """Remove the oldest batch, and count what each endpoint has not taken of it."""
        with self.changed:
            if not self._batches or self._batches[0] is not batch:
                return
            for cursor in self.cursors:
                if cursor.number < batch.number:
                    cursor.dropped += batch.spans
                elif cursor.number == batch.number:
                    # What is in hand may still arrive: it is counted when that is known.
                    in_hand = cursor.in_flight.spans if cursor.in_flight else 0
                    cursor.dropped += batch.spans - cursor.taken - in_hand
            self._remove_oldest()

    def has(self, number: int) -> bool:
        """Is this batch still there?"""
        with self.changed:
            index = self._index(number)
            return index < len(self._batches) and self._batches[index].number == number

    def batch_for(self, number: int, wait_s: float) -> Batch | None:
        """The first batch from this number on; waits for one that long."""
        with self.changed:
            index = self._index(number)
            if index == len(self._batches) and not self._finished:
                self.changed.wait(wait_s)
                index = self._index(number)
            return self._batches[index] if index < len(self._batches) else None

    def take(self, cursor: Cursor, batch: Batch, item: Item) -> bool:
        """Give a cursor a request in hand; False if its batch was dropped meanwhile."""
        with self.changed:
            if not self.has(batch.number):
                return False
            cursor.in_flight = item
            return True

    def delete_passed(self) -> None:
        """Delete the batches that every endpoint is through with."""
        with self.changed:
            passed = min((cursor.number for cursor in self.cursors), default=0)
            while self._batches and self._batches[0].number < passed:
                self._remove_oldest()

    def _index(self, number: int) -> int:
        return bisect.bisect_left(self._batches, number, key=_number)

    def _remove_oldest(self) -> None:
        batch = self._batches.pop(0)
        self._size_bytes -= batch.size_bytes
        batch.path.unlink(missing_ok=True)


def _number(batch: Batch) -> int:
    return batch.number


def position_file(endpoint: str) -> str:
    """The name of an endpoint's file: the endpoint's own name can be longer than a file's may be."""
    return f"{hashlib.sha256(endpoint.encode()).hexdigest()[:16]}.position"
