"""How `tools/run-tests` divides the tests among its processes, each with its own Jaeger and daemons."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest

#: Folders that stay in one process: their tests share a daemon or a browser, which start slowly.
TOGETHER = ("tests/containers", "tests/browser")

#: What lasts longest; begun last, it would be what all wait for in the end.
LONGEST_FIRST = ("tests/containers", "tests/e2e", "tests/browser", "tests/integration")


def group(nodeid: str) -> str:
    """The file of a test, or its folder, which one process runs from its first test to its last."""
    file = PurePosixPath(nodeid.partition("::")[0])
    return next((folder for folder in TOGETHER if file.is_relative_to(folder)), str(file))


def sort(items: list[pytest.Item], last: set[Path]) -> None:
    """Put what lasts long first, and these files at the end."""
    items.sort(key=lambda item: (item.path in last, place(item.nodeid)))


def place(nodeid: str) -> int:
    """Where in `LONGEST_FIRST` a test is; all others come after."""
    file = PurePosixPath(nodeid.partition("::")[0])
    tops = enumerate(LONGEST_FIRST)
    return next((number for number, top in tops if file.is_relative_to(top)), len(LONGEST_FIRST))


def scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out groups, in their order."""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return Groups(config, log)
