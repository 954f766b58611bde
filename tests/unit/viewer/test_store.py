"""The store: what is in it is found, what comes again replaces, the oldest goes; a killed process loses nothing."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from k8s_tracing.errors import ViewerError
from k8s_tracing.otlp import records
from k8s_tracing.record import SpanRecord
from k8s_tracing.viewer import writing
from k8s_tracing.viewer.search import Query, Summary
from k8s_tracing.viewer.store import Limits, Store
from tests.unit.viewer.conftest import MS, START_NS, request, span, trace_id

UNFINISHED = {"k8s_tracing.unfinished": True}


def stored(store: Store, trace: int = 1) -> list[SpanRecord]:
    found = store.search.trace(trace_id(trace))
    return [] if found is None else sorted(records(found), key=lambda each: each.span_id)


def summary(store: Store, trace: int = 1) -> Summary:
    found = store.search.summary(trace_id(trace))
    assert found is not None
    return found


def found(store: Store, **query: object) -> list[int]:
    """The numbers of the traces that a query finds; the newest first, and those that start at once by their numbers."""
    newest = sorted(store.search.find(Query(**query)), key=lambda s: (-s.start_ns, s.trace_id))  # type: ignore[arg-type]
    return [each.trace_id[-1] for each in newest]


def test_a_trace_that_comes_in_parts_is_one(store: Store) -> None:
    spans = [span(1, number, at_ms=number) for number in range(1, 6)]
    assert store.add(request(*spans[:2])).accepted == 2
    assert store.add(request(spans[4], span(2, 9))).traces == (trace_id(1), trace_id(2))
    store.add(request(*spans[2:4]))
    assert stored(store) == spans
    assert stored(store, 2) == [span(2, 9)]
    assert stored(store, 3) == []


def test_what_a_list_says_of_a_trace(store: Store) -> None:
    store.add(request(span(1, 2, at_ms=5, parent=1, service="db", status="ERROR", last_ms=90)))
    store.add(request(span(1, 1, name="GET /", service="web"), span(1, 3, at_ms=1, parent=1)))
    has = summary(store)
    assert (has.start_ns, has.end_ns) == (START_NS, START_NS + 95 * MS)
    assert (has.spans, has.errors, has.unfinished) == (3, 1, 0)
    assert (has.root_service, has.root_operation) == ("web", "GET /")
    assert has.services == {"db": (1, 1), "web": (1, 0), "shop": (1, 0)}


def test_the_root_is_the_first_span_without_a_parent_or_else_the_first(store: Store) -> None:
    store.add(request(span(1, 2, at_ms=9, name="late", parent=1)))
    store.add(request(span(1, 3, at_ms=1, name="early", parent=1)))
    assert summary(store).root_operation == "early"
    store.add(request(span(1, 1, at_ms=20, name="root")))
    assert summary(store).root_operation == "root"


def test_the_same_span_again_changes_nothing(store: Store) -> None:
    store.add(request(span(1, 1), span(1, 2)))
    before = summary(store)
    added = store.add(request(span(1, 2), span(1, 1)))
    assert (added.accepted, added.traces, summary(store)) == (2, (), before)
    assert store.search.counters()["duplicates"] == 2
    assert stored(store) == [span(1, 1), span(1, 2)]


def test_a_span_that_was_unfinished_is_completed(store: Store) -> None:
    half = span(1, 2, name="half", attributes=UNFINISHED, last_ms=1, service="db")
    whole = span(1, 2, name="half", status="ERROR", last_ms=30, service="db")
    store.add(request(span(1, 1), half))
    assert summary(store).unfinished == 1
    store.add(request(whole, span(1, 3)))
    assert stored(store) == [span(1, 1), whole, span(1, 3)]
    has = summary(store)
    assert (has.spans, has.errors, has.unfinished) == (3, 1, 0)
    assert has.services == {"shop": (2, 0), "db": (1, 1)}
    assert found(store, service="db", min_duration_ns=20 * MS) == [1]
    assert found(store, service="db", max_duration_ns=2 * MS) == []
    assert found(store, tags={"k8s_tracing.unfinished": "true"}) == []


def test_an_unfinished_span_does_not_replace_the_whole_one(store: Store) -> None:
    store.add(request(span(1, 2)))
    store.add(request(span(1, 2, attributes=UNFINISHED, last_ms=1)))
    assert stored(store) == [span(1, 2)]


def test_within_one_request_the_whole_one_counts_as_well(store: Store) -> None:
    half, whole = span(1, 2, attributes=UNFINISHED, last_ms=1), span(1, 2)
    store.add(request(half, whole))
    store.add(request(span(2, 2), span(2, 2, attributes=UNFINISHED, last_ms=1)))
    assert (stored(store), stored(store, 2)) == ([whole], [span(2, 2)])
    assert summary(store).spans == 1


def test_searches(store: Store) -> None:
    store.add(request(span(1, 1, service="web", name="a"), span(1, 2, service="db", last_ms=50)))
    store.add(request(span(2, 1, at_ms=100, service="web", name="b", attributes={"n": 1.5})))
    store.add(request(span(3, 1, at_ms=50, service="web", name="a", status="ERROR")))
    ms = START_NS // MS
    for query, traces in (
        ({}, [2, 3, 1]),
        ({"limit": 2}, [2, 3]),
        ({"service": "web"}, [2, 3, 1]),
        ({"service": "web", "limit": 1}, [2]),
        ({"service": "nobody"}, []),
        ({"service": "web", "operation": "a"}, [3, 1]),
        ({"service": "db", "operation": "a"}, []),
        ({"operation": "b"}, [2]),
        ({"service": "db", "min_duration_ns": 50 * MS}, [1]),
        ({"service": "web", "min_duration_ns": 50 * MS}, []),
        ({"min_duration_ns": 50 * MS}, [1]),
        ({"service": "web", "max_duration_ns": 9 * MS}, []),
        ({"start_ns": (ms + 50) * MS}, [2, 3]),
        ({"service": "web", "end_ns": (ms + 50) * MS}, [3, 1]),
        ({"tags": {"n": "1.5"}}, [2]),
        ({"tags": {"n": "1.50"}}, []),
        ({"tags": {"error": "true"}}, [3]),
        ({"service": "web", "tags": {"error": "false"}}, [2, 1]),
        ({"tags": {"error": "false", "span.kind": "server"}}, [2, 1]),
        ({"service": "web", "tags": {"service.name": "web", "n": "1.5"}}, [2]),
        ({"service": "db", "tags": {"service.name": "web"}}, []),
        ({"service": "web", "operation": "a", "tags": {"n": "1.5"}}, []),
        ({"tags": {"n": "1.5"}, "end_ns": (ms + 99) * MS}, []),
        ({"tags": {'" OR "': "*"}}, []),
    ):
        assert found(store, **query) == traces, query


def test_services_and_operations(store: Store) -> None:
    store.add(request(span(1, 1, service="b"), span(1, 2, service="a", name="x", kind="CLIENT")))
    store.add(request(span(2, 1, service="b", kind="INTERNAL")))
    assert store.search.services() == ["a", "b"]
    assert store.search.operations("b") == [("op", "internal"), ("op", "server")]
    assert store.search.operations("a") == [("x", "client")]
    assert store.search.operations("c") == []


def test_dependencies_are_of_traces_that_lie_within_the_time(store: Store) -> None:
    def send(trace: int, at_ms: int) -> None:
        store.add(
            request(
                span(trace, 1, at_ms=at_ms, service="web"),
                span(trace, 2, at_ms=at_ms, service="db", parent=1),
                span(trace, 3, at_ms=at_ms, service="db", parent=1),
                span(trace, 4, at_ms=at_ms, service="db", parent=99),
            )
        )

    send(1, 0)
    send(2, 1000)
    assert store.search.dependencies(0, START_NS + 500 * MS) == {("web", "db"): 2}
    store.add(request(span(2, 5, at_ms=1000, parent=2, service="disk")))
    everything = store.search.dependencies(0, 2**62)
    assert everything == {("web", "db"): 4, ("db", "disk"): 1}


def test_the_oldest_traces_go_when_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "SEGMENT_SPANS", 500)
    limits = Limits(size_bytes=1_000_000)
    with Store(tmp_path / "s", limits) as store:
        for trace in range(1, 200):
            spans = [
                span(trace, n, service=f"s{trace}", attributes={"t": os.urandom(50).hex()})
                for n in range(1, 41)
            ]
            store.add(request(*spans))
            assert store._used_bytes() <= limits.size_bytes
        assert stored(store, 1) == []
        assert stored(store, 199) == spans
        counters = store.search.counters()
        assert counters["traces"] + counters["evicted traces"] == 199
        assert counters["spans"] + counters["evicted spans"] == 199 * 40
        assert counters["traces"] > 20
        assert len(store.search.services()) == counters["traces"]
        assert found(store, tags={"t": str(spans[0].attributes["t"])}) == [199]
        segments = store._db.execute("SELECT count(*) FROM segment").fetchone()[0]
        assert segments <= counters["spans"] / 500 + 2
    assert (tmp_path / "s").stat().st_size < 2 * limits.size_bytes


def test_a_trace_longer_than_the_store_goes_as_well(tmp_path: Path) -> None:
    with Store(tmp_path / "s", Limits(size_bytes=200_000)) as store:
        for number in range(1, 200):
            store.add(request(span(1, number, attributes={"t": os.urandom(2000).hex()})))
        assert store._used_bytes() <= 200_000
        assert store.search.counters()["evicted traces"] > 0


def test_old_traces_go(tmp_path: Path) -> None:
    now = [1000.0]
    with Store(tmp_path / "s", Limits(age_s=100), clock=lambda: now[0]) as store:
        store.add(request(span(1, 1)))
        now[0] += 90
        store.add(request(span(2, 1)))
        assert found(store) == [1, 2]
        now[0] += 60  # also when the last look at the age was long enough ago
        store.add(request(span(3, 1)))
        assert found(store) == [2, 3]
        now[0] += 1000
        store.add(request(span(4, 1)))
        assert found(store) == [4]


def test_a_trace_has_room_for_so_many_spans(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MAX_SPANS_OF_A_TRACE", 3)
    store.add(request(span(1, 1), span(1, 2)))
    added = store.add(request(span(1, 2), span(1, 3), span(1, 4), span(2, 1)))
    assert added.accepted == 3
    assert added.refused == {"spans of one trace": 1}
    assert [int(each.span_id) for each in stored(store)] == [1, 2, 3]
    assert store.search.counters()["refused: spans of one trace"] == 1


def test_it_is_still_there_the_next_time(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        store.add(request(span(1, 1)))
    with Store(tmp_path / "s") as store:
        store.add(request(span(1, 2)))
        assert stored(store) == [span(1, 1), span(1, 2)]


def test_a_killed_process_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    program = """
        import sys
        from pathlib import Path
        from k8s_tracing.viewer.store import Store
        from tests.unit.viewer.conftest import request, span
        store = Store(Path(sys.argv[1]))
        for trace in range(1, 100_000):
            store.add(request(*(span(trace, n) for n in range(1, 6))))
            print(trace, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "s")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 50:
                process.send_signal(signal.SIGKILL)
                break
        acknowledged = int((["50", *process.stdout.read().split()])[-1])
    with Store(tmp_path / "s") as store:
        assert store.search.counters()["traces"] >= acknowledged
        for trace in range(1, acknowledged + 1):
            assert len(stored(store, trace)) == 5


