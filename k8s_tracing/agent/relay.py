# SPDX-License-Identifier: Apache-2.0
"""LTTng trace chunks in, OTLP requests out: the binding of the C relay.

The relay pairs the events of a span over chunks, CPUs, threads and processes. It reads in C, without the GIL, and hands
out one request at a time, so that memory does not grow with the size of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k8s_tracing.agent.chunks import chunk_duration_ns, trace_folders
from k8s_tracing.closing import Closing
from k8s_tracing.errors import RelayError
from k8s_tracing.libraries import load


@dataclass(frozen=True, slots=True)
class Request:
    """One OTLP `ExportTraceServiceRequest`, encoded."""

    body: bytes
    spans: int


@dataclass(frozen=True, slots=True)
class Process:
    """Who records spans, as it announced itself.

    Attributes:
        instance_id: That its spans name it by; made by the process.
        vpid: Its id within its PID namespace. From here on the kernel says it, by LTTng's contexts; 0: not known.
        pid_ns: The inode number of that namespace.
        cgroup_ns: That of its cgroup namespace.
        resource: What it says it is: the fields of an OTLP `Resource`, or what it was replaced by.
    """

    instance_id: int
    vpid: int
    pid_ns: int
    cgroup_ns: int
    resource: bytes


@dataclass(frozen=True, slots=True)
class Loss:
    """What LTTng lost of some buffers.

    Attributes:
        buffers: A user's or a process's, by their place in a chunk: `ust/uid/1000/64-bit`; "" stands for all others.
        lost_events: So many that were counted.
        gaps: So often, those included of which nobody knows how much was lost.
        processes: Who records to them now.
    """

    buffers: str
    lost_events: int
    gaps: int
    processes: tuple[Process, ...]


#: Asked what the resource of a process is; None: what it says itself.
Identify = Callable[[Process], bytes | None]


@dataclass(frozen=True, slots=True)
class RelayStats:
    """What the relay has counted since it was made, or since the one was whose state it has.

    The last four say what is now. The fields are those of `struct relay_stats`, where each is explained.
    """

    events: int
    spans: int
    unfinished: int
    evicted: int
    completed: int
    unknown_resources: int
    unknown_scopes: int
    ends_without_start: int
    details_without_span: int
    duplicates: int
    invalid_fields: int
    invalid_bytes: int
    invalid_events: int
    discarded_events: int
    lost_packets: int
    marked: int
    contradicting_processes: int
    unreadable_packets: int
    disordered_events: int
    cpu_told: int
    cpu_shared: int
    cpu_unknown: int
    open_spans: int
    waiting_spans: int
    orphans: int
    reported_spans: int


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Somebody who follows the kernel's scheduler: the relay asks what a span's thread did meanwhile.

    Attributes:
        function: The address of a C function, `cpu_times` of `struct relay_options`. It is called without the GIL, by
            the thread that reads.
        scheduler: The address that is its first argument.
        shortest_ns: Shorter spans are not told.
        owner: Who both belong to: the relay keeps the object.
    """

    function: int
    scheduler: int
    shortest_ns: int
    owner: object = None


_CPU_TIMES = "int (*)(void *, uint64_t, int64_t, int64_t, int64_t, int64_t, int64_t *)"


