"""A cgroup of a test's own, with a CPU quota: below the one the tests run in, removed at the end."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from k8s_tracing import cgroup
from tests.support.wait import wait_for

PERIOD_US = 100_000


class CgroupError(AssertionError):
    """A cgroup with a quota cannot be made here; tests that need one fail then, they do not skip."""


@contextmanager
def quota(quota_ms: int, name: str | None = None) -> Iterator[Path]:
    """The folder of a cgroup that may use so much CPU time of every 100 ms.

    Args:
        quota_ms: So much.
        name: What it is called; None: a name of its own.

    Raises:
        CgroupError: it cannot be made; the message says why.
    """
    own = _own_folder()
    folder = own / (name or f"k8st-{uuid.uuid4().hex[:12]}")
    # what container runtimes do: with version 1, the same for the controller that counts the usage
    usage = Path(str(folder).replace("/cpu/", "/cpuacct/"))
    made: list[Path] = []
    try:
        for each in dict.fromkeys((folder, usage)):
            try:
                each.mkdir()
            except OSError as error:
                raise CgroupError(
                    f"this test needs root, to make the cgroup {each}: {error}"
                ) from None
            made.append(each)
        try:
            _limit(folder, quota_ms * 1000)
        except OSError as error:
            raise CgroupError(
                f"the cgroup {folder} takes no CPU quota ({error}): the kernel needs CONFIG_CFS_BANDWIDTH, and with "
                "cgroup v2 the cpu controller has to be enabled in cgroup.subtree_control above it"
            ) from None
        yield folder
    finally:
        for each in made:  # a process that was killed a moment ago is still in it
            wait_for(f"{each} can be removed", partial(_removed, each), 20)


def _own_folder() -> Path:
    folders = cgroup.cpu_folders(
        Path("/proc/self/cgroup").read_text().splitlines(),
        Path("/proc/self/mountinfo").read_text().splitlines(),
    )
    if not folders:
        raise CgroupError("this test needs the cpu controller of cgroup v1 or v2 mounted")
    return Path(folders[0])


def _limit(folder: Path, quota_us: int) -> None:
    if (folder / "cpu.cfs_quota_us").exists():
        (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
    else:
        (folder / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")


def _removed(folder: Path) -> bool:
    with suppress(OSError):
        folder.rmdir()
    return not folder.exists()
