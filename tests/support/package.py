"""Copies of the installed package that lack a part, and programs that run with such a copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import k8s_tracing


def copy(folder: Path) -> Path:
    """Copy the package, Python and native parts together, into `folder`; return the copy."""
    target = folder / "k8s_tracing"
    for source in k8s_tracing.__path__:  # an editable install has its native parts elsewhere
        shutil.copytree(
            source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    return target


def run(
    folder: Path, program: str, env: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    """Run a program that finds the package in `folder`, and all others where they are installed."""
    others = [path for path in sys.path if path.endswith("site-packages")]
    return subprocess.run(
        # -S: without the finder of an editable install, which would go before any folder
        [sys.executable, "-S", "-c", program],
        env={**env, "PYTHONPATH": os.pathsep.join([str(folder), *others])},
        cwd=folder, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
