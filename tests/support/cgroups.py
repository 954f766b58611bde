"""A cgroup of a test's own, with a CPU quota: below the one the tests run in, removed at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hotrod.quota import Quota


@contextmanager
def quota(quota_ms: int, name: str | None = None) -> Iterator[Path]:
    """The folder of a cgroup that may use so much CPU time of every 100 ms.

    Args:
        quota_ms: So much.
        name: What it is called; None: a name of its own.

    Raises:
        QuotaError: it cannot be made; the message says why. Tests that need one fail then, they do not skip.
    """
    with Quota(name) as made:
        made.limit(quota_ms)
        yield made.folder
    assert not made.folder.exists()
