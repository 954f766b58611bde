"""The WSGI middleware, called as PEP 3333 has a server call it, with its validator in between."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.propagators.b3 import B3MultiFormat

import k8s_tracing
from k8s_tracing.instrument.wsgi import TracingMiddleware
from k8s_tracing.record import SpanRecord
from tests.unit.instrument.conftest import SPAN_ID, TRACE_ID, TRACEPARENT

Environ = dict[str, Any]


def environ(path: str = "/", **fields: Any) -> Environ:
    made: Environ = {
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "REMOTE_ADDR": "10.0.0.7",
        **fields,
    }
    setup_testing_defaults(made)
    return made


def run(app: Callable[..., Iterable[bytes]], request: Environ) -> tuple[str, bytes]:
    """Handle one request; returns status and body."""
    statuses: list[str] = []

    def start_response(status: str, headers: object, exc_info: Any = None) -> Any:
        statuses.append(status)
        return lambda part: None

    response = app(request, start_response)
    try:
        body = b"".join(response)
    finally:
        close = getattr(response, "close", None)
        if close:
            close()
    return statuses[-1], body


def hello(environ: Environ, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def test_the_baggage_of_a_request_is_there_for_who_handles_it(spans: list[SpanRecord]) -> None:
    seen: list[object] = []

    def app(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        for _ in range(2):
            seen.append(baggage.get_baggage("session"))
            yield b"part"

    run(TracingMiddleware(app), environ(HTTP_BAGGAGE="session=s1", HTTP_TRACEPARENT=TRACEPARENT))
    assert seen == ["s1", "s1"]
    assert spans[0].parent_span_id == SPAN_ID
    assert not baggage.get_all()


def test_a_request_is_a_server_span_with_the_attributes_of_http(spans: list[SpanRecord]) -> None:
    request = environ(
        "/caf\xc3\xa9",
        QUERY_STRING="a=1",
        REMOTE_PORT="40000",
        SERVER_PROTOCOL="HTTP/1.1",
        HTTP_HOST="shop.example:8080",
        HTTP_USER_AGENT="curl/8",
        HTTP_TRACEPARENT=TRACEPARENT,
        HTTP_TRACESTATE="vendor=1",
    )
    assert run(validator(TracingMiddleware(validator(hello))), request) == ("200 OK", b"hello")
    [span] = spans
    assert (span.name, span.kind, span.status) == ("GET", "SERVER", "UNSET")
    assert (span.trace_id, span.parent_span_id) == (TRACE_ID, SPAN_ID)
    assert span.trace_state == "vendor=1"
    assert span.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.path": "/café",
        "url.query": "a=1",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "client.address": "10.0.0.7",
        "network.peer.address": "10.0.0.7",
        "network.peer.port": 40000,
        "server.address": "shop.example",
        "server.port": 8080,
        "user_agent.original": "curl/8",
    }


@pytest.mark.parametrize(("port", "expected"), [("8000", 8000), ("", None)])
def test_without_a_host_header_the_server_says_its_name(
    spans: list[SpanRecord], port: str, expected: int | None
) -> None:
    request = environ(SERVER_NAME="pod", SERVER_PORT=port)
    del request["HTTP_HOST"]
    run(TracingMiddleware(hello), request)
    assert spans[0].attributes["server.address"] == "pod"
    assert spans[0].attributes.get("server.port") == expected


@pytest.mark.parametrize(
    ("fields", "route"),
    [
        (
            {"werkzeug.request": SimpleNamespace(url_rule=SimpleNamespace(rule="/a/<id>"))},
            "/a/<id>",
        ),
        ({"werkzeug.request": SimpleNamespace(url_rule=None)}, None),
        ({"bottle.route": SimpleNamespace(rule="/b/<id>")}, "/b/<id>"),
        ({"bottle.route": SimpleNamespace(rule="/b"), "SCRIPT_NAME": "/shop"}, "/shop/b"),
        ({}, None),
    ],
)
def test_the_route_that_the_framework_left_in_the_environ(
    spans: list[SpanRecord], fields: Environ, route: str | None
) -> None:
    run(TracingMiddleware(hello), environ(**fields))
    assert spans[0].name == (f"GET {route}" if route else "GET")
    assert spans[0].attributes.get("http.route") == route


@pytest.mark.parametrize("status", ["404 Not Found", "503 Service Unavailable"])
def test_only_a_fault_of_the_server_is_an_error(spans: list[SpanRecord], status: str) -> None:
    def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        start_response(status, [], (ValueError, ValueError(), None))  # thinks better of it
        return [b""]

    run(TracingMiddleware(app), environ())
    expected = ("ERROR", "503") if status[0] == "5" else ("UNSET", None)
    assert (spans[0].status, spans[0].attributes.get("error.type")) == expected
    assert spans[0].attributes["http.response.status_code"] == int(status[:3])


def test_an_exception_is_recorded_and_goes_on(spans: list[SpanRecord]) -> None:
    def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
        raise ValueError("no driver")

    with pytest.raises(ValueError, match="no driver"):
        run(TracingMiddleware(app), environ())
    [span] = spans
    assert (span.status, span.status_message) == ("ERROR", "ValueError: no driver")
    assert span.attributes["error.type"] == "ValueError"
    assert [event.name for event in span.events] == ["exception"]


def test_leaving_by_what_is_no_error_is_no_error(spans: list[SpanRecord]) -> None:
    def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
        sys.exit(1)

    with pytest.raises(SystemExit):
        run(TracingMiddleware(app), environ())
    assert [(span.status, span.events) for span in spans] == [("UNSET", ())]


class Closing:
    """A response that says when it is closed, and by what span that is."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self.parts = parts
        self.closed_by: list[str] = []

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.parts)

    def close(self) -> None:
        with k8s_tracing.span("close"):
            self.closed_by.append("close")


