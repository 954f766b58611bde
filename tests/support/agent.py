"""`k8s-tracing agent` as a program, and a receiver that can be down."""

import gzip
import http.server
import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from k8s_tracing.otlp import parse_request, read_json_lines
from k8s_tracing.record import SpanRecord
from tests.support.wait import wait_for

# Nothing of these tests takes this long; a machine with other work may.
PATIENCE_S = 60.0


class RunningAgent:
    """`k8s-tracing agent --private`, from its readiness on."""

    def __init__(self, private: Path, *arguments: str) -> None:
        self.private = private
        self.process = subprocess.Popen(
            [sys.executable, "-m", "k8s_tracing", "agent", "--private", private, *arguments],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log = ""
        wait_for("the agent is ready", self._is_ready, PATIENCE_S)
        self.info: dict[str, Any] = json.loads((private / "env.json").read_text())
        self.env: dict[str, str] = self.info["environment"]

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()[1]
        path = self.private / "env.json"
        # A predecessor that was killed left its own.
        return path.exists() and json.loads(path.read_text())["pid"] == self.process.pid

    @property
    def spool(self) -> Path:
        return Path(self.info["spool"])

    def batches(self) -> list[Path]:
        """What waits for a receiver."""
        return list(self.spool.glob("outbox/*-*"))

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.log = self.process.communicate(timeout=PATIENCE_S)[1]
        return self.process.returncode


@contextmanager
def agent(private: Path, *arguments: str) -> Iterator[RunningAgent]:
    running = RunningAgent(private, *arguments)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate()


class Receiver:
    """Counts the spans that it is sent by HTTP; `down` answers 503 instead."""

    def __init__(self, port: int = 0) -> None:
        self.seen: Counter[int] = Counter()
        self.spans: list[SpanRecord] = []
        self.down = False
        self.refused = 0
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver.down:
                    receiver.refused += 1
                else:
                    if self.headers.get("Content-Encoding") == "gzip":
                        body = gzip.decompress(body)
                    spans = parse_request(body)
                    receiver.spans += spans
                    receiver.seen.update(int(span.span_id, 16) for span in spans)
                self.send_response(503 if receiver.down else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Receiver":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def ids_in(path: Path) -> list[int]:
    """The ids of the spans in a file of OTLP JSON lines."""
    return sorted(int(span.span_id, 16) for span in read_json_lines(path))
