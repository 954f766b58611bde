# SPDX-License-Identifier: Apache-2.0
"""How the agent is doing, over HTTP: /healthz, /readyz and /metrics.

/healthz says that the loop turns: restart the agent if it does not. /readyz says that the session records, so that
what applications do now is not lost. /metrics is for Prometheus.

Whoever connects is not trusted to be quick: a connection has a few seconds, and only so many are served at a time.
"""

from __future__ import annotations

import http.server
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from k8s_tracing.errors import AgentError

log = logging.getLogger(__name__)

# A turn of the loop takes milliseconds, but a chunk from a long time without agent takes a while to read.
STALLED_S = 60.0

_CLIENT_TIMEOUT_S = 5.0
_MAX_CLIENTS = 16

Check = Callable[[], str]
"""What is wrong, in a sentence; empty if nothing is."""


class Heartbeat:
    """Notes that a loop turns."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()

    def beat(self) -> None:
        """It turned."""
        self._last_s = time.monotonic()

    def check(self) -> str:
        """Say if it does not."""
        silent_s = time.monotonic() - self._last_s
        return (
            f"the agent's loop has not turned for {silent_s:.0f} s" if silent_s > STALLED_S else ""
        )


class HealthServer:
    """Serves until the `with` block ends.

    Args:
        listen: HOST:PORT; port 0 takes one that is free.
        checks: What is asked at a path such as `/healthz`.
        metrics: Makes the answer to /metrics and its content type, from the request's Accept header.

    Raises:
        AgentError: It cannot listen there.
    """

    def __init__(
        self,
        listen: str,
        checks: Mapping[str, Check],
        metrics: Callable[[str], tuple[bytes, str]],
    ) -> None:
        host, colon, port = listen.rpartition(":")
        if not colon or not port.isdigit() or int(port) > 0xFFFF:
            raise AgentError(f"--listen {listen!r} is not HOST:PORT, such as 127.0.0.1:4319")
        handler = type("Handler", (_Handler,), {"checks": checks, "metrics": staticmethod(metrics)})
        try:
            self._server = _Server(host.strip("[]"), int(port), handler)
        except OSError as error:
            raise AgentError(
                f"cannot listen on {listen}: {error.strerror or error}. Choose another address with --listen, "
                "or `--listen none`"
            ) from error
        self.address = f"{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="health"
        )

    def __enter__(self) -> HealthServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that is slow does not hold up our end

    def __init__(self, host: str, port: int, handler: type) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._places = threading.BoundedSemaphore(_MAX_CLIENTS)
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        # Not HTTPServer's, which looks the host's name up.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # The time-out of a socket begins anew with every byte that arrives: this ends a connection that drips.
        limit = threading.Timer(_CLIENT_TIMEOUT_S, _shut, (request,))
        limit.daemon = True
        limit.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            limit.cancel()
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a client of the health server: error", exc_info=True)


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        log.debug("a client had gone already")


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request a connection."""

    timeout = _CLIENT_TIMEOUT_S
    server_version = "k8s-tracing-agent"
    sys_version = ""
    checks: Mapping[str, Check]
    metrics: Callable[[str], tuple[bytes, str]]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            body, kind = self.metrics(self.headers.get("Accept", ""))
            self._answer(200, body, kind)
        elif path in self.checks:
            wrong = self.checks[path]()
            self._answer(503 if wrong else 200, f"{wrong or 'ok'}\n".encode())
        else:
            known = ", ".join([*self.checks, "/metrics"])
            self._answer(404, f"here are {known}\n".encode())

    do_HEAD = do_GET

    def _answer(self, code: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        log.debug("health: " + format, *args)