def test_a_response_in_parts_ends_when_it_is_closed(spans: list[SpanRecord]) -> None:
    response = Closing([b"a", b"b"])

    def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return response

    answer = TracingMiddleware(app)(environ(), lambda *args: lambda part: None)
    assert list(answer) == [b"a", b"b"]
    assert spans == []
    answer.close()  # type: ignore[attr-defined]
    assert response.closed_by == ["close"]
    close, request = spans
    assert (close.name, close.parent_span_id) == ("close", request.span_id)


def test_a_server_that_gives_up_closes_the_generator(spans: list[SpanRecord]) -> None:
    closed: list[bool] = []

    def app(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            yield b"a"
            yield b"b"
        finally:
            closed.append(True)

    answer = TracingMiddleware(app)(environ(), lambda *args: lambda part: None)
    assert next(iter(answer)) == b"a"
    answer.close()  # type: ignore[attr-defined]
    assert (closed, len(spans)) == ([True], 1)


def test_a_generator_has_its_spans_around_the_parts_and_the_server_has_none(
    spans: list[SpanRecord],
) -> None:
    def app(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        with k8s_tracing.span("outer"):
            for number in range(2):
                with k8s_tracing.span(f"inner {number}"):
                    yield b"part"
            context.attach(baggage.set_baggage("k", "v"))
        yield (baggage.get_baggage("k") or "none").encode()  # type: ignore[attr-defined]

    before = trace.get_current_span()
    answer = TracingMiddleware(app)(environ(), lambda *args: lambda part: None)
    parts = []
    for part in answer:
        assert trace.get_current_span() is before
        parts.append(part)
    answer.close()  # type: ignore[attr-defined]
    named = {span.name: span for span in spans}
    assert parts == [b"part", b"part", b"none"]
    assert named["outer"].parent_span_id == named["GET"].span_id
    assert named["inner 1"].parent_span_id == named["outer"].span_id


def test_an_exception_between_the_parts_is_recorded(spans: list[SpanRecord]) -> None:
    def app(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"a"
        raise ValueError("no driver")

    with pytest.raises(ValueError, match="no driver"):
        run(TracingMiddleware(app), environ())
    [span] = spans
    assert (span.status, span.status_message) == ("ERROR", "ValueError: no driver")
    assert span.attributes["http.response.status_code"] == 200


def test_an_exception_of_close_is_recorded(spans: list[SpanRecord]) -> None:
    class Bad(Closing):
        def close(self) -> None:
            raise ValueError("no driver")

    def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Bad([])

    with pytest.raises(ValueError, match="no driver"):
        run(TracingMiddleware(app), environ())
    assert [span.status for span in spans] == ["ERROR"]


def test_a_file_is_left_to_the_server(spans: list[SpanRecord]) -> None:
    file = FileWrapper(io.BytesIO(b"content"))

    def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return file

    request = environ(**{"wsgi.file_wrapper": FileWrapper})
    assert TracingMiddleware(app)(request, lambda *args: lambda part: None) is file
    assert len(spans) == 1


def test_excluded_paths_and_an_application_traced_twice(spans: list[SpanRecord]) -> None:
    run(TracingMiddleware(hello, excluded_paths=["/healthz"]), environ("/healthz"))
    assert spans == []
    run(TracingMiddleware(TracingMiddleware(hello)), environ())
    assert len(spans) == 1


def test_any_propagator_finds_its_headers(
    spans: list[SpanRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", B3MultiFormat())
    headers = {"HTTP_X_B3_TRACEID": TRACE_ID, "HTTP_X_B3_SPANID": SPAN_ID, "HTTP_X_B3_SAMPLED": "1"}
    run(TracingMiddleware(hello), environ(**headers))
    assert (spans[0].trace_id, spans[0].parent_span_id) == (TRACE_ID, SPAN_ID)


def test_without_tracing_the_context_still_passes_through() -> None:
    seen: list[int] = []

    def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
        seen.append(trace.get_current_span().get_span_context().trace_id)
        return hello(environ, start_response)

    run(TracingMiddleware(app), environ(HTTP_TRACEPARENT=TRACEPARENT))
    assert seen == [int(TRACE_ID, 16)]
