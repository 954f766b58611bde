# SPDX-License-Identifier: Apache-2.0
"""The node's processes: the one in /proc that has a PID namespace and an id there.

An agent without privileges does not see the namespaces of other users' processes, and takes those whose key
(procfs.py) the process says is its own: docs/explanation/identity.md.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from k8s_tracing.agent.relay import Process
from k8s_tracing.procfs import KEY, process_key, start_ticks

log = logging.getLogger(__name__)

#: A look at all of /proc serves whoever asks within that time, and finds.
_FRESH_S = 0.5
_MANY = 4096


@dataclass(frozen=True, slots=True)
class Found:
    """A process in /proc.

    Attributes:
        pid: Its id where /proc was mounted.
        vpid: Its id in its own namespace.
        pid_ns: The inode number of that; 0 where this user may not see it.
    """

    pid: int
    vpid: int
    pid_ns: int


class Proc:
    """The node's processes.

    Args:
        root: Where the node's proc file system is: /proc, with the node's PID namespace, or /host/proc.
    """

    def __init__(self, root: Path = Path("/proc")) -> None:
        self.root = root
        self._all: list[Found] = []
        self._looked_s = -_FRESH_S
        self._node_ns = 0
        #: The last look saw the namespaces of all processes.
        self.saw_all = False
        #: Processes that were not told from others: two have the key, or it was said in two namespaces.
        self.ambiguous = 0
        # Of processes found by their keys: the namespace in which each was said. It cannot be in two.
        self._said: dict[tuple[int, str], int] = {}
        self._doubted: set[int] = set()

    def find(self, process: Process) -> Found | None:
        """Find a process by its namespace and its id there, which are unique; or by its key."""
        if not process.pid_ns or not process.vpid:
            return None
        direct = self._read(str(process.vpid))  # on the node itself, the two ids are the same
        if direct is not None and _matches(direct, process):
            return direct
        for again in (False, True):
            for found in self.look(again=again):
                if _matches(found, process):
                    return found
            pids = [] if self.saw_all else self._with_its_key(process)
            if pids:
                return self._only(pids, process)
        return None

    def _with_its_key(self, process: Process) -> list[int]:
        """Of the processes whose namespaces are hidden, those that have its id there, and the key that it says."""
        key = _said_key(process)
        if not key or process.pid_ns == self.node_namespace():
            return []
        hidden = (found.pid for found in self._hidden(process))
        return [pid for pid in hidden if process_key(self.root / str(pid)) == key]

    def _hidden(self, process: Process) -> list[Found]:
        return [found for found in self._all if not found.pid_ns and found.vpid == process.vpid]

    def _only(self, pids: list[int], process: Process) -> Found | None:
        """The one that it is; None, counted, if there is a doubt."""
        if len(self._said) > _MANY:
            there = {found.pid for found in self._all}
            self._said = {each: ns for each, ns in self._said.items() if each[0] in there}
        said_in = self._said.setdefault((pids[0], _said_key(process)), process.pid_ns)
        if len(pids) == 1 and said_in == process.pid_ns:
            return Found(pids[0], process.vpid, process.pid_ns)
        if process.instance_id not in self._doubted:
            if len(self._doubted) > _MANY:
                self._doubted.clear()
            self._doubted.add(process.instance_id)
            self.ambiguous += 1
            log.warning(
                "a process (%d in PID namespace %d) cannot be told from others by what this user may see of them: what "
                "it says of its container is taken",
                process.vpid,
                process.pid_ns,
            )
        return None

    def look(self, *, again: bool) -> list[Found]:
        """All processes, as they were a moment ago, or are now."""
        now_s = time.monotonic()
        if again or now_s - self._looked_s >= _FRESH_S:
            self.saw_all = True
            self._all = list(self._scan())
            self._looked_s = now_s
        return self._all

    def cgroup(self, pid: int) -> list[str]:
        """The lines of a process's cgroup file; none when it is gone."""
        try:
            return (self.root / str(pid) / "cgroup").read_text(errors="replace").splitlines()
        except OSError:
            return []

    def node_namespace(self) -> int:
        """The PID namespace whose numbers /proc has; 0: not known.

        Containers that ask for the node's are in it as well.
        """
        if not self._node_ns:
            self._node_ns = self._find_node_namespace()
        return self._node_ns

    def _find_node_namespace(self) -> int:
        try:
            own = str((self.root / "self").readlink())
        except OSError:
            own = ""
        for name in filter(None, ("1", own)):
            try:
                if len(self._ids(name)) == 1:
                    return self._namespace(name)
            except (OSError, ValueError):
                continue
        return 0

    def is_gone(self, process: Process) -> bool:
        """Is it certain that there is no such process? To be asked when `find` has not found it."""
        if not process.pid_ns or not process.vpid:
            return False
        if process.pid_ns == self.node_namespace():
            return not (self.root / str(process.vpid)).exists()
        if self.saw_all:
            return True
        started = _said_key(process).rpartition("-")[2]
        # Its root may be another one since it said so, its start may not.
        return (
            bool(started)
            and self._sees_others()
            and not any(
                start_ticks(self.root / str(found.pid)) == started
                for found in self._hidden(process)
            )
        )

    def _sees_others(self) -> bool:
        """Does /proc show other users' processes at all? Mounted with `hidepid` it does not."""
        return (self.root / "1/stat").exists()

    def _scan(self) -> Iterator[Found]:
        try:
            names = [entry.name for entry in os.scandir(self.root) if entry.name.isdigit()]
        except OSError:
            self.saw_all = False
            return
        for name in names:
            found = self._read(name)
            if found is not None:
                yield found

    def _read(self, name: str) -> Found | None:
        try:
            ids = self._ids(name)
            try:
                pid_ns = self._namespace(name)
            except PermissionError:
                # One number: it is in no other namespace than that of /proc itself.
                pid_ns = self.node_namespace() if len(ids) == 1 else 0
                self.saw_all = self.saw_all and pid_ns != 0
            return Found(int(name), ids[-1], pid_ns)
        except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
            return None
        except OSError:
            self.saw_all = False
            return None
        except (ValueError, IndexError):
            return None

    def _ids(self, name: str) -> list[int]:
        """The process's id in each PID namespace that it is in, from that of /proc inwards."""
        status = (self.root / name / "status").read_text(errors="replace")
        ids = next((line for line in status.splitlines() if line.startswith("NSpid:")), "")
        return [int(each) for each in ids.split()[1:]]

    def _namespace(self, name: str) -> int:
        return int(str((self.root / name / "ns/pid").readlink()).partition("[")[2].rstrip("]"))


def _said_key(process: Process) -> str:
    """What it says its key is; empty without."""
    attributes = Resource.FromString(process.resource).attributes
    return next((each.value.string_value for each in attributes if each.key == KEY), "")


def _matches(found: Found, process: Process) -> bool:
    return (found.pid_ns, found.vpid) == (process.pid_ns, process.vpid)
