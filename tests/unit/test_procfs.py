"""What /proc says of a process to everybody: a real process's, and broken ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from k8s_tracing.procfs import process_key, start_ticks


def test_a_process_says_of_itself_what_others_see() -> None:
    code = (
        "import pathlib, k8s_tracing.procfs as p\n"
        "print(p.process_key(pathlib.Path('/proc/self')), flush=True)\n"
        "input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        said = child.stdout.readline().strip()
        assert said == process_key(Path("/proc") / str(child.pid))
        assert said != process_key(Path("/proc/self"))
        child.communicate("\n")


def test_the_root_mount_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(f"7 (a) S 1) R {'0 ' * 18}4711 0\n")
    (tmp_path / "mountinfo").write_text(
        "5 1 0:5 / /a / - tmpfs\n431 1 0:6 /b / rw - overlay\n6 1 0:7 / / rw - tmpfs\n"
    )
    assert process_key(tmp_path) == "431-4711"


@pytest.mark.parametrize("file", ["stat", "mountinfo"])
@pytest.mark.parametrize("content", [None, "", "\n", "7 (a) R 1\n", "\0\n"])
def test_no_key_without_both(tmp_path: Path, file: str, content: str | None) -> None:
    (tmp_path / "stat").write_text(f"7 (a) R {'0 ' * 18}4711 0\n")
    (tmp_path / "mountinfo").write_text("431 1 0:6 / / rw - overlay\n")
    assert process_key(tmp_path) is not None
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_text(content)
    assert process_key(tmp_path) is None


def test_a_zombie_has_ended() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert start_ticks(Path("/proc") / str(pid)) is None
    os.waitpid(pid, 0)
