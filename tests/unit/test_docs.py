"""The pages say what the source does."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import pytest

import k8s_tracing

DOCS = Path(__file__).parents[2] / "docs"
PACKAGE = Path(k8s_tracing.__file__).parent
NATIVE = PACKAGE.parent / "_native"

#: Constants that look like one and are none: WSGI's, which are called an environment as well, and Jaeger's words.
NOT_VARIABLES = {"instrument/wsgi.py", "jaeger.py", "jaeger_reader.py"}
#: Set for a program that is started or a library that is loaded, not read.
ONLY_SET = {"LC_ALL", "GRPC_ENABLE_FORK_SUPPORT"}
_NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|HOME")


def read_by_the_source() -> set[str]:
    """Every string in the package that is a variable's name, and those that are put together."""
    names = set()
    for module in PACKAGE.rglob("*.py"):
        if str(module.relative_to(PACKAGE)) in NOT_VARIABLES:
            continue
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names |= {node.value} if _NAME.fullmatch(node.value) else set()
    endpoint = (PACKAGE / "agent/endpoint.py").read_text()
    suffixes = set(re.findall(r'\b(?:read|file)\("([A-Z_]+)"\)', endpoint))
    assert "HEADERS" in suffixes
    native = (NATIVE / "CMakeLists.txt").read_text()
    [build] = re.findall(r"foreach\(variable ([A-Z0-9_ ]+)\)", native)
    names |= {f"OTEL_EXPORTER_OTLP_{suffix}" for suffix in suffixes} | set(build.split())
    return names - suffixes - ONLY_SET


def test_every_variable_is_on_its_page_and_no_other() -> None:
    page = (DOCS / "reference/environment.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`([A-Z0-9_]+)`", row.split("|")[1])}
    assert documented == read_by_the_source()


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(3))
def test_how_to_test_your_tracing_runs(number: int) -> None:
    found = blocks("how-to/test-your-tracing.md")
    assert len(found) == 3
    exec(compile(textwrap.dedent(found[number]), f"block {number}", "exec"), {})
