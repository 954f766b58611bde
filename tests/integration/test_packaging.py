"""What `pip install` makes of this tree: with a compiler, without one, and when that must not pass."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support import package

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what a build reads, so that nothing of this tree's own build is used or changed."""
    copy = tmp_path / "tree"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("_native", "k8s_tracing"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def build(tree: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **variables}
    words = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tree / "dist")]
    return subprocess.run(
        [*words, "--disable-pip-version-check", str(tree)],
        env=env, capture_output=True, text=True, timeout=170,
    )  # fmt: skip


def wheel(tree: Path) -> tuple[str, list[str]]:
    [path] = (tree / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as file:
        return path.name, file.namelist()


def test_a_wheel_has_the_native_parts_and_none_of_their_sources(tree: Path) -> None:
    done = build(tree, K8S_TRACING_REQUIRE_NATIVE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    name, files = wheel(tree)
    assert "linux" in name
    assert {file.split("/")[1] for file in files if file.endswith((".so", ".txt"))} >= {
        f"_core.cpython-{sys.version_info.major}{sys.version_info.minor}-x86_64-linux-gnu.so",
        "libk8s_tracing_lttng.so",
        "libk8s_tracing_dataplane.so",
        "libk8s_tracing_relay.so",
        "lttng.cdef.txt",
        "relay.cdef.txt",
    }
    assert "k8s_tracing/py.typed" in files
    assert not [file for file in files if file.endswith((".c", ".h"))]


def test_a_failed_c_build_gives_a_package_that_falls_back_and_says_so(tree: Path) -> None:
    done = build(tree, CC="false")
    assert done.returncode == 0, done.stdout + done.stderr
    name, files = wheel(tree)
    assert name.endswith("-py3-none-any.whl")
    assert not [file for file in files if file.endswith(".so")]
    unpacked = tree / "unpacked"
    with zipfile.ZipFile(next((tree / "dist").glob("*.whl"))) as file:
        file.extractall(unpacked)
    program = """
import logging
logging.basicConfig(level="WARNING")
import k8s_tracing
k8s_tracing.init("fallback")
with k8s_tracing.span("work"):
    print(k8s_tracing.__file__, k8s_tracing.backend_name())
"""
    ran = package.run(unpacked, program, {**os.environ, "OTEL_TRACES_EXPORTER": "none"})
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == f"{unpacked}/k8s_tracing/__init__.py otel\n"
    assert "WARNING:k8s_tracing:tracing with OpenTelemetry's SDK: the native span is missing" in (
        ran.stderr
    )


@pytest.mark.parametrize("variable", ["K8S_TRACING_REQUIRE_NATIVE", "CIBUILDWHEEL"])
def test_a_failed_c_build_fails_where_the_wheel_is_for_others(tree: Path, variable: str) -> None:
    done = build(tree, CC="false", **{variable: "1"})
    assert done.returncode != 0
    assert list((tree / "dist").glob("*.whl")) == []


def test_a_missing_library_fails_where_the_wheel_is_for_others(tree: Path) -> None:
    nowhere = {"PKG_CONFIG_LIBDIR": "/nonexistent", "PKG_CONFIG_PATH": ""}
    done = build(tree, K8S_TRACING_REQUIRE_NATIVE="1", **nowhere)
    assert done.returncode != 0
    assert "lttng-ust was not found" in done.stdout + done.stderr


def test_a_missing_library_leaves_out_what_needs_it(tree: Path) -> None:
    done = build(tree, PKG_CONFIG_LIBDIR="/nonexistent", PKG_CONFIG_PATH="")
    assert done.returncode == 0, done.stdout + done.stderr
    _, files = wheel(tree)
    libraries = sorted(Path(file).name for file in files if file.endswith(".so"))
    assert [name.partition(".")[0] for name in libraries] == [
        "_core",
        "libk8s_tracing_dataplane",
        "libk8s_tracing_relay",
    ]
