"""TCP ports of the loopback interface that nothing listens on."""

import contextlib
import socket


def free_ports(count: int) -> list[int]:
    """Return `count` different free ports of 127.0.0.1.

    They are held open together, so that they differ, and let go before the return: another
    program can take one before the caller does. A caller whose program fails to bind tries again.
    """
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def free_port() -> int:
    """Return one free port of 127.0.0.1."""
    return free_ports(1)[0]