class Relay(Closing):
    """Assembles the spans of the chunks that it is given, in the order in which they were recorded.

    Use it from one thread at a time, and close it (it is a context manager).

    Args:
        request_bytes: A request is at most this long, but holds at least one span.
        memory_bytes: Limit for spans that are open or incomplete; past it the oldest go out as they are, counted.
        wait_s: How long a span waits for the description of its process.
        max_age_s: A span that is open for so long is reported as unfinished. An hour is more than any timeout of a
            request; what does take longer (a websocket, a batch job) is seen while it runs, and sent again at its end.
        identify: Asked for the resource of each process before any of its spans is handed out.
        cpu_times: Asked what the thread of a span did, for each that began and ended on one thread of this machine and
            had it for itself. Only of traces of LTTng's own clock, recorded since this machine was started.

    Raises:
        K8sTracingError: The native library is missing or cannot be loaded.
    """

    def __init__(
        self,
        *,
        request_bytes: int = 1 << 20,
        memory_bytes: int = 256 << 20,
        wait_s: float = 15.0,
        max_age_s: float = 3600.0,
        identify: Identify | None = None,
        cpu_times: CpuTimes | None = None,
    ) -> None:
        self._identify = identify
        self._ffi, self._lib = load("relay")
        self._cpu_times = times = cpu_times or CpuTimes(0, 0, 0)
        options = self._ffi.new(
            "struct relay_options *",
            {
                "request_bytes": request_bytes,
                "memory_bytes": memory_bytes,
                "wait_ns": int(wait_s * 1e9),
                "max_age_ns": int(max_age_s * 1e9),
                "identify": identify is not None,
                "cpu_times": self._ffi.cast(_CPU_TIMES, times.function),
                "scheduler": self._ffi.cast("void *", times.scheduler),
                "cpu_shortest_ns": times.shortest_ns,
            },
        )
        self._relay = self._lib.relay_new(options)
        if not self._relay:
            raise MemoryError

    def read(self, path: str | Path) -> Iterator[Request]:
        """Read a chunk (a folder with LTTng traces at any depth) and yield the requests that its spans fill.

        What is still open afterwards, or ended about when the chunk did, stays for the next chunk. A trace that cannot
        be read does not stop the others of the chunk.

        Raises:
            RelayError: After the last request: there is no trace, or some of it cannot be read.
        """
        errors = []
        folders = trace_folders(Path(path))
        for folder in folders:
            buffers = str(folder.relative_to(path)).encode()
            try:
                self._check(self._lib.relay_open(self._relay, str(folder).encode(), buffers))
                yield from self._requests()
            except RelayError as error:
                errors.append(str(error))
        self._check(self._lib.relay_end_chunk(self._relay, chunk_duration_ns(Path(path))))
        yield from self._requests()
        if not folders:
            errors.append(f"no LTTng trace in {path}")
        if errors:
            raise RelayError("; ".join(errors))

    def read_nothing(self, path: str | Path) -> Iterator[Request]:
        """Take note of a chunk in which nobody was registered: time goes on, and what waited for that is yielded."""
        self._check(self._lib.relay_end_chunk(self._relay, chunk_duration_ns(Path(path))))
        yield from self._requests()

    def process_gone(self, instance_id: int) -> bool:
        """Say that a process has ended, and that no chunk after the next one has anything of it.

        What is open then is reported as unfinished at the end of that chunk.

        Returns:
            Is it known at all?
        """
        return bool(self._lib.relay_process_gone(self._relay, instance_id))

    def finish(self, *, unfinished: bool = True) -> Iterator[Request]:
        """Yield all that has ended: no more chunks will come for now.

        Args:
            unfinished: Spans without an end as well. A relay that goes on from the state after that still completes
                them, should they end.
        """
        self._check(self._lib.relay_finish(self._relay, unfinished))
        yield from self._requests()

    @property
    def stats(self) -> RelayStats:
        """The counters as they are now."""
        stats = self._ffi.new("struct relay_stats *")
        self._lib.relay_get_stats(self._relay, stats)
        return RelayStats(*(getattr(stats, name) for name in RelayStats.__slots__))

    def save(self, chunks: Iterable[str] = ()) -> bytes:
        """Return all that outlives a chunk: spans that are open or wait, who recorded them, and the counters.

        Once it is on disk and the requests so far are delivered, what was read is not needed any more.

        Args:
            chunks: The names of chunks that it covers and that are not deleted yet; `chunks` of the relay that goes on.

        Raises:
            RelayError: A chunk was not read to its end, or its requests were not all taken.
        """
        note = "\n".join(chunks).encode()
        state: Any = self._ffi.new("struct relay_bytes *")
        self._check(self._lib.relay_save(self._relay, note, len(note), state))
        return bytes(self._ffi.buffer(state.bytes, state.size))

    def restore(self, state: bytes) -> None:
        """Go on where another relay was saved. Only before anything is read.

        Raises:
            RelayError: The state is damaged, or of another version. The relay is then as new.
        """
        self._check(self._lib.relay_restore(self._relay, state, len(state)))

    @property
    def chunks(self) -> frozenset[str]:
        """The chunks that the restored state covers: what they held is in it, or was delivered."""
        note: Any = self._ffi.new("struct relay_bytes *")
        self._lib.relay_get_chunks(self._relay, note)
        text = bytes(self._ffi.buffer(note.bytes, note.size)).decode(errors="replace")
        return frozenset(text.split("\n")) - {""}

    def close(self) -> None:
        """Free everything; what was not handed out is lost."""
        self._lib.relay_free(self._relay)
        self._relay = self._ffi.NULL

    def processes(self) -> Iterator[Process]:
        """The processes that are known. They may change with the next chunk."""
        return (process for _, process in self._processes())

    def losses(self) -> list[Loss]:
        """What was lost, for each buffer of a user or a process that lost anything since the first of the states."""
        recorders: dict[int, list[Process]] = {}
        found: Any = self._ffi.new("struct relay_buffers *")
        losses: list[Loss] = []
        while self._lib.relay_lossy_buffers(self._relay, len(losses), found):
            if not recorders:
                for key, process in self._processes():
                    recorders.setdefault(key, []).append(process)
            name: Any = self._ffi.string(found.name)
            processes = tuple(recorders.get(found.key, ()))
            losses.append(
                Loss(name.decode(errors="replace"), found.lost_events, found.gaps, processes)
            )
        return losses

    def _processes(self) -> Iterator[tuple[int, Process]]:
        """Each with the key of the buffers that it records to."""
        cursor: Any = self._ffi.new("uint64_t *")
        found: Any = self._ffi.new("struct relay_process *")
        while self._lib.relay_each_process(self._relay, cursor, found):
            yield found.buffers, self._process(found)

    def _process(self, found: Any) -> Process:
        resource = bytes(self._ffi.buffer(found.resource, found.resource_size))
        return Process(found.instance_id, found.vpid, found.pid_ns, found.cgroup_ns, resource)

    def _requests(self) -> Iterator[Request]:
        request: Any = self._ffi.new("struct relay_request *")
        while status := self._check(self._lib.relay_next(self._relay, request)):
            if status == 1:
                yield Request(bytes(self._ffi.buffer(request.bytes, request.size)), request.spans)
            else:
                self._identify_new()

    def _identify_new(self) -> None:
        assert self._identify is not None
        found: Any = self._ffi.new("struct relay_process *")
        while self._lib.relay_new_process(self._relay, found):
            process = self._process(found)
            resource = self._identify(process)
            given = self._ffi.NULL if resource is None else self._ffi.from_buffer(resource)
            size = 0 if resource is None else len(resource)
            self._check(self._lib.relay_identify(self._relay, process.instance_id, given, size))

    def _check(self, status: int) -> int:
        if status < 0:
            text: Any = self._ffi.string(self._lib.relay_error(self._relay))
            raise RelayError(text.decode(errors="replace"))
        return status


def is_valid_fields(message: str, fields: bytes) -> bool:
    """Would the relay copy these bytes into a span unread?

    Args:
        message: What they are fields of: `RESOURCE`, `SPAN`, `SPAN_EVENT` or `SPAN_LINK`.
        fields: Bytes that may be anything.
    """
    ffi, lib = load("relay")
    kind = getattr(lib, f"RELAY_{message}")
    return bool(lib.relay_valid_fields(kind, ffi.from_buffer(fields), len(fields)))
