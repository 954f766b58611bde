"""Programs in a Python interpreter of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path


def run(program: str, **environment: str) -> str:
    """Run a program, indented as it may be, and return what it prints; it must not fail."""
    answer = subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout
