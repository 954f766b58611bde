# SPDX-License-Identifier: Apache-2.0
"""Connections to Services: heard from conntrack, written down, and joined with spans.

What is heard is written as blocks of bytes, which wait on disk in order with the traces, so that each endpoint's
pipeline joins the same flows with the same spans, whenever it comes to them:

    k8st-flows-1      a line: the format
    {...}             a line of JSON: what the Services and endpoints that occur are called
    struct flow ...   _native/dataplane.cdef.txt, as the machine has it
"""

from __future__ import annotations

import ipaddress
import json
import os
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from k8s_tracing.dataplane.names import Names, Service
from k8s_tracing.errors import K8sTracingError
from k8s_tracing.libraries import load
from k8s_tracing.otlp import resource_fields, span_fields

if TYPE_CHECKING:
    from typing_extensions import Self

MAGIC = b"k8st-flows-1\n"
BUFFER_BYTES = 16 << 20
MAX_FLOWS = 256 * 1024

#: Of a struct flow: virtual_ip, endpoint, virtual_port, endpoint_port.
_PLACES = struct.Struct("=16x16s16s16x2xHH2x40x")

#: A namespace's switches: events are made only for who listens (2) or always (1), and stamped only if asked.
_EVENTS = Path("/proc/sys/net/netfilter/nf_conntrack_events")
_TIMESTAMPS = Path("/proc/sys/net/netfilter/nf_conntrack_timestamp")


@dataclass(frozen=True, slots=True)
class ConntrackStats:
    """What was heard; the fields are those of `struct conntrack_stats`, where each is explained."""

    messages: int
    overflows: int
    flows: int
    incomplete: int
    evicted: int
    malformed: int
    open: int


class Conntrack:
    """The conntrack events of the network namespace of the thread that makes it.

    Args:
        names: What Services are called.
        buffer_bytes: How much the kernel may hold back for us; beyond the machine's limit with CAP_NET_ADMIN only.
        listens: False: there is no socket, messages come by `feed`.

    Raises:
        K8sTracingError: The kernel does not let us listen.
    """

    def __init__(
        self, names: Names, *, buffer_bytes: int = BUFFER_BYTES, listens: bool = True
    ) -> None:
        self._names = names
        self._ffi, self._lib = load("dataplane")
        if not listens:
            self._conntrack = self._lib.conntrack_new()
            if not self._conntrack:
                raise MemoryError
            return
        self._conntrack = self._lib.conntrack_open(buffer_bytes)
        if not self._conntrack:
            reason = os.strerror(self._ffi.errno)
            raise K8sTracingError(
                f"cannot listen to conntrack's events: {reason}. The agent needs CAP_NET_ADMIN in the node's network "
                "namespace (hostNetwork in Kubernetes), and the kernel nf_conntrack_netlink"
            )

    def fileno(self) -> int:
        """The socket, for select."""
        return int(self._lib.conntrack_fd(self._conntrack))

    def read(self) -> None:
        """Take in what is there, without waiting."""
        if self._lib.conntrack_read(self._conntrack) < 0:
            raise OSError(self._ffi.errno, os.strerror(self._ffi.errno))

    def feed(self, messages: bytes, received_ns: int) -> None:
        """Take in netlink messages that came another way."""
        if self._lib.conntrack_feed(self._conntrack, messages, len(messages), received_ns) < 0:
            raise MemoryError

    def take(self) -> bytes:
        """The flows told since the last call, as a block; empty if there are none."""
        flows = self._ffi.new("const struct flow **")
        count = self._lib.conntrack_take(self._conntrack, flows)
        if not count:
            return b""
        size = self._ffi.sizeof("struct flow")
        return write_block(bytes(self._ffi.buffer(flows[0], count * size)), self._names)

    @property
    def stats(self) -> ConntrackStats:
        """The counters as they are now."""
        stats: Any = self._ffi.new("struct conntrack_stats *")
        self._lib.conntrack_get_stats(self._conntrack, stats)
        return ConntrackStats(*(getattr(stats, name) for name in ConntrackStats.__slots__))

    def close(self) -> None:
        """Stop listening."""
        self._lib.conntrack_free(self._conntrack)
        self._conntrack = self._ffi.NULL

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def switch_on() -> list[str]:
    """Let the kernel make events, and stamp them.

    Returns:
        What could not be switched on, and what that means.
    """
    problems = []
    for path, meaning in (
        (_EVENTS, "connections to Services are not seen"),
        (_TIMESTAMPS, "their times are those at which events were received, some 0.1 ms late"),
    ):
        try:
            if path.read_text().strip() == "0":
                path.write_text("1")
        except OSError as error:
            problems.append(f"{path}: {error.strerror}; {meaning}")
    return problems


