"""A small real program that records spans through LTTng, and what it recorded, counted."""

import functools
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.lttng import require

_NATIVE = Path(__file__).parents[2] / "_native"


@functools.cache
def program() -> Path:
    """Compile it once in a test run, where every user can run it."""
    folder = Path(tempfile.mkdtemp(prefix="k8st-producer-"))
    folder.chmod(0o755)
    sources = [Path(__file__).with_suffix(".c"), _NATIVE / "emit.c", _NATIVE / "tracepoints.c"]
    command = [require("cc"), "-O2", f"-I{_NATIVE}", "-o", folder / "producer", *sources]
    subprocess.run([*command, "-llttng-ust", "-ldl"], check=True)
    return folder / "producer"


def start(
    env: Mapping[str, str],
    first: int,
    count: int,
    *,
    interval_us: int = 0,
    hold: bool = False,
    keep_open: bool = False,
    crash: bool = False,
    prefix: Sequence[str] = (),
    **as_user: int,
) -> "subprocess.Popen[str]":
    """Start it; its spans have the ids from `first` on.

    Args:
        hold: it stays when it is through, until its standard input ends.
        keep_open: likewise, and it ends its spans only then.
        crash: it dies in the middle of one more event.
        prefix: a command that runs it.
        as_user: user and group, if they are others.
    """
    end = ["hold"] * hold + ["open"] * keep_open + ["crash"] * crash
    return subprocess.Popen(
        [*prefix, program(), str(first), str(count), str(interval_us), *end],
        env=dict(os.environ) | dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **as_user,
    )


def run(env: Mapping[str, str], first: int, count: int, *, interval_us: int = 0) -> set[int]:
    """Run it to its end; return the span ids that it recorded."""
    with start(env, first, count, interval_us=interval_us) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert output == "done\n"
    return set(range(first, first + count))


def is_done(process: "subprocess.Popen[str]") -> bool:
    """Wait until it has recorded all its spans; it still lives if it was told to hold."""
    assert process.stdout is not None
    return process.stdout.readline() == "done\n"


def remove() -> None:
    """Remove what was compiled."""
    if program.cache_info().currsize:
        program().unlink()
        program().parent.rmdir()
        program.cache_clear()


@pytest.fixture(scope="module", autouse=True)
def no_producer_left() -> object:
    """For a module of tests: compile at most once, and leave nothing."""
    yield
    remove()
