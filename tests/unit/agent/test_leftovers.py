"""What a session that has ended left: which of it becomes chunks, in which order, and where it ends."""

import struct
from pathlib import Path

import pytest

from k8s_tracing.agent.leftovers import collect, move_away, whole_packets_bytes


def packet(number: int, size: int = 4096) -> bytes:
    """A packet of LTTng's as far as its size is told, written from the specification of CTF 1.8."""
    head = struct.pack("=I", 0xC1FC1FC1) + bytes(16) + struct.pack("=IQ", 0, 0)
    head += struct.pack("=QQQQ", number, number, 8 * 100, 8 * size)
    return head.ljust(size, b"\0")


def write(trace: Path, data: bytes, metadata: str = "m") -> None:
    (trace / "index").mkdir(parents=True)
    (trace / "index/spans_0.idx").write_bytes(b"x")
    (trace / "metadata").write_text(metadata)
    (trace / "spans_0").write_bytes(data)


def names(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "archives").iterdir())


@pytest.mark.parametrize("torn", [0, 1, 63, 64, 4095])
def test_whole_packets_are_kept_and_half_a_packet_is_not(tmp_path: Path, torn: int) -> None:
    file = tmp_path / "spans_0"
    file.write_bytes(packet(1) + packet(2, 8192) + packet(3)[:torn])
    assert whole_packets_bytes(file) == 4096 + 8192


def test_a_file_that_is_no_stream_has_no_packets(tmp_path: Path) -> None:
    file = tmp_path / "spans_0"
    for content in (b"", b"\0" * 8192, packet(1, 0), packet(1, 32)):
        file.write_bytes(content.ljust(64, b"\0"))
        assert whole_packets_bytes(file) == 0


def test_the_chunks_are_in_the_order_of_the_recording(tmp_path: Path) -> None:
    (tmp_path / "archives/20260101T000000+0000-20260101T000001+0000-3").mkdir(parents=True)
    write(tmp_path / "20260101T000002+0000-5/ust/uid/0/64-bit", packet(2))
    write(tmp_path / ".tmp_old_chunk/ust/uid/0/64-bit", packet(1))
    (tmp_path / ".tmp_new_chunk/ust").mkdir(parents=True)
    assert collect(tmp_path, None) == 2
    assert names(tmp_path)[1:] == ["unfinished-4", "unfinished-5"]
    first = tmp_path / "archives/unfinished-4/ust/uid/0/64-bit"
    assert (first / "spans_0").read_bytes() == packet(1)
    assert not (first / "index").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["archives"]


def test_a_session_that_was_never_rotated_is_one_chunk(tmp_path: Path) -> None:
    write(tmp_path / "ust/uid/0/64-bit", packet(1) + b"half")
    assert collect(tmp_path, None) == 1
    (stream,) = (tmp_path / "archives/unfinished-0").rglob("spans_0")
    assert stream == tmp_path / "archives/unfinished-0/ust/uid/0/64-bit/spans_0"
    assert stream.stat().st_size == 4096


def test_an_interruption_is_gone_on_with(tmp_path: Path) -> None:
    """The rename into `archives` is what was missing."""
    write(tmp_path / ".whole/ust/uid/0/64-bit", packet(1))
    assert collect(tmp_path, None) == 1
    assert names(tmp_path) == ["unfinished-0"]
    assert collect(tmp_path, None) == 0


def test_a_session_without_events_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path / "20260101T000002+0000-5/ust/uid/0/64-bit", b"")
    assert collect(tmp_path, None) == 0
    assert list(tmp_path.iterdir()) == []


def test_buffers_that_cannot_be_read_are_said_and_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output, shm = tmp_path / "output", tmp_path / "shm"
    output.mkdir()
    trace = shm / "s-20260101-000000/ust/uid/0/64-bit"
    trace.mkdir(parents=True)
    (trace / "metadata").write_text("m")
    (trace / "spans_0").write_bytes(b"no buffer")
    move_away(shm)
    assert not shm.exists()
    assert collect(output, shm) == 0
    assert "cannot be read" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["output"]
