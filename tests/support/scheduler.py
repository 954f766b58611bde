"""Who follows the scheduler, as the relay sees it: a C function that says what a test wants; what spans say."""

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from k8s_tracing.agent.relay import CpuTimes, Relay, RelayStats
from k8s_tracing.record import SpanRecord
from tests.support.ctf import Event, Packet, Style, write_trace
from tests.support.spans import announced, read_all

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


KEYS = "k8s_tracing.cpu."
SHARED = {"shared": True}


def chunk(path: Path, *streams: Sequence[Event | Packet], style: Style = STYLE) -> Path:
    write_trace(path / "ust" / "uid" / "0" / "64-bit", streams, style=style)
    return path


def told(spans: Iterable[SpanRecord]) -> dict[int, dict[str, object]]:
    """What each span says of its CPU time, by its number and without the keys' beginning."""
    return {
        int(span.span_id, 16): {
            key.removeprefix(KEYS): value
            for key, value in span.attributes.items()
            if key.startswith(KEYS)
        }
        for span in spans
    }


def kinds(spans: Iterable[SpanRecord]) -> dict[int, str]:
    """Whether each span was told, shared its thread, or says nothing of it."""
    return {
        number: "shared" if says == SHARED else "told" if says else "nothing"
        for number, says in told(spans).items()
    }


def read(
    folder: Path,
    *events: Event,
    scheduler: FakeScheduler | None = None,
    style: Style = STYLE,
    shortest_ns: int = 0,
) -> tuple[list[SpanRecord], RelayStats]:
    """The spans of one stream behind the announcement of thread 1's process."""
    scheduler = scheduler or FakeScheduler()
    recorded = [*on(1, *announced()), *events]
    with Relay(cpu_times=scheduler.times(shortest_ns)) as relay:
        return read_all(relay, chunk(folder, recorded, style=style)), relay.stats


def counted(stats: RelayStats) -> tuple[int, int, int]:
    return stats.cpu_told, stats.cpu_shared, stats.cpu_unknown
