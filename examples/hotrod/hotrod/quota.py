# SPDX-License-Identifier: Apache-2.0
"""A cgroup with a CPU quota, which is what a container with a CPU limit has. Needs root."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from pathlib import Path

from k8s_tracing import cgroup

PERIOD_US = 100_000
_GONE_S = 20.0


class QuotaError(Exception):
    """A cgroup with a quota cannot be made here; the message says why."""


class Quota:
    """A cgroup below the one that we run in, version 1 or 2, for as long as the `with`.

    Until `limit` is called it may use all CPUs.

    Args:
        name: What it is called; None: a name of its own.
    """

    def __init__(self, name: str | None = None) -> None:
        folders = cgroup.cpu_folders(
            Path("/proc/self/cgroup").read_text().splitlines(),
            Path("/proc/self/mountinfo").read_text().splitlines(),
        )
        if not folders:
            raise QuotaError("the cpu controller of cgroup v1 or v2 is not mounted")
        self.folder = Path(folders[0]) / (name or f"k8st-{uuid.uuid4().hex[:12]}")
        # What container runtimes do: with version 1, the same for the controller that counts the usage.
        usage = Path(str(self.folder).replace("/cpu/", "/cpuacct/"))
        self._folders = list(dict.fromkeys((self.folder, usage)))

    def limit(self, quota_ms: int) -> None:
        """From now on, so much CPU time of every 100 ms, for all its processes together."""
        quota_us = quota_ms * 1000
        try:
            if (self.folder / "cpu.cfs_quota_us").exists():
                (self.folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
                (self.folder / "cpu.cfs_quota_us").write_text(str(quota_us))
            else:
                (self.folder / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        except OSError as error:
            raise QuotaError(
                f"the cgroup {self.folder} takes no CPU quota ({error}): the kernel needs CONFIG_CFS_BANDWIDTH, and "
                "with cgroup v2 the cpu controller has to be enabled in cgroup.subtree_control above it"
            ) from None

    def command(self, *words: str) -> list[str]:
        """A command that runs in it, from its first instruction on."""
        enter = 'echo $$ > "$0" && exec "$@"'
        return ["sh", "-c", enter, str(self.folder / "cgroup.procs"), *words]

    def __enter__(self) -> Quota:
        try:
            for folder in self._folders:
                folder.mkdir()
            # Tracing looks for the cgroup whose quota holds when it starts.
            self.limit((os.cpu_count() or 1) * 100)
        except OSError as error:
            self._remove()
            raise QuotaError(f"making a cgroup needs root: {error}") from None
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._remove()

    def _remove(self) -> None:
        deadline = time.monotonic() + _GONE_S
        for folder in self._folders:
            while folder.exists() and time.monotonic() < deadline:
                # A process that was killed a moment ago is still in it.
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.02)
