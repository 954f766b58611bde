"""OTLP over HTTP and gRPC: exporters against receivers on loopback that answer as they are told."""

import gzip
import http.server
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from k8s_tracing.agent.endpoint import GRPC, HTTP, Endpoint
from k8s_tracing.agent.export import Delivery, open_exporter
from k8s_tracing.agent.otlp_answer import rejected_spans, retry_delay_s, status_message
from k8s_tracing.agent.otlp_grpc import METHOD
from k8s_tracing.agent.otlp_http import retry_after_s
from k8s_tracing.agent.stopping import Stop
from k8s_tracing.errors import ExportError
from tests.support.ports import free_port

REQUEST = ExportTraceServiceRequest(resource_spans=[{"schema_url": "x" * 100}]).SerializeToString()
PROTOBUF = {"Content-Type": "application/x-protobuf"}


def partial_success(rejected: int) -> bytes:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = rejected
    return answer.SerializeToString()


def status(message: str = "", delay_s: float | None = None) -> bytes:
    """An encoded google.rpc.Status: the messages of that package are not a dependency."""
    encoded = b"\x08\x08"  # code
    encoded += b"\x12" + bytes([len(message)]) + message.encode()
    if delay_s is not None:
        duration = Duration()
        duration.FromNanoseconds(int(delay_s * 1e9))
        value = duration.SerializeToString()
        info = b"\x0a" + bytes([len(value)]) + value
        detail = AnyMessage(type_url="type.googleapis.com/google.rpc.RetryInfo", value=info)
        packed = detail.SerializeToString()
        encoded += b"\x1a" + bytes([len(packed)]) + packed
    return encoded


@dataclass
class HttpReceiver:
    """Gives its answers one after the other, the last one again and again."""

    url: str = ""
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    state = HttpReceiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            state.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            state.headers.append(dict(self.headers))
            state.paths.append(self.path)
            code, headers, body = state.answers[0]
            if len(state.answers) > 1:
                del state.answers[0]
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        server.shutdown()
        thread.join()