def test_a_reader_does_not_keep_a_writer_waiting(store: Store) -> None:
    store.add(request(span(1, 1)))
    with store.search._snapshot() as db:
        assert db.execute("SELECT count(*) FROM trace").fetchone() == (1,)
        writer = threading.Thread(target=store.add, args=(request(span(2, 1)),))
        writer.start()
        writer.join(20)
        assert not writer.is_alive()
        assert db.execute("SELECT count(*) FROM trace").fetchone() == (1,)
    assert found(store) == [1, 2]


def test_readers_and_writers_at_the_same_time(store: Store) -> None:
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                for each in store.search.find(Query(service="shop", limit=5)):
                    spans = store.search.trace(each.trace_id)
                    assert spans is not None
                    assert len(list(records(spans))) == 5
        except BaseException as error:
            failures.append(error)

    def write(first: int) -> None:
        try:
            for trace in range(first, first + 60):
                store.add(request(*(span(trace, n) for n in range(1, 6))))
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(n,)) for n in (1, 101)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert failures == []
    assert store.search.counters()["spans"] == 600


def test_a_full_disk_loses_only_what_was_refused(store: Store) -> None:
    store.add(request(span(1, 1)))
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    big = [span(2, n, attributes={"t": os.urandom(2000).hex()}) for n in range(1, 50)]
    for _ in range(3):
        with pytest.raises(ViewerError, match="cannot be written: database or disk is full"):
            store.add(request(*big))
    assert found(store) == [1]
    store._db.execute("PRAGMA max_page_count = 1000000")
    assert store.add(request(*big)).accepted == 49
    assert len(stored(store, 2)) == 49


def test_a_store_in_use_says_so(tmp_path: Path) -> None:
    with Store(tmp_path / "s"), pytest.raises(ViewerError, match="in use by another viewer"):
        Store(tmp_path / "s")


def test_a_store_of_another_version_says_so(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "s") as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(ViewerError, match="has version 99"):
        Store(tmp_path / "s")


def test_what_is_no_store_says_so(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"no database at all" * 100)
    with pytest.raises(ViewerError, match="not a database"):
        Store(tmp_path / "s")
    with pytest.raises(ViewerError, match="No such file"):
        Store(tmp_path / "missing" / "s")


def test_a_temporary_store_goes_and_so_does_one_that_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / f"k8s-tracing-viewer-{os.getuid()}-left"
    left.mkdir()
    (left / "traces.sqlite").touch()
    with Store() as first, Store() as second:
        assert not left.exists()
        first.add(request(span(1, 1)))
        second.add(request(span(2, 1)))
        assert (found(first), found(second)) == ([1], [2])
    assert list(tmp_path.iterdir()) == []