def write_block(flows: bytes, names: Names) -> bytes:
    """Put flows, and the names of what occurs in them, into a block."""
    services, endpoints = set(), set()
    for virtual_ip, endpoint, virtual_port, endpoint_port in _PLACES.iter_unpack(flows):
        services.add((virtual_ip, virtual_port))
        endpoints.add((endpoint, endpoint_port))
    said: dict[str, Any] = {"services": [], "endpoints": []}
    for address, port in services:
        service = names.service(_text(address), port)
        if service is not None:
            said["services"].append([address.hex(), port, *service])
    for address, port in endpoints:
        attributes = names.endpoint(_text(address), port)
        if attributes:
            said["endpoints"].append([address.hex(), port, attributes])
    return MAGIC + json.dumps(said, separators=(",", ":")).encode() + b"\n" + flows


@lru_cache(maxsize=65536)
def _text(address: bytes) -> str:
    parsed = ipaddress.IPv6Address(address)
    return str(parsed.ipv4_mapped or parsed)


@dataclass(frozen=True, slots=True)
class JoinStats:
    """What was joined; the fields are those of `struct join_stats`, where each is explained."""

    flows: int
    joined: int
    failed: int
    reused: int
    ambiguous: int
    unverified: int
    evicted: int
    malformed: int
    open: int


class Join:
    """Joins flows with the spans that pass through it; use it from one thread at a time.

    Args:
        max_flows: How many are remembered; the oldest go, counted.
    """

    def __init__(self, *, max_flows: int = MAX_FLOWS) -> None:
        self._known: set[str] = set()
        self._ffi, self._lib = load("dataplane")
        self._join = self._lib.join_new(max_flows)
        if not self._join:
            raise MemoryError

    def take_block(self, block: bytes) -> None:
        """Take in a block of flows.

        Raises:
            K8sTracingError: It is none.
        """
        header, newline, rest = block.removeprefix(MAGIC).partition(b"\n")
        size = self._ffi.sizeof("struct flow")
        if not block.startswith(MAGIC) or not newline or len(rest) % size:
            raise K8sTracingError("not a block of flows, or one of another version")
        try:
            said = json.loads(header)
            for address, port, *service in said["services"]:
                self._name_service(address, port, Service(*service))
            for address, port, attributes in said["endpoints"]:
                self._name_endpoint(address, port, attributes)
        except (ValueError, TypeError, KeyError) as error:
            raise K8sTracingError(f"the names in a block of flows are broken: {error}") from error
        flows = self._ffi.from_buffer("struct flow[]", rest)
        self._check(self._lib.join_flows(self._join, flows, len(rest) // size))

    def pass_on(self, body: bytes) -> tuple[bytes, int]:
        """Add to an `ExportTraceServiceRequest` what was found.

        Returns:
            The request, and how many spans were added.
        """
        result: Any = self._ffi.new("struct join_bytes *")
        given = self._ffi.from_buffer(body)
        self._check(self._lib.join_request(self._join, given, len(body), result))
        if result.bytes == given:
            return body, 0
        return bytes(self._ffi.buffer(result.bytes, result.size)), result.spans

    def flush(self) -> tuple[bytes, int]:
        """The spans that no request has taken along, as a request; empty if there are none."""
        result: Any = self._ffi.new("struct join_bytes *")
        self._check(self._lib.join_flush(self._join, result))
        return bytes(self._ffi.buffer(result.bytes, result.size)), result.spans

    @property
    def stats(self) -> JoinStats:
        """The counters as they are now."""
        stats: Any = self._ffi.new("struct join_stats *")
        self._lib.join_get_stats(self._join, stats)
        return JoinStats(*(getattr(stats, name) for name in JoinStats.__slots__))

    def close(self) -> None:
        """Free everything."""
        self._lib.join_free(self._join)
        self._join = self._ffi.NULL

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _name_service(self, address: str, port: int, service: Service) -> None:
        if not self._is_new(f"{address} {port} {service}"):
            return
        resource = resource_fields(service.resource)
        fields = span_fields(service.name, service.attributes)
        attributes = span_fields("", service.of_requests)
        self._check(
            self._lib.join_service(
                self._join,
                bytes.fromhex(address),
                port,
                resource,
                len(resource),
                fields,
                len(fields),
                attributes,
                len(attributes),
            )
        )

    def _name_endpoint(self, address: str, port: int, attributes: dict[str, Any]) -> None:
        if not self._is_new(f"{address} {port} {attributes}"):
            return
        fields = span_fields("", attributes)
        self._check(
            self._lib.join_endpoint(self._join, bytes.fromhex(address), port, fields, len(fields))
        )

    def _is_new(self, said: str) -> bool:
        """Is it not what was said last? Names are repeated in each block."""
        if said in self._known:
            return False
        if len(self._known) > 100_000:
            self._known.clear()
        self._known.add(said)
        return True

    def _check(self, status: int) -> None:
        if status < 0:
            raise MemoryError