@dataclass
class GrpcReceiver:
    """As HttpReceiver; an answer is bytes, or a status code with encoded details."""

    port: int = 0
    answers: list[bytes | tuple[grpc.StatusCode, bytes]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def grpc_receiver() -> Iterator[GrpcReceiver]:
    state = GrpcReceiver()

    def export(request: bytes, context: Any) -> bytes:
        state.bodies.append(request)
        state.metadata.append({item.key: item.value for item in context.invocation_metadata()})
        answer = state.answers[0]
        if len(state.answers) > 1:
            del state.answers[0]
        if isinstance(answer, bytes):
            return answer
        code, details = answer
        if details:
            context.set_trailing_metadata((("grpc-status-details-bin", details),))
        context.abort(code, "told to")
        raise AssertionError

    service, _, method = METHOD.lstrip("/").partition("/")
    handler = grpc.method_handlers_generic_handler(
        service, {method: grpc.unary_unary_rpc_method_handler(export)}
    )
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((handler,))
        state.port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield state
        server.stop(None).wait()


def http_delivery(receiver: HttpReceiver, stop: Stop, **more: Any) -> Delivery:
    return Delivery(open_exporter(Endpoint(HTTP, receiver.url, **more)), stop, jitter=lambda: 0.01)


def grpc_delivery(port: int, stop: Stop, **more: Any) -> Delivery:
    endpoint = Endpoint(GRPC, f"http://127.0.0.1:{port}", **more)
    return Delivery(open_exporter(endpoint), stop, jitter=lambda: 0.01)


def finish(delivery: Delivery) -> tuple[int, int]:
    delivery.exporter.close()
    return delivery.total.accepted, delivery.total.refused


def test_http_posts_the_request_as_it_is(receiver: HttpReceiver, stop: Stop) -> None:
    receiver.answers = [(200, PROTOBUF, b"")]
    delivery = http_delivery(receiver, stop, headers={"x-token": "t"})
    assert delivery.deliver(REQUEST, 3)
    assert finish(delivery) == (3, 0)
    assert receiver.bodies == [REQUEST]
    assert receiver.paths == ["/v1/traces"]
    assert receiver.headers[0]["Content-Type"] == "application/x-protobuf"
    assert receiver.headers[0]["x-token"] == "t"
    assert receiver.headers[0]["User-Agent"].startswith("k8s-tracing-agent/")


def test_http_compresses(receiver: HttpReceiver, stop: Stop) -> None:
    receiver.answers = [(200, {}, b"")]
    delivery = http_delivery(receiver, stop, gzip=True)
    assert delivery.deliver(REQUEST, 1)
    assert finish(delivery) == (1, 0)
    assert receiver.headers[0]["Content-Encoding"] == "gzip"
    assert gzip.decompress(receiver.bodies[0]) == REQUEST


@pytest.mark.parametrize("code", [429, 502, 503, 504])
def test_http_tries_again(code: int, receiver: HttpReceiver, stop: Stop) -> None:
    receiver.answers = [(code, {}, b""), (code, {"Retry-After": "0"}, b""), (200, {}, b"")]
    delivery = http_delivery(receiver, stop)
    assert delivery.deliver(REQUEST, 2)
    assert finish(delivery) == (2, 0)
    assert receiver.bodies == [REQUEST] * 3


def test_http_waits_as_long_as_it_is_asked_to(receiver: HttpReceiver, stop: Stop) -> None:
    receiver.answers = [(503, {"Retry-After": "1"}, b""), (200, {}, b"")]
    delivery = http_delivery(receiver, stop)
    start = time.monotonic()
    assert delivery.deliver(REQUEST, 1)
    assert time.monotonic() - start >= 1
    assert finish(delivery) == (1, 0)


@pytest.mark.parametrize("code", [302, 400, 401, 404, 413, 500])
def test_http_counts_what_is_refused(
    code: int, receiver: HttpReceiver, stop: Stop, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [(code, {**PROTOBUF, "Location": receiver.url}, status("no such tenant"))]
    delivery = http_delivery(receiver, stop)
    assert delivery.deliver(REQUEST, 2)
    assert delivery.deliver(REQUEST, 3)
    assert finish(delivery) == (0, 5)
    assert len(receiver.bodies) == 2
    assert caplog.text.count("no such tenant") == 1


@pytest.mark.parametrize("code", [200, 202])
def test_http_counts_partial_success(code: int, receiver: HttpReceiver, stop: Stop) -> None:
    receiver.answers = [(code, PROTOBUF, partial_success(2))]
    delivery = http_delivery(receiver, stop)
    assert delivery.deliver(REQUEST, 5)
    assert finish(delivery) == (3, 2)


def stop_at_once(stop: Stop) -> None:
    stop.request()
    stop.allow(0.0)


def test_nobody_listens(stop: Stop, caplog: pytest.LogCaptureFixture) -> None:
    endpoint = Endpoint(HTTP, f"http://127.0.0.1:{free_port()}/v1/traces")
    delivery = Delivery(open_exporter(endpoint), stop, jitter=lambda: 0.1)
    threading.Timer(0.5, stop_at_once, (stop,)).start()
    assert not delivery.deliver(REQUEST, 1)
    assert finish(delivery) == (0, 0)
    assert caplog.text.count("does not take spans") == 1
    assert "Connection refused" in caplog.text


def test_a_receiver_that_comes_up(
    receiver: HttpReceiver, stop: Stop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    receiver.answers = [(503, {}, b""), (200, {}, b"")]
    delivery = http_delivery(receiver, stop)
    assert delivery.deliver(REQUEST, 1)
    delivery.exporter.close()
    assert "takes spans again" in caplog.text


def test_headers_are_never_logged(
    receiver: HttpReceiver, stop: Stop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="k8s_tracing")
    receiver.answers = [(503, {}, b""), (400, {}, b"")]
    delivery = http_delivery(receiver, stop, headers={"authorization": "swordfish"})
    delivery.deliver(REQUEST, 1)
    delivery.exporter.close()
    assert caplog.records
    assert "swordfish" not in caplog.text


def test_an_endpoint_that_is_no_url(stop: Stop) -> None:
    delivery = Delivery(open_exporter(Endpoint(HTTP, "ftp://host/x")), stop)
    with pytest.raises(ExportError, match="ftp"):
        delivery.deliver(REQUEST, 1)


def test_grpc_calls_with_the_request_as_it_is(grpc_receiver: GrpcReceiver, stop: Stop) -> None:
    grpc_receiver.answers = [b""]
    delivery = grpc_delivery(grpc_receiver.port, stop, headers={"x-token": "t"}, gzip=True)
    assert delivery.deliver(REQUEST, 3)
    assert finish(delivery) == (3, 0)
    assert grpc_receiver.bodies == [REQUEST]
    assert grpc_receiver.metadata[0]["x-token"] == "t"


@pytest.mark.parametrize(
    "answer",
    [
        (grpc.StatusCode.UNAVAILABLE, b""),
        (grpc.StatusCode.ABORTED, b""),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, status("full", 0.0)),
    ],
)
def test_grpc_tries_again(
    answer: tuple[grpc.StatusCode, bytes], grpc_receiver: GrpcReceiver, stop: Stop
) -> None:
    grpc_receiver.answers = [answer, answer, b""]
    delivery = grpc_delivery(grpc_receiver.port, stop)
    assert delivery.deliver(REQUEST, 2)
    assert finish(delivery) == (2, 0)
    assert len(grpc_receiver.bodies) == 3


def test_grpc_waits_as_long_as_it_is_asked_to(grpc_receiver: GrpcReceiver, stop: Stop) -> None:
    grpc_receiver.answers = [(grpc.StatusCode.UNAVAILABLE, status("", 1.0)), b""]
    delivery = grpc_delivery(grpc_receiver.port, stop)
    start = time.monotonic()
    assert delivery.deliver(REQUEST, 1)
    assert time.monotonic() - start >= 1
    assert finish(delivery) == (1, 0)


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ],
)
def test_grpc_counts_what_is_refused(
    code: grpc.StatusCode, grpc_receiver: GrpcReceiver, stop: Stop
) -> None:
    grpc_receiver.answers = [(code, b"")]
    delivery = grpc_delivery(grpc_receiver.port, stop)
    assert delivery.deliver(REQUEST, 2)
    assert finish(delivery) == (0, 2)
    assert len(grpc_receiver.bodies) == 1


