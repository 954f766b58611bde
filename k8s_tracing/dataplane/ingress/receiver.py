# SPDX-License-Identifier: Apache-2.0
"""Takes the log lines of ingress proxies from the network and makes spans of them.

Syslog over UDP, TCP (RFC 6587: octet counting, or a line each) or a unix datagram socket, one thread for all. Whoever
can reach a socket can send anything: what is not a line of ours is counted by its reason and dropped.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from k8s_tracing.closing import Closing
from k8s_tracing.dataplane.ingress import exchange, haproxy, line, nginx
from k8s_tracing.record import SpanRecord

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
BATCH_SPANS = 512
BATCH_S = 0.25  # what came through the proxy on one connection is joined by the first that is known
BUFFER_BYTES = 8 << 20
LAST_S = 5.0  # in which what has arrived is still read after the end

# How much is taken from one socket before the others get their turn.
_MAX_DATAGRAMS = 256
_READ_BYTES = 256 * 1024
_SO_RXQ_OVFL = 40  # Linux: a running count of what the socket's full buffer has cost
_SO_RCVBUFFORCE = 33


@dataclass
class Counts:
    """What came in since the start.

    Attributes:
        exchanges: Requests of which spans were made.
        unsampled: Requests whose trace nobody wanted.
        refused: Lines that were dropped, by reason.
        overflowed: Datagrams that the kernel dropped because this process did not keep up.
    """

    exchanges: int = 0
    unsampled: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    overflowed: int = 0


class IngressReceiver(Closing):
    """Listens from the moment it is made; `run` it in a thread, or `start` it.

    Args:
        take: Gets the spans, from this receiver's thread; `batch_s` after they came in at the latest.
        udp: Address and port for datagrams; port 0 for any.
        tcp: Address and port for streams.
        unix: Path of a datagram socket. A proxy that is faster than we are is made to lose lines by the kernel after
            net.unix.max_dgram_qlen of them, 10 on most machines; UDP has megabytes.
        batch_s: How long spans wait for others at most.

    Raises:
        OSError: It cannot listen there.
    """

    def __init__(
        self,
        take: Callable[[Sequence[SpanRecord]], None],
        *,
        udp: tuple[str, int] | None = None,
        tcp: tuple[str, int] | None = None,
        unix: Path | None = None,
        batch_s: float = BATCH_S,
    ) -> None:
        self.counts = Counts()
        self.addresses: list[str] = []
        self._take = take
        self._batch_s = batch_s
        self._spans: list[SpanRecord] = []
        self._since = time.monotonic()
        self._streams: dict[socket.socket, bytearray] = {}
        self._overflows: dict[socket.socket, int] = {}
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._unix: Path | None = None
        try:
            if udp:
                self._listen_datagrams(_bound(udp, socket.SOCK_DGRAM), "udp")
            if tcp:
                server = _bound(tcp, socket.SOCK_STREAM)
                server.listen(16)
                self._register(server, self._accept)
                self.addresses.append(f"tcp://{_name(server)}")
            if unix:
                self._listen_datagrams(self._bound_unix(unix), "unix")
        except OSError:
            self.close()
            raise

    def start(self) -> None:
        """Run in a thread of its own."""
        self._thread = threading.Thread(target=self.run, name="ingress", daemon=True)
        self._thread.start()

    def run(self) -> None:
        """Receive until it is closed."""
        deadline_s: float | None = None
        while deadline_s is None or time.monotonic() < deadline_s:
            if self._stopping and deadline_s is None:
                deadline_s = time.monotonic() + LAST_S
            waits_s = self._batch_s / 2 if deadline_s is None else 0
            ready = [key for key, _ in self._selector.select(waits_s) if key.data is not None]
            for key in ready:
                key.data(key.fileobj)
            if len(self._spans) >= BATCH_SPANS or time.monotonic() - self._since >= self._batch_s:
                self.flush()
            if deadline_s is not None and not ready:
                break
        self.flush()

    def stop(self) -> None:
        """End `run`; what has arrived by then is handed on first."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._wake.send(b"!")
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """Stop, and listen no longer."""
        self.stop()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()
        self._wake.close()
        if self._unix is not None:
            self._unix.unlink(missing_ok=True)

    def receive(self, text: bytes, received_ns: int) -> None:
        """Take one log line in, whatever it is."""
        try:
            fields = line.parse(text)
            proxy = fields.get("proxy")
            if proxy == "haproxy":
                seen = haproxy.parse(fields)
            elif proxy == "nginx":
                seen = nginx.parse(fields, received_ns)
            else:
                raise line.LineError("not of a proxy that is known")
            line.check_times(seen.start_ns, seen.end_ns, received_ns)
        except line.LineError as error:
            self._refuse(str(error))
            return
        if not seen.sampled:
            self.counts.unsampled += 1
            return
        self.counts.exchanges += 1
        self._spans += exchange.spans(seen)

    def _refuse(self, reason: str) -> None:
        self.counts.refused[reason] += 1
        if self.counts.refused[reason] == 1:
            log.warning("ingress: a log line is dropped: %s; such lines are counted", reason)

    def flush(self) -> None:
        """Hand on what spans there are."""
        self._since = time.monotonic()
        if self._spans:
            spans, self._spans = self._spans, []
            self._take(spans)

    def _register(
        self, listener: socket.socket, handle: Callable[[socket.socket], None] | None
    ) -> None:
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, handle)

    def _listen_datagrams(self, receiver: socket.socket, kind: str) -> None:
        try:
            receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
        except PermissionError:  # without CAP_NET_ADMIN: as much as the machine allows
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        receiver.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        self._register(receiver, self._read_datagrams)
        self.addresses.append(f"{kind}://{_name(receiver)}")

    def _bound_unix(self, path: Path) -> socket.socket:
        path.unlink(missing_ok=True)
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.bind(str(path))
        self._unix = path
        path.chmod(0o666)  # proxies run as users of their own; what they send is not trusted
        return receiver

    def _read_datagrams(self, receiver: socket.socket) -> None:
        for _ in range(_MAX_DATAGRAMS):
            try:
                text, ancillary, _flags, _from = receiver.recvmsg(line.MAX_LINE_BYTES + 1, 64)
            except BlockingIOError:
                return
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == _SO_RXQ_OVFL:
                    (total,) = struct.unpack("I", data)
                    self.counts.overflowed += (total - self._overflows.get(receiver, 0)) % 2**32
                    self._overflows[receiver] = total
            self.receive(text, time.time_ns())

    def _accept(self, server: socket.socket) -> None:
        try:
            connection, _ = server.accept()
        except OSError:  # it went away before we looked
            return
        if len(self._streams) >= MAX_CONNECTIONS:
            self._refuse("too many connections")
            connection.close()
            return
        self._streams[connection] = bytearray()
        self._register(connection, self._read_stream)

    def _read_stream(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        buffer = self._streams[connection]
        buffer += data
        received_ns = time.time_ns()
        try:
            for text in line.take_frames(buffer):
                self.receive(text, received_ns)
        except line.LineError as error:
            self._refuse(str(error))
            data = b""
        if not data:
            if buffer:
                self._refuse("cut off by the end of its connection")
            del self._streams[connection]
            self._selector.unregister(connection)
            connection.close()


def _bound(address: tuple[str, int], kind: socket.SocketKind) -> socket.socket:
    family, _, _, _, target = socket.getaddrinfo(*address, type=kind)[0]
    bound = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(target)
    except OSError:
        bound.close()
        raise
    return bound


def _name(bound: socket.socket) -> str:
    name = bound.getsockname()
    if isinstance(name, str):
        return os.fsdecode(name)
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{host}:{name[1]}"
