"""The names of LTTng's folders: what order chunks are in, and how long they were recorded."""

from pathlib import Path

import pytest

from k8s_tracing.agent.chunks import chunk_duration_ns, chunk_folders, chunk_number


def traces(top: Path, *names: str) -> list[Path]:
    """Make trace folders of two users in each."""
    folders = [top / name for name in names]
    for folder in folders:
        for user in "0", "7":
            trace = folder / "ust" / "uid" / user / "64-bit"
            trace.mkdir(parents=True)
            (trace / "metadata").touch()
    return folders


def test_chunks_are_in_the_order_of_their_numbers_whatever_the_clock_said(tmp_path: Path) -> None:
    expected = traces(
        tmp_path,
        "20261122T090000.5Z/archives/20261122T090000+0000-20261122T090001+0000-8",
        "20261122T090000.5Z/archives/20261122T090001+0000-20261122T080000+0000-9",
        "20261122T090000.5Z/archives/20261122T080000+0000-20261122T080001+0000-10",
        "20261122T090000.5Z/archives/unfinished-11",
        "20261122T090000.5Z/.tmp_old_chunk",
        "20261122T090000.5Z/20261122T080002+0000-12",
        "20261122T090007.5Z/archives/20261122T070000+0000-20261122T070001+0000-0",
    )
    assert chunk_folders(tmp_path) == expected


def test_sessions_that_were_never_rotated_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    expected = traces(tmp_path, "auto-20261122-230000", "auto-20261123-010000")
    assert chunk_folders(tmp_path) == expected


def test_a_trace_alone_is_a_chunk(tmp_path: Path) -> None:
    (folder,) = traces(tmp_path, "20261122T080000+0000-20261122T080001+0000-0")
    inside = folder / "ust" / "uid" / "0" / "64-bit"
    assert chunk_folders(inside) == [inside]
    assert chunk_folders(folder) == [folder]
    assert chunk_folders(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("20261122T100000+0000-20261122T100001+0000-0", 0),
        ("20261122T100000+0000-17", 17),
        ("unfinished-3", 3),
        ("unfinished-\u0663", None),
        (".buffers", None),
        ("", None),
    ],
)
def test_the_number_of_a_chunk(name: str, number: int | None) -> None:
    assert chunk_number(name) == number


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("20261122T100000+0000-20261122T100001+0000-0", 1),
        ("20261122T235959+0100-20261123T000002+0100-17", 3),
        ("20261025T025959+0200-20261025T020000+0100-3", 1),
        ("20261122T100001+0000-20261122T100000+0000-5", -1),
        ("20261322T100001+0000-20261322T100000+0000-5", 0),
        ("uid-unfinished", 0),
        ("", 0),
    ],
)
def test_how_long_a_chunk_is_says_its_name(name: str, seconds: int) -> None:
    assert chunk_duration_ns(Path("/spool/x/archives") / name) == seconds * 10**9