def test_grpc_counts_partial_success(grpc_receiver: GrpcReceiver, stop: Stop) -> None:
    grpc_receiver.answers = [partial_success(1)]
    delivery = grpc_delivery(grpc_receiver.port, stop)
    assert delivery.deliver(REQUEST, 2)
    assert finish(delivery) == (1, 1)


def test_nobody_listens_to_grpc(stop: Stop) -> None:
    delivery = grpc_delivery(free_port(), stop)
    threading.Timer(0.5, stop_at_once, (stop,)).start()
    assert not delivery.deliver(REQUEST, 1)
    assert finish(delivery) == (0, 0)


def test_no_attempt_is_made_when_time_is_over(receiver: HttpReceiver, stop: Stop) -> None:
    receiver.answers = [(200, {}, b"")]
    stop.request()
    stop.allow(0.0)
    delivery = http_delivery(receiver, stop)
    assert not delivery.deliver(REQUEST, 1)
    stop.allow(30.0)
    assert delivery.deliver(REQUEST, 1)
    assert finish(delivery) == (1, 0)


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, None), ("12", 12.0), ("-1", 0.0), ("nonsense", None)]
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert retry_after_s(text) == seconds


def test_retry_after_as_a_date() -> None:
    wait_s = retry_after_s(formatdate(time.time() + 100, usegmt=True))
    assert wait_s is not None
    assert 50 < wait_s < 150
    assert retry_after_s(formatdate(time.time() - 100, usegmt=True)) == 0.0


def test_status_is_read() -> None:
    assert status_message(status("full", 1.5)) == "full"
    assert retry_delay_s(status("full", 1.5)) == 1.5
    assert retry_delay_s(status("full")) is None


@pytest.mark.parametrize("broken", [b"\x1a\x7fxx", b"\xff", b"\x0b", b"\x1a\x02\xff\xff"])
def test_a_broken_answer_says_nothing(broken: bytes) -> None:
    assert retry_delay_s(broken) is None
    assert isinstance(status_message(broken), str)
    assert isinstance(rejected_spans(broken), int)
