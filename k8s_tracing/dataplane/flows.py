# SPDX-License-Identifier: Apache-2.0
"""Connections to Services: heard from conntrack, and joined with spans; the binding of the C that does both."""

from __future__ import annotations

import ipaddress
import os
import select
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from k8s_tracing.closing import Closing
from k8s_tracing.dataplane.backends import Told
from k8s_tracing.dataplane.names import Names, of_endpoint
from k8s_tracing.errors import K8sTracingError
from k8s_tracing.libraries import load
from k8s_tracing.otlp import resource_fields, span_fields

BUFFER_BYTES = 16 << 20
MAX_FLOWS = 256 * 1024

_MAX_NAMED = 100_000

#: Of a struct flow: virtual_ip, endpoint, virtual_port, endpoint_port.
_PLACES = struct.Struct("=16x16s16s16x2xHH2x40x")


@dataclass(frozen=True, slots=True)
class ConntrackStats:
    """What was heard; the fields are those of `struct conntrack_stats`, where each is explained."""

    messages: int
    overflows: int
    flows: int
    incomplete: int
    evicted: int
    malformed: int
    in_zones: int
    open: int


class Conntrack(Closing):
    """The conntrack events of the network namespace of the thread that makes it.

    Args:
        buffer_bytes: How much the kernel may hold back for us; beyond the machine's limit with CAP_NET_ADMIN only.
        listens: False: there is no socket, messages come by `feed`.

    Raises:
        K8sTracingError: The kernel does not let us listen.
    """

    def __init__(self, *, buffer_bytes: int = BUFFER_BYTES, listens: bool = True) -> None:
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

    def drain(self) -> None:
        """Take in all that is there: a read takes in only so many messages."""
        self.read()
        while select.select([self], [], [], 0)[0]:
            self.read()

    def feed(self, messages: bytes, received_ns: int) -> None:
        """Take in netlink messages that came another way."""
        if self._lib.conntrack_feed(self._conntrack, messages, len(messages), received_ns) < 0:
            raise MemoryError

    def take(self) -> bytes:
        """The flows told since the last call, one `struct flow` after the other."""
        flows = self._ffi.new("const struct flow **")
        count = self._lib.conntrack_take(self._conntrack, flows)
        size = self._ffi.sizeof("struct flow")
        return bytes(self._ffi.buffer(flows[0], count * size)) if count else b""

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
    unobserved: int
    questions: int
    untold: int
    unanswered: int
    evicted: int
    malformed: int
    open: int


class Join(Closing):
    """Joins flows with the spans that pass through it; use it from one thread at a time.

    Args:
        names: What Services are called.
        max_flows: How many are remembered; the oldest go, counted.
    """

    def __init__(self, names: Names, *, max_flows: int = MAX_FLOWS) -> None:
        self._names = names
        self._named: dict[tuple[bytes, int], object] = {}
        self._changes = names.backends.follow()
        self._ffi, self._lib = load("dataplane")
        self._join = self._lib.join_new(max_flows)
        if not self._join:
            raise MemoryError

    def add(self, flows: bytes) -> None:
        """Take in flows, as `Conntrack.take` returns them."""
        for virtual_ip, endpoint, virtual_port, endpoint_port in _PLACES.iter_unpack(flows):
            self._name_service(virtual_ip, virtual_port)
            self._name_endpoint(endpoint, endpoint_port)
        array = self._ffi.from_buffer("struct flow[]", flows)
        self._check(self._lib.join_flows(self._join, array, len(array)))

    def ask(self, socket: int, kept_ns: int, *, is_stamped: bool) -> None:
        """Ask conntrack for connections to a Service that no flow tells of; its earlier answers are forgotten.

        Args:
            socket: Of netlink, in the namespace of the connections; -1: ask no longer.
            kept_ns: So long a connection is known after its end; 0: its silence means nothing.
            is_stamped: It says when a connection began, of those that are no older than the agent.
        """
        self._lib.join_ask(self._join, socket, kept_ns, is_stamped)

    def pass_on(self, body: bytes, now_ns: int = 0) -> tuple[bytes, int]:
        """Add to an `ExportTraceServiceRequest` what was found.

        Args:
            body: The request.
            now_ns: The time, if its spans are of this node's processes; else its conntrack is not asked for them.

        Returns:
            The request, and how many spans were added.
        """
        for told in self._changes.take():
            self._name_backends(told)
        result: Any = self._ffi.new("struct join_bytes *")
        given = self._ffi.from_buffer(body)
        self._check(self._lib.join_request(self._join, given, len(body), now_ns, result))
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

    def _name_service(self, address: bytes, port: int) -> None:
        service = self._names.service(_text(address), port)
        if service is None or not self._is_new((address, port), service):
            return
        resource = resource_fields(service.resource)
        fields = span_fields(service.name, service.attributes)
        attributes = span_fields("", service.of_requests)
        self._check(
            self._lib.join_service(
                self._join,
                address,
                port,
                resource,
                len(resource),
                fields,
                len(fields),
                attributes,
                len(attributes),
            )
        )

    def _name_endpoint(self, address: bytes, port: int) -> None:
        endpoint = self._names.backends.endpoint((address, port))
        if endpoint is None or not self._is_new((address, port), endpoint):
            return
        fields = span_fields("", endpoint)
        self._check(self._lib.join_endpoint(self._join, address, port, fields, len(fields)))

    def _name_backends(self, told: Told) -> None:
        self._lib.join_forget_backends(self._join, *told.place)
        for found, is_only_one in told.backends:
            of_service = span_fields("", found.of_requests)
            of_the_endpoint = span_fields("", of_endpoint(found))
            # What a struct points to is kept by whoever made it.
            texts = [
                self._ffi.new("char[]", text.encode()) for text in (found.name, found.namespace)
            ]
            blocks = [
                self._ffi.from_buffer("uint8_t[]", each)
                for each in (found.addresses, of_service, of_the_endpoint)
            ]
            backend = {
                "service": texts[0],
                "in_namespace": texts[1],
                "virtual_ips": blocks[0],
                "virtual_ip_count": len(found.addresses) // 16,
                "port": found.port,
                "is_only_one": is_only_one,
                "service_fields": blocks[1],
                "service_fields_size": len(of_service),
                "endpoint_fields": blocks[2],
                "endpoint_fields_size": len(of_the_endpoint),
            }
            said: Any = self._ffi.new("struct backend *", backend)
            self._check(self._lib.join_backend(self._join, *told.place, said))

    def _is_new(self, place: tuple[bytes, int], said: object) -> bool:
        """Is it another one than the last time? Names are asked for with every flow."""
        if self._named.get(place) is said:
            return False
        if len(self._named) >= _MAX_NAMED:
            self._named.clear()
        self._named[place] = said
        return True

    def _check(self, status: int) -> None:
        if status < 0:
            raise MemoryError
