"""An OTLP receiver that is not Jaeger and not ours: rotel, a collector in Rust, takes and forwards our requests."""

import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import rotel

from k8s_tracing.agent.endpoint import from_texts
from k8s_tracing.agent.export import Exporter, open_exporter
from k8s_tracing.agent.otlp_answer import RetryableError
from k8s_tracing.otlp import read_json_lines, to_request
from k8s_tracing.record import SpanRecord
from tests.support.agent import PATIENCE_S, Receiver
from tests.support.ports import free_ports
from tests.support.wait import wait_for

HOTROD = Path(__file__).parents[1] / "golden/report/hotrod.jsonl"
BINARY = Path(rotel.__file__).parent / "rotel-agent"


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[tuple[list[str], Receiver]]:
    """Where rotel receives, by HTTP and by gRPC, and who gets what it sends on."""
    with Receiver() as receiver:
        grpc_port, http_port = free_ports(2)
        command = [BINARY, "start", "--exporter", "otlp", "--otlp-exporter-protocol", "http"]
        command += ["--otlp-exporter-endpoint", receiver.url, "--batch-timeout", "100ms"]
        command += ["--otlp-grpc-endpoint", f"127.0.0.1:{grpc_port}"]
        command += ["--otlp-http-endpoint", f"127.0.0.1:{http_port}"]
        command += ["--pid-file", tmp_path / "pid", "--log-file", tmp_path / "log"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield [f"http://127.0.0.1:{http_port}", f"grpc://127.0.0.1:{grpc_port}"], receiver
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_every_span_comes_through_as_it_was(
    chain: tuple[list[str], Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    urls, receiver = chain
    spans = {span.span_id: span for span in read_json_lines(HOTROD)}
    for url in urls:
        (endpoint,) = from_texts([url], {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"})
        exporter = open_exporter(endpoint)
        try:
            wait_for(
                "rotel takes spans", partial(_send, exporter, list(spans.values())), PATIENCE_S
            )
        finally:
            exporter.close()
        wait_for("all are sent on", lambda: len(receiver.spans) >= len(spans), PATIENCE_S)
        got = {span.span_id: span for span in receiver.spans}
        assert len(receiver.spans) == len(spans)
        assert got == spans
        receiver.spans.clear()


def _send(exporter: Exporter, spans: list[SpanRecord]) -> bool:
    try:
        return exporter.send(to_request(spans), 10.0) == 0
    except RetryableError:
        return False
