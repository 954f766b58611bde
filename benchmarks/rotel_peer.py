# SPDX-License-Identifier: Apache-2.0
"""rotel, an OpenTelemetry collector in Rust, as a peer: what it costs to receive OTLP and to send it on."""

from __future__ import annotations

import gzip
import http.client
import http.server
import os
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.ports import free_ports
from tests.support.wait import wait_for

PATIENCE_S = 120.0


class Sink:
    """Takes OTLP by HTTP and counts the spans; used as a context manager."""

    def __init__(self) -> None:
        self.spans = 0
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                request = ExportTraceServiceRequest.FromString(body)
                scopes = [each for spans in request.resource_spans for each in spans.scope_spans]
                sink.spans += sum(len(scope.spans) for scope in scopes)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Sink:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def forward_cpu_s(bodies: Sequence[bytes], spans: int) -> float:
    """Return the CPU time of a rotel that receives these requests by HTTP and sends all on by HTTP, gzipped.

    Its option `--otlp-exporter-compression none` has no effect over HTTP.
    """
    import rotel

    binary = Path(rotel.__file__).parent / "rotel-agent"
    grpc_port, port = free_ports(2)
    with Sink() as sink, tempfile.TemporaryDirectory(prefix="k8st-") as folder:
        words = [str(binary), "start", "--exporter", "otlp", "--otlp-exporter-protocol", "http"]
        words += ["--otlp-exporter-endpoint", sink.url]
        words += ["--otlp-grpc-endpoint", f"127.0.0.1:{grpc_port}"]
        words += ["--otlp-http-endpoint", f"127.0.0.1:{port}"]
        # Of a request with more spans than a batch may have, which are 8192 otherwise, it loses some.
        words += ["--batch-max-size", "65536"]
        words += ["--pid-file", f"{folder}/pid", "--log-file", f"{folder}/log"]
        env = os.environ | {"NO_PROXY": "*", "no_proxy": "*"}
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(words, stdout=quiet, stderr=quiet, env=env)
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            wait_for("rotel", lambda: _connects(connection), PATIENCE_S)
            for body in bodies:
                headers = {"Content-Type": "application/x-protobuf"}
                connection.request("POST", "/v1/traces", body, headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status != http.HTTPStatus.OK:
                    raise RuntimeError(f"rotel answers {answer.status}")
            wait_for("all spans", lambda: sink.spans >= spans, PATIENCE_S)
            connection.close()
            if sink.spans != spans:
                raise RuntimeError(f"rotel made {sink.spans} spans of {spans}")
        finally:
            process.terminate()
            _, _, usage = os.wait4(process.pid, 0)
            process.returncode = 0
    return usage.ru_utime + usage.ru_stime


def _connects(connection: http.client.HTTPConnection) -> bool:
    try:
        connection.connect()
    except OSError:
        return False
    return True
