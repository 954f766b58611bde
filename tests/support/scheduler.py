"""Who follows the scheduler, as the relay sees it: a C function that says what a test wants to hear."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from k8s_tracing.agent.relay import CpuTimes
from tests.support.ctf import Event, Style

#: The clock of LTTng's traces of this machine, and the contexts that the agent asks for.
BOOT_ID = UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
CONTEXTS = {"vpid": "i32", "vtid": "i32", "pid_ns": "u64"}
STYLE = Style(context=CONTEXTS, clock_uuid=BOOT_ID)

PID_NS = 4026531836
VPID = 100

_FUNCTION = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_uint64,
    *[ctypes.c_int64] * 4,
    ctypes.POINTER(ctypes.c_int64),
)


def on(thread: int, *events: Event, vpid: int = VPID, pid_ns: int = PID_NS) -> list[Event]:
    """Events that this thread recorded."""
    context = {"vpid": vpid, "vtid": thread, "pid_ns": pid_ns}
    return [Event(each.time_ns, each.name, each.fields, context) for each in events]


@dataclass(frozen=True)
class Asked:
    """What the relay wanted to know."""

    pid_ns: int
    vpid: int
    vtid: int
    begin_ns: int
    end_ns: int


class FakeScheduler:
    """Says the same of every thread.

    Args:
        times_ns: Running, waiting for a CPU, throttled; None: it does not know.
    """

    ADDRESS = 0x1234

    def __init__(self, times_ns: Sequence[int] | None = (0, 0, -1)) -> None:
        self.times_ns = times_ns
        self.asked: list[Asked] = []
        self._function = _FUNCTION(self._answer)

    def times(self, shortest_ns: int = 0) -> CpuTimes:
        """What a Relay is given."""
        address = ctypes.cast(self._function, ctypes.c_void_p).value
        assert address
        return CpuTimes(address, self.ADDRESS, shortest_ns, self)

    def _answer(self, scheduler: int, *words: Any) -> int:
        assert scheduler == self.ADDRESS
        *about, answer = words
        self.asked.append(Asked(*about))
        if self.times_ns is None:
            return 0
        for place, time_ns in enumerate(self.times_ns):
            answer[place] = time_ns
        return 1
