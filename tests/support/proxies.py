"""Real proxies in front of an upstream that remembers what it was asked."""

from __future__ import annotations

import http.server
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from k8s_tracing.dataplane.ingress import haproxy, nginx
from tests.support.ports import free_ports
from tests.support.wait import wait_for


@dataclass(frozen=True)
class Seen:
    """A request as the upstream saw it."""

    path: str
    traceparent: str | None
    tracestate: str | None
    peer: tuple[str, int]
    start_ns: int
    end_ns: int


class Upstream(http.server.ThreadingHTTPServer):
    """Answers at once; /slow after 50 ms, /hang after 2 s, /status/500 with that status."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Proxies reset connections of theirs: that is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_GET(self) -> None:
        start_ns = time.time_ns()
        time.sleep({"/slow": 0.05, "/hang": 2.0}.get(self.path.partition("?")[0], 0.0))
        headers = self.headers
        status = int(self.path.removeprefix("/status/")) if "/status/" in self.path else 200
        self.server.seen.append(
            Seen(
                self.path,
                headers.get("traceparent"),
                headers.get("tracestate"),
                self.client_address,
                start_ns,
                time.time_ns(),
            )
        )
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def upstream() -> Iterator[Upstream]:
    """An upstream, serving."""
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Proxy:
    """A running proxy.

    Attributes:
        url: Where it takes requests: /dead goes to a port where nobody listens, /retried to that one first, /single to
            an upstream that takes one request at a time, everything else to the upstream.
        config: Its configuration.
    """

    kind: str
    port: int
    config: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def _here(command: list[str]) -> list[str]:
    return command


@contextmanager
def running(
    kind: str,
    live: str,
    log_to: str,
    *,
    place: Callable[[list[str]], list[str]] = _here,
    listens_there: Callable[[int], bool] | None = None,
) -> Iterator[Proxy]:
    """Start HAProxy or nginx with our lines in its configuration, or Envoy with what our page says.

    Args:
        live: The upstream's address and port.
        log_to: Where the receiver of log lines listens; for Envoy, that of OTLP over HTTP.
        place: Makes of its command one that runs elsewhere, such as in a network namespace.
        listens_there: Does it listen there, on that port?
    """
    listens_there = listens_there or listens
    port, dead = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="k8st-") as name:
        folder = Path(name)
        make = {"haproxy": _haproxy, "nginx": _nginx, "envoy": _envoy}[kind]
        config, command = make(folder, port, live, dead, log_to)
        if shutil.which(command[0]) is None:
            raise FileNotFoundError(f"{kind} is not installed: run `make setup`")
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(place(command), stdout=log, stderr=log)
        try:
            wait_for(
                f"{kind} listens; it says {(folder / 'log').read_text()!r}",
                lambda: listens_there(port) or process.poll() is not None,
            )
            assert process.poll() is None, (folder / "log").read_text()
            yield Proxy(kind, port, config)
        finally:
            process.terminate()
            process.wait(10)


def listens(port: int) -> bool:
    """Does somebody listen on that port of the loopback?"""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _haproxy(folder: Path, port: int, live: str, dead: int, log_to: str) -> tuple[Path, list[str]]:
    config = folder / "haproxy.cfg"
    config.write_text(
        f"""global
    maxconn 500
defaults
    mode http
    timeout client 5s
    timeout server 1s
    timeout connect 1s
    timeout queue 3s
    retries 1
frontend ingress
    bind 127.0.0.1:{port}
{haproxy.snippet("ingress", log_to)}
    use_backend dead if {{ path /dead }}
    use_backend retried if {{ path /retried }}
    use_backend single if {{ path /single }} or {{ path /slow }}
    default_backend live
backend live
    server live {live}
backend dead
    server dead 127.0.0.1:{dead}
backend retried
    balance first
    option redispatch 1
    server dead 127.0.0.1:{dead}
    server live {live}
backend single
    server live {live} maxconn 1
"""
    )
    return config, ["haproxy", "-db", "-f", str(config)]


def _envoy(folder: Path, port: int, live: str, dead: int, log_to: str) -> tuple[Path, list[str]]:
    page = Path(__file__).parents[2] / "docs/how-to/trace-the-ingress.md"
    [text] = [
        block
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
        if "static_resources" in block
    ]
    for documented, ours in (
        ("127.0.0.1, port_value: 10000", f"127.0.0.1, port_value: {port}"),
        ("127.0.0.1, port_value: 8080", live.replace(":", ", port_value: ")),
        ("127.0.0.1, port_value: 4318", log_to.replace(":", ", port_value: ")),
    ):
        assert text.count(documented) == 1
        text = text.replace(documented, ours)
    config = folder / "envoy.yaml"
    config.write_text(text)
    envoy = str(Path(sys.executable).with_name("envoy"))
    options = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    return config, [envoy, "-c", str(config), *options]


def _nginx(folder: Path, port: int, live: str, dead: int, log_to: str) -> tuple[Path, list[str]]:
    config = folder / "nginx.conf"
    http_lines, location = nginx.snippets("ingress", log_to)
    (folder / "k8st-http.conf").write_text(http_lines)
    (folder / "k8st-location.conf").write_text(location)
    temporary = "\n".join(
        f"    {kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    include = f"include {folder}/k8st-location.conf; proxy_http_version 1.1;"
    config.write_text(
        f"""worker_processes 1;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
{temporary}
    include {folder}/k8st-http.conf;
    proxy_read_timeout 1s;
    upstream live {{ server {live}; keepalive 8; }}
    upstream retried {{ server 127.0.0.1:{dead} max_fails=0; server {live} backup; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://live; proxy_set_header Connection ""; {include} }}
        location = /dead {{ proxy_pass http://127.0.0.1:{dead}; {include} }}
        location = /retried {{ proxy_pass http://retried; {include} }}
    }}
}}
"""
    )
    return config, ["nginx", "-c", str(config), "-e", str(folder / "error.log")]
