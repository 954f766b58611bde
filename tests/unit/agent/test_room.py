"""What goes when the spool takes more than it may."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8s_tracing.agent.outbox import Outbox
from k8s_tracing.agent.room import Limits, Room, limits_for
from k8s_tracing.agent.spool import Spool


class Disk:
    """A spool with one endpoint that takes nothing."""

    def __init__(self, root: Path) -> None:
        self.spool = Spool(root)
        self.outbox = Outbox(root, ["a"])
        self.free_bytes = 10**9

    def room(self, **limits: float) -> Room:
        return Room(
            self.spool,
            self.outbox,
            Limits(**{"max_bytes": 10**9, **limits}),  # type: ignore[arg-type]
            free_bytes=lambda: self.free_bytes,
        )

    def batch(self, size_bytes: int, age_s: float = 0.0) -> Path:
        writer = self.outbox.begin()
        writer.add(b"x" * (size_bytes - 12), 10)
        batch = writer.complete()
        assert batch is not None
        self.outbox.publish(batch)
        os.utime(batch.path, (time.time() - age_s,) * 2)
        return batch.path

    def chunk(self, number: int, size_bytes: int, age_s: float = 0.0) -> Path:
        sessions = sorted(self.spool.root.glob("2*Z")) or [self.spool.new_session()]
        folder = sessions[0] / "archives" / f"x-{number}"
        folder.mkdir(parents=True)
        (folder / "metadata").write_bytes(b"x" * size_bytes)
        os.utime(folder, (time.time() - age_s,) * 2)
        return folder

    def left(self) -> list[int]:
        chunks = [chunk.size_bytes for chunk in self.spool.chunks()]
        return [path.stat().st_size for path in sorted(self.outbox.folder.glob("*-*"))] + chunks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    with disk.spool:
        disk.outbox.open(None)
        yield disk
        disk.outbox.close()


def test_within_its_limits_everything_stays(disk: Disk) -> None:
    for size in (100, 101):
        disk.batch(size)
        disk.chunk(size, size)
    room = disk.room(max_bytes=402)
    room.make()
    assert disk.left() == [100, 101, 100, 101]
    assert room.dropped.size_bytes == 0


def test_the_oldest_goes_first_and_batches_before_chunks(disk: Disk) -> None:
    for size in (100, 101, 102):
        disk.batch(size)
    for number in range(4):
        disk.chunk(number, 200 + number)
    room = disk.room(max_bytes=908)
    room.make()
    assert disk.left() == [102, 200, 201, 202, 203]
    assert (room.dropped.batches, room.dropped.chunks, room.dropped.size_bytes) == (2, 0, 201)
    assert disk.outbox.cursors[0].dropped == 20
    room = disk.room(max_bytes=510)
    room.make()
    # Of the chunks the first may be in hand, and the last is the newest.
    assert disk.left() == [102, 200, 203]
    assert (room.dropped.batches, room.dropped.chunks, room.dropped.size_bytes) == (0, 2, 403)


def test_the_newest_stays_whatever_the_limit(disk: Disk) -> None:
    for size in (100, 101):
        disk.batch(size)
        disk.chunk(size, size)
    disk.room(max_bytes=1).make()
    assert disk.left() == [101, 100, 101]


def test_it_gives_way_to_others_on_the_disk(disk: Disk) -> None:
    for size in (100, 101, 102):
        disk.batch(size)
    room = disk.room(reserve_bytes=1000)
    disk.free_bytes = 1000
    room.make()
    assert len(disk.left()) == 3
    disk.free_bytes = 999
    room.make()
    assert disk.left() == [101, 102]


def test_what_is_too_old_goes(disk: Disk) -> None:
    disk.batch(100, age_s=3700)
    disk.batch(101, age_s=3500)
    disk.batch(102)
    disk.outbox.close()
    disk.outbox = Outbox(disk.spool.root, ["a"])
    disk.outbox.open(None)  # an age is that of the file
    disk.chunk(0, 10, age_s=3700)
    disk.chunk(1, 11, age_s=3700)
    disk.chunk(2, 12, age_s=3700)
    room = disk.room(max_age_s=3600)
    room.make()
    assert disk.left() == [101, 102, 10, 12]


def test_it_is_said_once_an_episode(
    disk: Disk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = disk.room(max_bytes=150)
    for _ in range(5):
        disk.batch(100)
        room.make()
    assert caplog.text.count("is full") == 1
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61.0)
    room.make()
    assert "4 batches and 0 chunks (0.0 MB) were dropped" in caplog.text
    for _ in range(2):
        disk.batch(100)
        room.make()
    assert caplog.text.count("is full") == 2


def test_the_default_is_a_share_of_the_disk(tmp_path: Path) -> None:
    info = os.statvfs(tmp_path)
    limits = limits_for(tmp_path)
    assert limits.max_bytes <= info.f_frsize * info.f_blocks // 10
    assert 0 < limits.max_bytes <= 10 * 2**30
    assert 0 < limits.reserve_bytes <= 2**30
    assert limits.max_age_s == 24 * 3600
    assert limits_for(tmp_path, 7, 8.0).max_bytes == 7
    assert limits_for(tmp_path, 7, 8.0).max_age_s == 8.0
