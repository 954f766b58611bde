# SPDX-License-Identifier: Apache-2.0
"""The store's writing side: a request is one transaction, and the oldest traces go when it is full."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from k8s_tracing.closing import Closing
from k8s_tracing.errors import ViewerError
from k8s_tracing.viewer import schema
from k8s_tracing.viewer.ingest import ingest
from k8s_tracing.viewer.schema import SPAN_BITS
from k8s_tracing.viewer.search import Search
from k8s_tracing.viewer.writing import Writing

#: What is evicted at once, so that it is done seldom: a share of the bytes.
_EVICT_SHARE = 0.05
_AGE_CHECK_S = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Past them the traces that came first go.

    Attributes:
        size_bytes: Of the file, about.
        age_s: Since a trace's first span came; 0: without limit.
    """

    size_bytes: int = 1 << 30
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a request's spans.

    Attributes:
        accepted: Spans that are in the store now, also those that were in it before.
        refused: Spans that are not, by the reason.
        traces: The ids of the traces that grew, 16 bytes each.
    """

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    traces: tuple[bytes, ...] = ()


class Store(Closing):
    """Traces in one SQLite file. Any thread may call anything; writers wait for each other, readers for nobody.

    Args:
        path: The file, which is made if there is none; None: a temporary one that goes with the store.
        limits: What makes the oldest traces go.
        clock: Returns the time in seconds.

    Raises:
        ViewerError: The file is not a store of this version, is in use, or cannot be written.
    """

    def __init__(
        self,
        path: Path | None = None,
        limits: Limits | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._limits = limits or Limits()
        self._clock = clock
        self._exit = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._next_age_check = 0.0
        try:
            self.path = path or self._exit.enter_context(_temporary_folder()) / "traces.sqlite"
            self._exit.enter_context(_locked(self.path))
            self._db = schema.connect(self.path, durable=path is not None, writes=True)
            self._exit.callback(self._db.close)
            self._open()
            self.search = Search(self.path)
            self._exit.callback(self.search.close)
        except (OSError, sqlite3.Error) as error:
            self._exit.close()
            raise ViewerError(f"the store {path or 'in a temporary file'}: {error}") from error
        except BaseException:
            self._exit.close()
            raise

    def add(self, request: ExportTraceServiceRequest) -> Added:
        """Keep the spans of a request, which may be changed by it. They are on their way to the disk on return.

        Raises:
            ViewerError: They cannot be written: the disk is full, for instance.
        """
        ingested = ingest(request)
        with self._lock:
            try:
                with self._transaction():
                    writing = Writing(self._db, int(self._clock()))
                    grown = [part.trace_id for part in ingested.parts if writing.write(part)]
                    writing.finish()
                    if writing.overflowed:
                        ingested.refused["spans of one trace"] += writing.overflowed
                    counts = {f"refused: {k}": n for k, n in ingested.refused.items()}
                    counts |= {f"cut: {k}": n for k, n in ingested.cut.items()}
                    self._count({**counts, "duplicates": writing.duplicates})
                if grown:
                    self._evict()
            except sqlite3.Error as error:
                raise ViewerError(f"the store {self.path} cannot be written: {error}") from error
        sent = sum(len(part.rows) for part in ingested.parts)
        return Added(sent - writing.overflowed, ingested.refused, tuple(grown))

    def close(self) -> None:
        """Close the file; a temporary one is removed."""
        with self._lock:
            self._exit.close()

    def _open(self) -> None:
        found = schema.version(self._db)
        if not found:
            schema.create(self._db)
        elif found != schema.VERSION:
            raise ViewerError(
                f"{self.path} has version {found} of the store, this viewer writes version "
                f"{schema.VERSION}: name another file, or remove this one"
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # on a full disk SQLite may have ended it
                self._db.execute("ROLLBACK")
            raise

    def _count(self, counts: dict[str, int]) -> None:
        self._db.executemany(
            "INSERT INTO counter VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
            [(name, number) for name, number in counts.items() if number],
        )

    def _evict(self) -> None:
        """Let the oldest traces go until the limits are kept."""
        if self._limits.age_s and self._clock() >= self._next_age_check:
            self._next_age_check = self._clock() + _AGE_CHECK_S
            oldest = int(self._clock() - self._limits.age_s)
            (last,) = self._db.execute(
                "SELECT max(id) FROM trace WHERE id < (SELECT coalesce((SELECT id FROM trace WHERE "
                "received_s >= ? ORDER BY id LIMIT 1), 1 << 62))",
                (oldest,),
            ).fetchone()
            if last is not None:
                self._evict_up_to(last)
        while self._used_bytes() > self._limits.size_bytes:
            (count,) = self._db.execute("SELECT count(*) FROM trace").fetchone()
            if not count:
                return
            up_to = self._db.execute(
                "SELECT max(id) FROM (SELECT id FROM trace ORDER BY id LIMIT ?)",
                (max(1, int(count * _EVICT_SHARE)),),
            ).fetchone()[0]
            self._evict_up_to(up_to)

    def _used_bytes(self) -> int:
        pragmas = ("page_count", "freelist_count", "page_size")
        pages, free, size = (
            int(self._db.execute(f"PRAGMA {name}").fetchone()[0]) for name in pragmas
        )
        return (pages - free) * size

    def _evict_up_to(self, last: int) -> None:
        with self._transaction():
            traces, spans = self._db.execute(
                "SELECT count(*), coalesce(sum(spans), 0) FROM trace WHERE id <= ?", (last,)
            ).fetchone()
            self._db.execute("DELETE FROM chunk WHERE trace <= ?", (last,))
            self._db.execute("DELETE FROM span WHERE id < ?", ((last + 1) << SPAN_BITS,))
            self._db.execute("DELETE FROM trace WHERE id <= ?", (last,))
            self._db.execute("DELETE FROM operation WHERE last_trace <= ?", (last,))
            self._db.execute("DELETE FROM service WHERE last_trace <= ?", (last,))
            segments = self._db.execute(
                "SELECT id FROM segment s WHERE NOT EXISTS (SELECT 1 FROM trace) OR EXISTS "
                "(SELECT 1 FROM segment n WHERE n.id > s.id AND n.first_trace <= ?)",
                (last + 1,),
            ).fetchall()
            for (number,) in segments:
                schema.drop_segment(self._db, number)
            self._count({"evicted traces": traces, "evicted spans": spans})


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder that goes with this process. Those of viewers that were killed go with the next one."""
    prefix = f"k8s-tracing-viewer-{os.getuid()}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError, ViewerError), _locked(left / "traces.sqlite", make=False):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextlib.contextmanager
def _locked(path: Path, *, make: bool = True) -> Iterator[None]:
    """Keep other viewers from this file. SQLite's own locks are of another kind, which this does not touch."""
    descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if make else 0), 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ViewerError(
                f"the store {path} is in use by another viewer: end that one, or name another file"
            ) from None
        yield
    finally:
        os.close(descriptor)
