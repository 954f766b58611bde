"""Imports go one way: the layers of the package, read from its source."""

from __future__ import annotations

import ast
from pathlib import Path

import k8s_tracing

PACKAGE = Path(k8s_tracing.__file__).parent

#: What a module, or a folder of modules, may import of the package beside itself; `errors` and `closing` all may.
BASE = {"errors", "record", "sampling", "settings"}
CORE = {*BASE, "_core", "context", "decorator", "native", "propagation", "resource", "w3c"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "closing": set(),
    "record": set(),
    "sampling": set(),
    "settings": {"sampling"},
    "kubernetes": set(),
    "procfs": set(),
    "http": set(),
    "cgroup": set(),
    "cpu": {"_core", "cgroup"},
    "libraries": set(),
    "resource": {"kubernetes"},
    "propagation": BASE,
    "decorator": set(),
    "context": {"_core"},
    "native": {"_core", "context", "decorator"},
    "w3c": {"_core", "propagation"},
    "otlp": {"record"},
    "jaeger": {"record"},
    "jaeger_reader": {"record", "jaeger"},
    "pure": set(),
    "backends": {*CORE, "procfs"},
    "provider": {*CORE, "backends", "cpu"},
    "api": {*CORE, "backends", "provider", "pure"},
    "testing": {*CORE, "backends", "provider", "api"},
    "testing_plugin": {"testing"},
    "distro": {"api", "instrument"},
    "instrument": {*CORE, "http", "api"},
    "receiver": {"otlp"},
    "dataplane": {"record", "http", "libraries", "otlp", "receiver", "cgroup"},
    "agent": {*BASE, "cgroup", "libraries", "kubernetes", "procfs", "resource", "otlp", "report"},
    "report": {"record", "analysis"},
    "analysis": {"record"},
    "viewer": {
        "record",
        "otlp",
        "jaeger",
        "jaeger_reader",
        "analysis",
        "report",
        "settings",
        "receiver",
    },
    # it looks at both sides, and only the command line imports it
    "doctor": {*CORE, "backends", "distro", "agent"},
}
#: They are the edges: they may import everything, and nothing imports them.
EDGES = {"cli", "__main__", "__init__"}


def layer(module: Path) -> str:
    parts = module.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(module: Path) -> set[str]:
    """Return the layers of the package that a module imports, for typing only ones left out."""
    found = set()
    tree = ast.parse(module.read_text())
    typing_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
            if node.module == "k8s_tracing":
                names = [f"k8s_tracing.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("k8s_tracing.")}
    return found


def test_imports_go_one_way() -> None:
    wrong = []
    for module in sorted(PACKAGE.rglob("*.py")):
        here = layer(module)
        if here in EDGES:
            continue
        assert here in MAY_IMPORT, f"say in MAY_IMPORT what {here} may import"
        for there in sorted(imports(module) - MAY_IMPORT[here] - {here, "errors", "closing"}):
            wrong.append(f"{module.relative_to(PACKAGE)} imports {there}")
    assert wrong == []
