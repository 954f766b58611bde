# SPDX-License-Identifier: Apache-2.0
"""Starting, watching and stopping child processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hotrod.config import Address
from hotrod.processes import Child, ProcessError, accepts_connections, free_address


def test_a_child_that_ends_says_why(tmp_path: Path) -> None:
    code = "import sys; print('the reason'); sys.exit(3)"
    child = Child("example", [sys.executable, "-c", code], tmp_path, os.environ)
    child.process.wait(30)
    with pytest.raises(ProcessError, match=r"(?s)example has ended with status 3.*the reason"):
        child.check()
    child.stop()


def test_stop_takes_the_whole_group(tmp_path: Path) -> None:
    # A shell that ignores the request to end, and a grandchild that has not heard of it.
    script = "trap '' TERM; sleep 1000 & echo $!; wait"
    child = Child("example", ["sh", "-c", script], tmp_path, os.environ)
    while not child.log.read_text().endswith("\n"):
        time.sleep(0.01)
    grandchild = int(child.log.read_text())
    child.stop(timeout_s=0.2)
    assert child.process.returncode == -signal.SIGKILL
    assert has_ended(grandchild)


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import os, sys, time, pathlib; from hotrod.processes import Child\n"
        "child = Child('example', ['sleep', '1000'], pathlib.Path(sys.argv[1]), os.environ)\n"
        "print(child.process.pid, flush=True); time.sleep(1000)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        parent.kill()
    assert has_ended(child)


def has_ended(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            # A process that nobody has waited for yet is still listed, as a zombie.
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


def test_a_port_that_is_free_is_used() -> None:
    usual = free_address()
    assert not accepts_connections(usual)


def test_a_port_that_is_taken_is_not_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        usual = Address(*taken.getsockname())
        assert accepts_connections(usual)
        other = free_address(usual)
    assert other.host == usual.host
    assert other.port != usual.port


def test_no_port_is_given_twice() -> None:
    addresses = [free_address() for _ in range(50)]
    assert len(set(addresses)) == len(addresses)
