# SPDX-License-Identifier: Apache-2.0
"""Jaeger's query APIs over the store: the older one that its page uses, and v3, whose traces are OTLP.

Paths, parameters, shapes and statuses are those of Jaeger 2.13; docs/reference/viewer-api.md says what differs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from k8s_tracing import jaeger
from k8s_tracing.otlp import records, to_json_line
from k8s_tracing.viewer import parameters
from k8s_tracing.viewer.parameters import ParameterError, Parameters

if TYPE_CHECKING:
    from starlette.requests import Request

    from k8s_tracing.viewer.search import Search

_DAY_MS = 24 * 3600 * 1000
_BY_START: Callable[[Any], int] = lambda span: span.start_time_ns  # noqa: E731


class LegacyApi:
    """`/api/traces` and its kin."""

    def __init__(self, search: Search) -> None:
        self._search = search

    def routes(self) -> list[BaseRoute]:
        """Return what it answers to."""
        routes = {
            "/api/services": self.services,
            "/api/services/{service:path}/operations": self.operation_names,
            "/api/operations": self.operations,
            "/api/traces": self.find,
            "/api/traces/{trace_id}": self.trace,
            "/api/dependencies": self.dependencies,
        }
        return [Route(path, legacy_errors(answer)) for path, answer in routes.items()]

    def services(self, request: Request) -> Response:
        """Answer with the services' names."""
        names = self._search.services()
        return as_json(request, jaeger.answer(names or None, total=len(names)))

    def operation_names(self, request: Request) -> Response:
        """Answer with the names of a service's operations."""
        operations = self._search.operations(request.path_params["service"])
        names = list(dict.fromkeys(name for name, _ in operations))
        return as_json(request, jaeger.answer(names or None, total=len(names)))

    def operations(self, request: Request) -> Response:
        """Answer with the names and kinds of a service's operations."""
        given = of(request)
        service, kind = given.get("service"), given.get("spanKind")
        if not service:
            raise ParameterError("parameter 'service' is required")
        data = [
            {"name": name, "spanKind": its_kind}
            for name, its_kind in self._search.operations(service)
            if kind in ("", its_kind)
        ]
        return as_json(request, jaeger.answer(data, total=len(data)))

    def find(self, request: Request) -> Response:
        """Answer with the traces that are searched for or named."""
        given = of(request)
        if not given.all("traceID"):
            query = parameters.legacy_query(given, time.time_ns())
            found = self._search.traces(self._search.find(query))
            return as_json(request, jaeger.answer([_as_jaeger(each) for each in found]))
        data, errors = [], []
        for text in given.all("traceID"):
            try:
                trace_id = parameters.trace_id(text)
            except ValueError as error:
                raise ParameterError(f"cannot parse traceID param: {error}") from error
            trace = self._search.trace(trace_id)
            if trace is None:
                errors.append({"msg": "trace not found", "traceID": _short(trace_id)})
            else:
                data.append(_as_jaeger(trace))
        return as_json(request, jaeger.answer(data, errors=errors or None))

    def trace(self, request: Request) -> Response:
        """Answer with one trace."""
        trace = self._search.trace(path_trace_id(request))
        if trace is None:
            raise ParameterError("trace not found", status=404)
        return as_json(request, jaeger.answer([_as_jaeger(trace)]))

    def dependencies(self, request: Request) -> Response:
        """Answer with the calls between services."""
        given = of(request)
        end_ms = given.read(parameters.whole_number, time.time_ns() // 10**6, "endTs")
        lookback_ms = given.read(parameters.whole_number, _DAY_MS, "lookback")
        calls = self._search.dependencies((end_ms - lookback_ms) * 10**6, end_ms * 10**6)
        service = given.get("service")
        data = [
            {"parent": parent, "child": child, "callCount": number}
            for (parent, child), number in sorted(calls.items())
            if service in ("", parent, child)
        ]
        return as_json(request, jaeger.answer(data))


class V3Api:
    """`/api/v3`."""

    def __init__(self, search: Search) -> None:
        self._search = search

    def routes(self) -> list[BaseRoute]:
        """Return what it answers to."""
        routes = {
            "/api/v3/services": self.services,
            "/api/v3/operations": self.operations,
            "/api/v3/traces": self.find,
            "/api/v3/traces/{trace_id}": self.trace,
        }
        return [Route(path, _v3_errors(answer)) for path, answer in routes.items()]

    def services(self, request: Request) -> Response:
        """Answer with the services' names."""
        return as_json(request, {"services": self._search.services()})

    def operations(self, request: Request) -> Response:
        """Answer with the names and kinds of a service's operations."""
        given = of(request)
        kind = given.get("span_kind", "spanKind")
        operations = [
            {"name": name, "spanKind": its_kind}
            for name, its_kind in self._search.operations(given.get("service"))
            if kind in ("", its_kind)
        ]
        return as_json(request, {"operations": operations})

    def find(self, request: Request) -> Response:
        """Answer with the traces that are searched for."""
        query = parameters.v3_query(of(request))
        return _as_otlp(list(self._search.traces(self._search.find(query))))

    def trace(self, request: Request) -> Response:
        """Answer with one trace."""
        trace = self._search.trace(path_trace_id(request))
        return _as_otlp([] if trace is None else [trace])


def of(request: Request) -> Parameters:
    """Return the parameters of a request."""
    return Parameters(request.query_params.multi_items())


def as_json(request: Request, content: Any, status: int = 200) -> Response:
    """Answer with JSON, indented where `prettyPrint` asks for it."""
    indent = 4 if request.query_params.get("prettyPrint", "false") not in ("", "false") else None
    separators = None if indent else (",", ":")
    text = json.dumps(content, ensure_ascii=False, indent=indent, separators=separators)
    return json_response(text, status)


def json_response(text: str, status: int = 200) -> Response:
    """Answer with JSON. A text may hold half a surrogate pair, from JSON's escapes, which UTF-8 has no bytes for."""
    return Response(text.encode(errors="replace"), status, media_type="application/json")


def _as_jaeger(trace: ExportTraceServiceRequest) -> dict[str, Any]:
    return jaeger.to_trace(sorted(records(trace), key=_BY_START))


def _as_otlp(traces: list[ExportTraceServiceRequest]) -> Response:
    if not traces:
        raise ParameterError("No traces found", status=404)
    merged = traces[0]
    for trace in traces[1:]:
        merged.MergeFrom(trace)
    return json_response(f'{{"result":{to_json_line(merged.SerializeToString())}}}')


def _short(trace_id: bytes) -> str:
    text = trace_id.hex()
    return text[16:] if not any(trace_id[:8]) else text


def path_trace_id(request: Request) -> bytes:
    """Return the trace id that a path names."""
    try:
        return parameters.trace_id(request.path_params["trace_id"])
    except ValueError as error:
        raise ParameterError(str(error)) from error


Endpoint = Callable[["Request"], Response]


def legacy_errors(answer: Endpoint) -> Endpoint:
    """Answer to what is wrong with a request as the older API does."""

    def answered(request: Request) -> Response:
        try:
            return answer(request)
        except ParameterError as error:
            return _legacy_error(error.status, str(error))

    return answered


def _v3_errors(answer: Endpoint) -> Endpoint:
    def answered(request: Request) -> Response:
        try:
            return answer(request)
        except ParameterError as error:
            return _v3_error(error.status, str(error))

    return answered


def _legacy_error(status: int, message: str) -> Response:
    errors = [{"code": status, "msg": message}]
    return json_response(json.dumps(jaeger.answer(None, errors=errors)), status)


def _v3_error(status: int, message: str) -> Response:
    return json_response(json.dumps({"error": {"httpCode": status, "message": message}}), status)
