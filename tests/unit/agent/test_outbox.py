"""Batches on disk, and how far each endpoint is."""

import os
from pathlib import Path

import pytest

from k8s_tracing.agent.batch import Batch
from k8s_tracing.agent.outbox import Cursor, Outbox


def outbox_in(folder: Path, *names: str, next_number: int | None = None) -> Outbox:
    outbox = Outbox(folder, names or ("a",))
    outbox.open(next_number)
    return outbox


def put(outbox: Outbox, *bodies: str) -> Batch:
    writer = outbox.begin()
    for body in bodies:
        writer.add(body.encode(), 10)
    batch = writer.complete()
    assert batch is not None
    outbox.publish(batch)
    return batch


def take(cursor: Cursor, count: int = 100) -> list[str]:
    bodies = []
    while len(bodies) < count and (item := cursor.next(0.0)) is not None:
        bodies.append(item.body.decode())
        cursor.done()
    return bodies


def test_requests_come_out_in_their_order(tmp_path: Path) -> None:
    outbox = outbox_in(tmp_path)
    put(outbox, "1", "2")
    put(outbox, "3")
    assert take(outbox.cursors[0]) == ["1", "2", "3"]
    assert outbox.count == 0
    outbox.close()
    assert list(tmp_path.iterdir()) == []


def test_a_batch_stays_until_everybody_has_it(tmp_path: Path) -> None:
    outbox = outbox_in(tmp_path, "a", "b")
    batch = put(outbox, "1", "2")
    assert take(outbox.cursors[0]) == ["1", "2"]
    assert batch.path.exists()
    behind = [outbox.behind(cursor) for cursor in outbox.cursors]
    assert [(each.spans, each.size_bytes) for each in behind] == [(0, 0), (20, batch.size_bytes)]
    assert take(outbox.cursors[1], 1) == ["1"]
    assert outbox.behind(outbox.cursors[1]).spans == 10
    assert take(outbox.cursors[1]) == ["2"]
    assert not batch.path.exists()
    outbox.close()


def test_where_an_endpoint_was_is_known_after_a_kill(tmp_path: Path) -> None:
    killed = outbox_in(tmp_path, "a", "b")
    put(killed, "1", "2", "3")
    assert take(killed.cursors[0], 2) == ["1", "2"]
    assert killed.cursors[0].next(0.0) is not None  # in flight
    again = outbox_in(tmp_path, "b", "a", next_number=1)
    assert take(again.cursors[0]) == ["1", "2", "3"]
    assert take(again.cursors[1]) == ["3"]
    killed.close()
    again.close()


def test_an_endpoint_that_is_not_named_any_more_holds_nothing_up(tmp_path: Path) -> None:
    before = outbox_in(tmp_path, "a", "b")
    put(before, "1")
    assert take(before.cursors[0]) == ["1"]
    before.close()
    after = outbox_in(tmp_path, "a")
    assert after.count == 0
    after.close()
    assert list(tmp_path.iterdir()) == []


def test_a_new_endpoint_gets_what_is_there(tmp_path: Path) -> None:
    before = outbox_in(tmp_path, "a")
    put(before, "1")
    before.close()
    after = outbox_in(tmp_path, "b")
    assert take(after.cursors[0]) == ["1"]
    after.close()


def test_numbers_begin_anew_where_the_outbox_is_new(tmp_path: Path) -> None:
    before = outbox_in(tmp_path)
    for _ in range(3):
        put(before, "1")
    assert take(before.cursors[0]) == ["1"] * 3
    after = outbox_in(tmp_path)
    put(after, "new")
    assert take(after.cursors[0]) == ["new"]
    before.close()
    after.close()


def test_what_was_not_published_is_removed(tmp_path: Path) -> None:
    outbox = outbox_in(tmp_path)
    put(outbox, "1")
    writer = outbox.begin()
    writer.add(b"complete", 1)
    assert writer.complete() is not None
    (outbox.folder / "000000000001.new").write_bytes(b"half")
    outbox.close()
    again = outbox_in(tmp_path, next_number=1)
    assert take(again.cursors[0]) == ["1"]
    assert again.next_number == 1
    again.close()
    assert list(tmp_path.iterdir()) == []


def test_a_request_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = outbox_in(tmp_path)
    writer = outbox.begin()
    writer.add(b"1", 10)
    # The second write of this request fails, as on a disk that fills up in the middle.
    file = writer._file
    assert file is not None

    class Filling:
        def __getattr__(self, name: str) -> object:
            return getattr(file, name)

        def write(self, data: bytes) -> int:
            if len(data) < 5:
                raise OSError(28, "No space left on device")
            return file.write(data[:-4])

    monkeypatch.setattr(writer, "_file", Filling())
    with pytest.raises(OSError, match="No space"):
        writer.add(b"second", 10)
    monkeypatch.setattr(writer, "_file", file)
    writer.add(b"second", 10)
    batch = writer.complete()
    assert batch is not None
    outbox.publish(batch)
    assert batch.spans == 20
    assert take(outbox.cursors[0]) == ["1", "second"]
    outbox.close()


@pytest.mark.parametrize("damage", ["short", "flipped", "missing", "huge"])
def test_what_a_loss_of_power_left_is_counted(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = outbox_in(tmp_path)
    batch = put(outbox, "good", "second")
    put(outbox, "next")
    content = bytearray(batch.path.read_bytes())
    if damage == "short":
        batch.path.write_bytes(content[:-3])
    elif damage == "missing":
        batch.path.unlink()
    else:
        place = -1 if damage == "flipped" else len(content) - len(b"second") - 9
        content[place] ^= 0x7F
        batch.path.write_bytes(content)
    got = take(outbox.cursors[0])
    expected = ["next"] if damage == "missing" else ["good", "next"]
    assert got == expected
    assert outbox.cursors[0].damaged == 30 - 10 * len(expected)
    assert caplog.text.count("are lost for a") == 1
    outbox.close()


def test_what_is_dropped_is_counted_for_each_endpoint(tmp_path: Path) -> None:
    outbox = outbox_in(tmp_path, "a", "b", "c")
    first = put(outbox, "1", "2", "3")
    put(outbox, "4")
    a, b, c = outbox.cursors
    assert take(a) == ["1", "2", "3", "4"]
    assert take(b, 1) == ["1"]
    assert outbox.oldest() is first
    outbox.drop(first)
    assert [cursor.dropped for cursor in (a, b, c)] == [0, 20, 30]
    assert not first.path.exists()
    assert outbox.oldest() is None  # the newest stays
    assert take(b) == take(c) == ["4"]
    outbox.close()


@pytest.mark.parametrize("arrives", [True, False])
def test_what_is_in_flight_when_it_is_dropped(tmp_path: Path, arrives: bool) -> None:
    outbox = outbox_in(tmp_path)
    (cursor,) = outbox.cursors
    first = put(outbox, "1", "2", "3")
    put(outbox, "4")
    assert take(cursor, 1) == ["1"]
    assert cursor.next(0.0) is not None
    assert cursor.wanted
    outbox.drop(first)
    assert not cursor.wanted
    if arrives:
        cursor.done()
    else:
        cursor.abandon()
    assert cursor.dropped == (10 if arrives else 20)
    assert take(cursor) == ["4"]
    outbox.close()


def test_a_position_is_written_down_on_a_full_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = outbox_in(tmp_path)
    put(outbox, "1", "2")

    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert take(outbox.cursors[0], 1) == ["1"]
    assert "cannot write down" in caplog.text
    assert take(outbox.cursors[0]) == ["2"]
    outbox.close()
