# SPDX-License-Identifier: Apache-2.0
"""Ports to listen on, and who may ask there by which name."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

from k8s_tracing.errors import ListenError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Listen until the end of the block: a port is open before anybody is told its number.

    Raises:
        ListenError: The port is taken, or the host is none of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ListenError(f"cannot listen on {host}: {error}") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(256)
        except OSError as error:
            raise ListenError(
                f"cannot listen on {host} port {port}: {error.strerror}; "
                "another port can be named, 0 for any that is free"
            ) from error
        yield listener


def url(host: str, port: int) -> str:
    """The address as others write it; a host that means all of them is shown as this machine."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Is this the name or the address of this machine's loopback?"""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def guarded(app: ASGIApp, listens_on: str) -> ASGIApp:
    """Where an application listens on loopback, refuse requests for other hosts.

    A page of another site can have its own name resolve to 127.0.0.1, and so read, or write, what is only for this
    machine. The Host header then is that name.
    """
    if not is_loopback(listens_on):
        return app

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _is_for(scope, listens_on):
            refusal = PlainTextResponse(
                "403: this port answers to the names of this machine's loopback only, because it listens there only\n",
                403,
            )
            await refusal(scope, receive, send)
            return
        await app(scope, receive, send)

    return guard


def _is_for(scope: Scope, listens_on: str) -> bool:
    values = [value for name, value in scope["headers"] if name == b"host"]
    if len(values) != 1:
        return False
    host = values[0].decode("latin-1").lower()
    if not host.endswith("]"):
        name, separator, port = host.rpartition(":")
        host = name if separator and port.isdecimal() else host
    return host == listens_on or is_loopback(host)
