# SPDX-License-Identifier: Apache-2.0
"""The tables of the store, and connections to its file.

A span's OTLP bytes lie compressed with those of the same trace that came in the same request (`chunk`): that is a fifth
of what single spans take. What searches need lies beside it, a row a span (`span`), whose id is its trace's id and a
number within the trace, so that a trace's spans are neighbours. Tags are an inverted index (FTS5 without contents) of
hashes of key and value, in segments of successive traces: SQLite before 3.43 cannot delete from such an index what it
is not told again, but it can drop a segment whose traces are gone.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

#: Raised when the tables change; a store of another version is not opened.
VERSION = 1
#: Bits of a span's id that number it within its trace.
SPAN_BITS = 24

#: Of `span.flags`.
ERROR, UNFINISHED = 1, 2

_TABLES = """
CREATE TABLE service (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, last_trace INTEGER NOT NULL);
CREATE TABLE operation (
  id INTEGER PRIMARY KEY, service INTEGER NOT NULL, name TEXT NOT NULL, kind INTEGER NOT NULL,
  last_trace INTEGER NOT NULL, UNIQUE (service, name, kind)
);
-- AUTOINCREMENT: the id of a trace that went is not used again, it is in the index of tags.
-- services: JSON of [service, spans, errors]; root_rank orders candidates for the root, smallest first.
CREATE TABLE trace (
  id INTEGER PRIMARY KEY AUTOINCREMENT, trace_id BLOB NOT NULL UNIQUE, received_s INTEGER NOT NULL,
  start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, spans INTEGER NOT NULL, errors INTEGER NOT NULL,
  unfinished INTEGER NOT NULL, next_span INTEGER NOT NULL, root INTEGER NOT NULL, root_rank INTEGER NOT NULL,
  services TEXT NOT NULL
);
CREATE INDEX trace_start ON trace (start_ns);
CREATE TABLE chunk (id INTEGER PRIMARY KEY, trace INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX chunk_trace ON chunk (trace);
CREATE TABLE span (
  id INTEGER PRIMARY KEY, span_id INTEGER NOT NULL, parent INTEGER, service INTEGER NOT NULL,
  operation INTEGER NOT NULL, start_ns INTEGER NOT NULL, duration_ns INTEGER NOT NULL, flags INTEGER NOT NULL
);
CREATE INDEX span_search ON span (service, start_ns, operation, duration_ns);
CREATE TABLE segment (id INTEGER PRIMARY KEY, first_trace INTEGER NOT NULL, spans INTEGER NOT NULL);
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


def connect(path: Path, *, durable: bool, writes: bool) -> sqlite3.Connection:
    """Open a connection that any one thread at a time may use.

    Args:
        path: The store's file.
        durable: Must it survive the machine's death as well as the process's?
        writes: May it change the store?
    """
    connection = sqlite3.connect(
        path, timeout=30, isolation_level=None, check_same_thread=False, cached_statements=512
    )
    connection.execute("PRAGMA journal_mode = WAL")
    # A checkpoint goes to the disk, a commit does not: a killed process loses nothing, a machine its last seconds.
    connection.execute(f"PRAGMA synchronous = {'NORMAL' if durable else 'OFF'}")
    connection.execute("PRAGMA mmap_size = 1073741824")
    if writes:
        connection.execute("PRAGMA cache_size = -65536")  # KiB
        connection.execute(
            "PRAGMA journal_size_limit = 67108864"
        )  # of the file, once it was checkpointed
    else:  # each thread has one, and they read what is mapped
        connection.execute("PRAGMA cache_size = -4096")
        connection.execute("PRAGMA query_only = ON")
    return connection


def version(connection: sqlite3.Connection) -> int:
    """Return the version of its tables, 0 of an empty file."""
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return found


def create(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty file."""
    connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")


def create_segment(connection: sqlite3.Connection, number: int, first_trace: int) -> None:
    """Make an index of tags for the traces from that one on."""
    connection.execute("INSERT INTO segment VALUES (?, ?, 0)", (number, first_trace))
    connection.execute(
        f"CREATE VIRTUAL TABLE tags_{number} USING fts5("
        "tags, content='', detail=none, columnsize=0, tokenize='ascii')"
    )


def drop_segment(connection: sqlite3.Connection, number: int) -> None:
    """Remove an index of tags."""
    connection.execute(f"DROP TABLE tags_{number}")
    connection.execute("DELETE FROM segment WHERE id = ?", (number,))
