"""The spool: what counts as a chunk, in which order, and what happens to it."""

from pathlib import Path

import pytest

from k8s_tracing.agent.spool import Spool
from k8s_tracing.errors import AgentError
from tests.unit.agent.test_leftovers import packet

BEGIN = "20260101T000000+0000-20260101T000001+0000"


def archive(session: Path, number: int, content: str = "x") -> Path:
    chunk = session / "archives" / f"{BEGIN}-{number}"
    trace = chunk / "ust/uid/0/64-bit"
    trace.mkdir(parents=True)
    (trace / "metadata").write_text(content)
    return chunk


def test_chunks_come_in_the_order_in_which_they_were_recorded(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool") as spool:
        first, second = spool.new_session(), spool.new_session()
        later = archive(second, 0)
        chunks = [archive(first, number) for number in (10, 9, 2)]
        assert [chunk.path for chunk in spool.chunks()] == [*reversed(chunks), later]


def test_the_order_is_that_of_the_recording_when_the_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Spool(tmp_path / "spool") as spool:
        first = spool.new_session()
        chunks = [archive(first, 9), archive(first, 10)]
        # LTTng's names, as its clock said: the later chunk is an hour older.
        back = chunks[1].with_name("20251231T230000+0000-20251231T230001+0000-10")
        chunks[1] = chunks[1].rename(back)
        monkeypatch.setattr("time.time_ns", lambda: 10**18)
        chunks.append(archive(spool.new_session(), 0))
        chunks.append(archive(spool.new_session(), 0))
        assert [chunk.path for chunk in spool.chunks()] == chunks


def test_what_is_being_written_is_no_chunk(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        session = spool.new_session()
        (session / f"{BEGIN}-0/ust").mkdir(parents=True)
        (session / "ust").mkdir()
        assert spool.recover(session) == 0
        assert spool.chunks() == []


def test_what_killed_daemons_left_becomes_chunks(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        old, live = spool.new_session(), spool.new_session()
        archived = archive(old, 3)
        for left in (old / ".tmp_old_chunk/ust", old / "20260101T000002+0000-5/ust"):
            left.mkdir(parents=True)
            (left / "metadata").write_text("x")
            (left / "spans_0").write_bytes(packet(1))
        assert spool.recover(live) == 3
        chunks = spool.chunks()
        assert chunks[0].path == archived
        assert [chunk.path.name for chunk in chunks[1:]] == ["unfinished-4", "unfinished-5"]
        assert spool.recover(live) == 3


def test_a_session_that_was_never_rotated_is_one_chunk(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        trace = spool.new_session() / "ust/uid"
        trace.mkdir(parents=True)
        (trace / "metadata").write_text("x")
        (trace / "spans_0").write_bytes(packet(1))
        assert spool.recover(live=None) == 1
        (chunk,) = spool.chunks()
        assert not chunk.is_empty


def test_a_chunk_without_files_is_empty(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        session = spool.new_session()
        (session / "archives" / f"{BEGIN}-0").mkdir(parents=True)
        archive(session, 1)
        assert [chunk.is_empty for chunk in spool.chunks()] == [True, False]


def test_the_backlog_counts_chunks_and_bytes(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        session = spool.new_session()
        archive(session, 0, "12345")
        archive(session, 1, "678")
        backlog = spool.backlog()
        assert (backlog.chunks, backlog.size_bytes) == (2, 8)
        spool.delete(spool.chunks()[0])
        backlog = spool.backlog()
        assert (backlog.chunks, backlog.size_bytes) == (1, 3)


def test_a_bad_chunk_is_kept_elsewhere(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        archive(spool.new_session(), 0)
        place = spool.set_aside(spool.chunks()[0])
        assert spool.chunks() == []
        assert (place / "ust/uid/0/64-bit/metadata").exists()


def test_a_deletion_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    half = tmp_path / ".deleted-20260101T000000.000000000Z-chunk/ust"
    half.mkdir(parents=True)
    with Spool(tmp_path) as spool:
        assert spool.chunks() == []
    assert list(tmp_path.iterdir()) == []


def test_one_agent_at_a_time(tmp_path: Path) -> None:
    with Spool(tmp_path), pytest.raises(AgentError, match="another agent"), Spool(tmp_path):
        pass
    with Spool(tmp_path):
        pass


def test_nothing_is_left_of_an_empty_spool(tmp_path: Path) -> None:
    with Spool(tmp_path / "new") as spool:
        archive(spool.new_session(), 0)
        spool.delete(spool.chunks()[0])
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_holds_chunks_stays(tmp_path: Path) -> None:
    with Spool(tmp_path / "new") as spool:
        chunk = archive(spool.new_session(), 0)
    assert chunk.exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AgentError, match="--spool"), Spool(tmp_path / "file/spool"):
        pass
