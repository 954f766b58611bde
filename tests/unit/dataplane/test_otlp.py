"""What others send by OTLP: when it is acknowledged, and when it is refused."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from k8s_tracing.dataplane import otlp as module
from k8s_tracing.dataplane.otlp import OtlpIntake
from k8s_tracing.errors import ListenError
from k8s_tracing.otlp import to_json_line, to_request
from k8s_tracing.record import SpanRecord
from tests.support.wait import wait_for

HERE = ("127.0.0.1", 0)
PROTOBUF = {"content-type": "application/x-protobuf"}
SPANS = [
    SpanRecord(
        trace_id=f"{1:032x}",
        span_id=f"{number:016x}",
        name="s",
        kind="SERVER",
        start_time_ns=1,
        end_time_ns=2,
    )
    for number in (1, 2)
]
# A field that this version does not know, which somebody behind us may.
BODY = to_request(SPANS) + b"\xfa\x3e\x03new"


class Disk:
    """An intake with somebody who collects, and publishes where that is possible."""

    def __init__(self, patience_s: float) -> None:
        self.bodies: list[bytes] = []
        self.spans = 0
        self.is_writable = True
        self._awake = threading.Event()
        self._ended = False
        self.intake = OtlpIntake(http=HERE, grpc=HERE, wake=self._awake.set, patience_s=patience_s)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.intake.start()
        self.http, self.grpc = self.intake.addresses

    def _run(self) -> None:
        while not self._ended:
            self._awake.wait()
            self._awake.clear()
            if self.is_writable:
                self.write()

    def write(self) -> None:
        for request in self.intake.collect():
            self.bodies.append(request.body)
            self.spans += request.spans
        self.intake.published()

    def post(self, body: bytes, **headers: str) -> requests.Response:
        return requests.post(
            f"{self.http}/v1/traces", body, headers={**PROTOBUF, **headers}, timeout=60
        )

    def close(self) -> None:
        self.intake.stop()
        self._ended = True
        self._awake.set()
        self._thread.join()
        self.intake.close()


@pytest.fixture
def make_disk() -> Iterator[Callable[[float], Disk]]:
    disks: list[Disk] = []

    def make(patience_s: float = 60.0) -> Disk:
        disks.append(Disk(patience_s))
        return disks[-1]

    yield make
    for disk in disks:
        disk.close()


def test_the_bytes_pass_unchanged_by_http(make_disk: Callable[..., Disk]) -> None:
    disk = make_disk()
    assert disk.post(BODY).status_code == 200
    assert (disk.bodies, disk.spans, disk.intake.accepted) == ([BODY], 2, 2)


def test_chunks_are_put_together(make_disk: Callable[..., Disk]) -> None:
    disk = make_disk()
    parts = iter([BODY[:10], BODY[10:]])  # requests sends an iterator as Transfer-Encoding: chunked
    answer = requests.post(f"{disk.http}/v1/traces", parts, headers=PROTOBUF, timeout=60)
    assert (answer.status_code, disk.bodies) == (200, [BODY])


def test_the_bytes_pass_unchanged_by_grpc(make_disk: Callable[..., Disk]) -> None:
    disk = make_disk()
    with grpc.insecure_channel(disk.grpc.removeprefix("grpc://")) as channel:
        TraceServiceStub(channel).Export(ExportTraceServiceRequest.FromString(BODY), timeout=60)
    assert disk.bodies == [BODY]


def test_json_becomes_protobuf(make_disk: Callable[..., Disk]) -> None:
    disk = make_disk()
    line = to_json_line(to_request(SPANS))
    assert disk.post(line.encode(), **{"content-type": "application/json"}).json() == {}
    (body,) = disk.bodies
    expected = ExportTraceServiceRequest.FromString(to_request(SPANS))
    assert ExportTraceServiceRequest.FromString(body) == expected


def test_an_empty_request_needs_no_disk(make_disk: Callable[..., Disk]) -> None:
    disk = make_disk()
    disk.is_writable = False
    assert disk.post(b"").status_code == 200


def test_no_answer_before_it_is_on_disk(make_disk: Callable[..., Disk]) -> None:
    disk = make_disk()
    disk.is_writable = False
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(disk.post, BODY)
        requests_ = wait_for("it came", disk.intake.collect)
        assert [request.body for request in requests_] == [BODY]
        assert not answer.done()
        disk.intake.published()
        assert answer.result().status_code == 200


@pytest.mark.parametrize("collected", [False, True])
def test_a_disk_that_cannot_be_written_is_told(
    make_disk: Callable[..., Disk], collected: bool
) -> None:
    disk = make_disk(0.3)
    disk.is_writable = False
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(disk.post, BODY)
        if collected:
            wait_for("it came", disk.intake.collect)
        refused = answer.result()
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert disk.intake.refused == {503: 1}
    with (
        grpc.insecure_channel(disk.grpc.removeprefix("grpc://")) as channel,
        pytest.raises(grpc.RpcError) as raised,
    ):
        TraceServiceStub(channel).Export(ExportTraceServiceRequest.FromString(BODY), timeout=60)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    # What was given back to its sender is not written, what was in hand already is.
    disk.write()
    assert (disk.bodies, disk.intake.accepted) == ([], 2 if collected else 0)
    disk.is_writable = True
    assert disk.post(BODY).status_code == 200


def test_what_waits_is_bounded(
    make_disk: Callable[..., Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = make_disk()
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", len(BODY))
    disk.is_writable = False
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(disk.post, BODY)
        wait_for("it came", lambda: disk.intake._waiting)
        assert disk.post(BODY).status_code == 429
        disk.write()
        assert first.result().status_code == 200
    disk.is_writable = True
    assert disk.post(BODY).status_code == 200


def test_who_waits_at_the_end_is_answered_and_who_comes_later_refused(
    make_disk: Callable[..., Disk],
) -> None:
    disk = make_disk()
    disk.is_writable = False
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(disk.post, BODY)
        wait_for("it came", lambda: disk.intake._waiting)
        disk.intake.stop()
        assert disk.post(BODY).status_code == 503
        disk.write()
        assert first.result().status_code == 200
    assert disk.bodies == [BODY]


def test_what_is_no_otlp_is_refused_and_counted(make_disk: Callable[..., Disk]) -> None:
    disk = make_disk()
    assert disk.post(b"\xff").status_code == 400
    assert disk.post(BODY, **{"content-type": "text/plain"}).status_code == 415
    assert disk.post(BODY, host="evil.example").status_code == 403
    assert disk.intake.refused == {400: 1, 415: 1}
    assert disk.bodies == []


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(HERE)
        taken.listen()
        with pytest.raises(ListenError, match="cannot listen on"):
            OtlpIntake(http=taken.getsockname())
