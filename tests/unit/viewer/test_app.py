"""Both applications: who may ask, what is sent with every answer, and what the receiver takes."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from k8s_tracing.otlp import to_json_line
from k8s_tracing.receiver import http as receiver_module
from k8s_tracing.receiver.http import HttpReceiver
from k8s_tracing.receiver.ports import guarded
from k8s_tracing.viewer.app import otlp_app, query_app
from k8s_tracing.viewer.page_api import News
from k8s_tracing.viewer.receiver import intake
from k8s_tracing.viewer.search import Query
from k8s_tracing.viewer.store import Store
from tests.unit.viewer.conftest import request, span, trace_id

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json; charset=utf-8"}
BODY = request(span(1, 1)).SerializeToString()
# Without the time in it: it is part of tests' names, which all processes of a run have to give alike.
GZIPPED = gzip.compress(BODY, mtime=0)


class Asked:
    """An application, asked without a network in between."""

    def __init__(self, app: Any, base_url: str = "http://127.0.0.1:1") -> None:
        self._app, self._base_url = app, base_url

    def __call__(self, method: str, path: str, **given: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, base_url=self._base_url) as client:
                return await client.request(method, path, **given)

        return asyncio.run(ask())

    def get(self, path: str, **given: Any) -> httpx.Response:
        return self("GET", path, **given)

    def post(self, body: bytes, headers: dict[str, str], **more: str) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in more.items()}
        return self("POST", "/v1/traces", content=body, headers={**headers, **names})


@pytest.fixture
def page(tmp_path: Path) -> Path:
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "index.html").write_text("the page")
    (folder / "app.js").write_text("code")
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    return folder


@pytest.fixture
def query(store: Store, page: Path) -> Asked:
    return Asked(query_app(store, News(), page))


@pytest.fixture
def grown() -> list[bytes]:
    return []


@pytest.fixture
def otlp(store: Store, grown: list[bytes]) -> Iterator[Asked]:
    receiver = HttpReceiver(intake(store, grown.extend))
    yield Asked(otlp_app(receiver))
    assert receiver._held_bytes == 0


@pytest.mark.parametrize(
    ("body", "headers", "encoding"),
    [
        (BODY, PROTOBUF, ""),
        (BODY, PROTOBUF, "identity"),
        (GZIPPED, PROTOBUF, "gzip"),
        (zlib.compress(BODY), PROTOBUF, "deflate"),
        (to_json_line(BODY).encode(), JSON, ""),
        (gzip.compress(to_json_line(BODY).encode()), JSON, "gzip"),
    ],
)
def test_a_request_in_each_encoding(
    otlp: Asked,
    store: Store,
    grown: list[bytes],
    body: bytes,
    headers: dict[str, str],
    encoding: str,
) -> None:
    answer = otlp.post(body, headers, content_encoding=encoding)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == headers["content-type"].partition(";")[0]
    assert answer.content == (b"{}" if headers is JSON else b"")
    assert grown == [trace_id(1)]
    assert len(store.search.find(Query())) == 1


def test_spans_that_are_refused_are_a_partial_success(otlp: Asked, store: Store) -> None:
    message = request(span(1, 1), span(1, 2))
    message.resource_spans[0].scope_spans[0].spans[0].span_id = b"short"
    answer = otlp.post(message.SerializeToString(), PROTOBUF)
    response = ExportTraceServiceResponse.FromString(answer.content)
    assert answer.status_code == 200
    assert response.partial_success.rejected_spans == 1
    assert response.partial_success.error_message == "refused: 1 by span id"
    answer = otlp.post(to_json_line(message.SerializeToString()).encode(), JSON)
    assert answer.json()["partialSuccess"]["rejectedSpans"] == "1"
    assert store.search.counters()["refused: span id"] == 2


HALF_A_GZIP = gzip.compress(BODY * 50)[:-20]


@pytest.mark.parametrize(
    ("body", "headers", "encoding", "status", "why"),
    [
        (b"\xff\xff", PROTOBUF, "", 400, "not OTLP"),
        (b"\x0a\x07\x12\x05\x12\x03\x2a\x01\xff", PROTOBUF, "", 400, "not OTLP"),  # UTF-8
        (b"{", JSON, "", 400, "not OTLP"),
        (b"[]", JSON, "", 400, "not OTLP"),
        (b"\xff", JSON, "", 400, "not OTLP"),
        (
            b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"x"}]}]}]}',
            JSON,
            "",
            400,
            "not OTLP",
        ),
        (b'{"a":' * 100_000, JSON, "", 400, "not OTLP"),
        (b"no gzip", PROTOBUF, "gzip", 400, "not gzip"),
        (HALF_A_GZIP, PROTOBUF, "gzip", 400, "one whole gzip stream"),
        (GZIPPED + b"more", PROTOBUF, "gzip", 400, "one whole gzip stream"),
        (BODY, PROTOBUF, "br", 400, "unsupported Content-Encoding: br"),
        (gzip.compress(bytes(65 << 20)), PROTOBUF, "gzip", 413, "the unpacked body is over"),
        (bytes(17 << 20), PROTOBUF, "", 413, "the body is over"),
    ],
)
def test_what_is_refused(
    otlp: Asked, body: bytes, headers: dict[str, str], encoding: str, status: int, why: str
) -> None:
    answer = otlp.post(body, headers, content_encoding=encoding)
    assert answer.status_code == status
    if headers is JSON:
        assert (answer.json()["code"], why in answer.json()["message"]) == (3, True)
    else:
        said = Status.FromString(answer.content)
        assert (said.code, why in said.message) == (3, True)


def test_a_deep_value_is_refused_whole(otlp: Asked) -> None:
    value = b""
    for _ in range(200):  # AnyValue.array_value.values
        for key in (b"\x0a", b"\x2a"):
            size = len(value)
            value = (
                key
                + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7]))
                + value
            )
    message = ExportTraceServiceRequest()
    span_ = message.resource_spans.add().scope_spans.add().spans.add()
    body = message.SerializeToString()
    assert span_.ByteSize() == 0
    wrapped = value
    for tag in (
        b"\x12",
        b"\x4a",
        b"\x12",
        b"\x12",
        b"\x0a",
    ):  # KeyValue.value, attributes, spans, scope_spans, ...
        size = len(wrapped)
        wrapped = tag + bytes([size & 127 | 128, size >> 7]) + wrapped
    assert otlp.post(body, PROTOBUF).status_code == 200
    assert otlp.post(wrapped, PROTOBUF).status_code == 400


def test_too_much_at_once_may_come_again(otlp: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver_module, "MAX_HELD_BYTES", 10)
    answer = otlp.post(BODY, PROTOBUF)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")


def test_a_store_that_cannot_be_written_may_come_again(otlp: Asked, store: Store) -> None:
    store._db.execute("PRAGMA query_only = ON")
    answer = otlp.post(BODY, PROTOBUF)
    store._db.execute("PRAGMA query_only = OFF")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert otlp.post(BODY, PROTOBUF).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/v1/traces", {}, 405),
        ("PUT", "/v1/traces", PROTOBUF, 405),
        ("POST", "/v1/metrics", PROTOBUF, 404),
        ("POST", "/v1/traces", {"content-type": "text/plain"}, 415),
        ("POST", "/v1/traces", {}, 415),
    ],
)
def test_other_methods_paths_and_types(
    otlp: Asked, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    assert otlp(method, path, headers=headers).status_code == status


def test_what_every_answer_says_to_a_browser(query: Asked, otlp: Asked) -> None:
    for answer in (
        query.get("/"),
        query.get("/app.js"),
        query.get("/api/services"),
        query.get("/api/traces/x"),
        query.get("/none.js"),
        otlp.get("/v1/traces"),
    ):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/search", "/trace/0123", "/trace/0123/", "/compare/a/b"])
def test_the_page_looks_at_the_address_itself(query: Asked, path: str) -> None:
    assert (query.get(path).status_code, query.get(path).text) == (200, "the page")


@pytest.mark.parametrize(
    "path",
    [
        "/none.js",
        "/link.txt",
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "//secret",
        "/%00",
        "/app.js/../../secret",
        "/api/none",
        "/api/",
    ],
)
def test_no_path_leads_out_of_the_page(query: Asked, path: str) -> None:
    answer = query.get(path)
    assert "secret" not in answer.text
    assert answer.status_code in (400, 404) or answer.text == "the page"


def test_a_link_leads_nowhere(query: Asked) -> None:
    assert "secret" not in query.get("/link").text


def test_the_apis_are_for_reading(query: Asked) -> None:
    for path in ("/api/services", "/api/traces", "/api/v3/traces", "/api/live", "/"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert query(method, path).status_code == 405


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:16686", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("viewer.localhost:16686", 200),
        ("[::1]:16686", 200),
        ("[::1]", 200),
        ("127.8.8.8", 200),
        ("evil.example", 403),
        ("evil.example:16686", 403),
        ("localhost.evil.example", 403),
        ("10.0.0.1", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
    ],
)
def test_another_name_for_this_machine_is_refused(store: Store, host: str, status: int) -> None:
    asked = Asked(guarded(query_app(store, News()), "127.0.0.1"))
    assert asked.get("/api/services", headers={"host": host}).status_code == status


def test_a_viewer_for_other_machines_answers_to_any_name(store: Store) -> None:
    asked = Asked(guarded(query_app(store, News()), "0.0.0.0"))
    assert asked.get("/api/services", headers={"host": "viewer.example"}).status_code == 200


def test_texts_of_spans_stay_texts(query: Asked, store: Store) -> None:
    hostile = "</script><script>alert(1)</script>\u2028\x00"
    store.add(request(span(1, 1, name=hostile, service=hostile, attributes={hostile: hostile})))
    for path in ("/api/traces/1", "/api/services", "/api/v3/traces/1", "/api/trace-summaries"):
        answer = query.get(path, params={"start": "0", "end": str(2**53)})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert json.dumps(hostile)[1:-1] in json.dumps(answer.json())


def test_critical_path(query: Asked, store: Store) -> None:
    store.add(request(span(1, 1, last_ms=30), span(1, 2, parent=1, at_ms=10, last_ms=10)))
    path = query.get("/api/traces/1/critical-path").json()["data"]
    assert [each["spanID"][-1] for each in path] == ["1", "2", "1"]
    assert query.get("/api/traces/2/critical-path").status_code == 404
    assert query.get("/api/traces/x/critical-path").status_code == 400


def test_summaries(query: Asked, store: Store) -> None:
    store.add(request(span(0xAB, 1, status="ERROR"), span(0xAB, 2, service="db", parent=1)))
    everything = {"start": "0", "end": str(2**53)}
    (found,) = query.get("/api/trace-summaries", params=everything).json()["data"]
    assert found == {
        "traceID": "ab".zfill(32),
        "startTime": 1_800_000_000_000_000,
        "duration": 10_000,
        "spans": 2,
        "errors": 1,
        "unfinished": 0,
        "root": {"serviceName": "shop", "operationName": "op"},
        "services": [
            {"name": "db", "spans": 1, "errors": 0},
            {"name": "shop", "spans": 1, "errors": 1},
        ],
    }
    assert query.get("/api/trace-summaries", params={"limit": "0"}).status_code == 400
