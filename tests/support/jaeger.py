"""A real Jaeger on free ports, and a client of its query API.

`tools/build-jaeger` makes the binary; the storage is in memory and starts empty.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import requests

from tests.support.ports import free_ports
from tests.support.wait import wait_for

_REPOSITORY = Path(__file__).resolve().parents[2]

# The collector's configuration (JSON is YAML, too). No batch processor, so that a span is found as
# soon as the export is acknowledged, and no metrics of its own, which would need one more port.
_TRACES = "memory"
_HOST = "127.0.0.1"


def binary(build: bool = True) -> Path:
    """Return the path of Jaeger's binary, which is built first when it is not in the cache.

    The build takes minutes and shows on standard error that it goes on. With `build=False` the
    path may name a file that is not there yet.
    """
    command = [str(_REPOSITORY / "tools" / "build-jaeger"), *([] if build else ["--path"])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError("Jaeger was not built, see above; `tools/build-jaeger` tries it again")
    return Path(done.stdout.strip())


class Jaeger:
    """A Jaeger that runs from `with Jaeger() as jaeger:` to the end of the block."""

    def __init__(self) -> None:
        ports = free_ports(5)
        self.otlp_grpc_port, self.otlp_http_port, self.query_port = ports[:3]
        self._query_grpc_port, self._health_port = ports[3:]
        self.query = JaegerQuery(f"http://{_HOST}:{self.query_port}")
        self._folder = Path(tempfile.mkdtemp(prefix="k8st-jaeger-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def otlp_grpc_endpoint(self) -> str:
        """What OTEL_EXPORTER_OTLP_ENDPOINT is set to for OTLP over gRPC."""
        return f"http://{_HOST}:{self.otlp_grpc_port}"

    @property
    def otlp_http_endpoint(self) -> str:
        """What OTEL_EXPORTER_OTLP_ENDPOINT is set to for OTLP over HTTP."""
        return f"http://{_HOST}:{self.otlp_http_port}"

    def __enter__(self) -> "Jaeger":
        self.start()
        return self

    def start(self) -> None:
        """Start it, on the same ports as before if it ran before; return when it answers."""
        config = self._folder / "config.json"
        config.write_text(json.dumps(self._config(), indent=2))
        command = [str(binary()), "--config", str(config)]
        # --pdeathsig: also a test run that is killed leaves no Jaeger behind.
        setpriv = shutil.which("setpriv")
        if setpriv is not None:
            command = [setpriv, "--pdeathsig=TERM", "--", *command]
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ)
            )
        try:
            wait_for("Jaeger's query API", self._is_ready, timeout_s=60, interval_s=0.1)
        except BaseException as error:
            message = f"Jaeger does not start: {error}\nthe end of its log:\n{self.log_tail()}"
            self.__exit__(None, None, None)
            raise RuntimeError(message) from error

    def kill(self) -> None:
        """End it by SIGKILL; what it held in memory is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def log_tail(self, lines: int = 30) -> str:
        """Return the last `lines` lines of Jaeger's log."""
        return "\n".join(self._log_path.read_text(errors="replace").splitlines()[-lines:])

    @property
    def _log_path(self) -> Path:
        return self._folder / "jaeger.log"

    def _is_ready(self) -> bool:
        assert self._process is not None
        if (status := self._process.poll()) is not None:
            raise RuntimeError(f"it ended with exit status {status}")
        try:
            health = requests.get(f"http://{_HOST}:{self._health_port}/status", timeout=5)
            return health.status_code == 200 and self.query.services() is not None
        except requests.ConnectionError:
            return False

    def _config(self) -> dict[str, Any]:
        return {
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query", "healthcheckv2"],
                "pipelines": {
                    "traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}
                },
                "telemetry": {"metrics": {"level": "none"}},
            },
            "extensions": {
                "jaeger_storage": {"backends": {_TRACES: {"memory": {"max_traces": 100_000}}}},
                "jaeger_query": {
                    "storage": {"traces": _TRACES},
                    "enable_tracing": False,
                    "http": {"endpoint": f"{_HOST}:{self.query_port}"},
                    "grpc": {"endpoint": f"{_HOST}:{self._query_grpc_port}"},
                },
                "healthcheckv2": {
                    "use_v2": True,
                    "http": {"endpoint": f"{_HOST}:{self._health_port}"},
                },
            },
            "receivers": {
                "otlp": {
                    "protocols": {
                        "grpc": {"endpoint": f"{_HOST}:{self.otlp_grpc_port}"},
                        "http": {"endpoint": f"{_HOST}:{self.otlp_http_port}"},
                    }
                }
            },
            "exporters": {"jaeger_storage_exporter": {"trace_storage": _TRACES}},
        }


class JaegerQuery:
    """Asks Jaeger's `/api/v3`.

    A span is the OTLP span in JSON as Jaeger answers it, with two keys of ours: `service` (the
    resource's service.name) and `resource` (its attributes as a flat dict); its own `attributes`
    are made flat as well. Ids are lower-case hex, times are nanoseconds in a string, as OTLP/JSON
    has them.
    """

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url

    def services(self) -> list[str]:
        """Return the names of the services that sent spans, sorted."""
        answer = self._get("services")
        return sorted(answer.get("services") or []) if answer else []

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        """Return the spans of the trace with that id (32 hex digits); none when it is unknown."""
        return flat_spans(self._get(f"traces/{trace_id}"))

    def find(
        self, service: str, start_ns: int, end_ns: int, limit: int = 20
    ) -> dict[str, list[dict[str, Any]]]:
        """Return up to `limit` traces of `service` that start in that time, by their trace id.

        Args:
            service: the service.name of at least one span.
            start_ns: nanoseconds since the epoch.
            end_ns: nanoseconds since the epoch.
            limit: how many traces at most.
        """
        start, end = _rfc3339(start_ns), _rfc3339(end_ns)
        snake_case = {"service_name": service, "start_time_min": start, "start_time_max": end}
        snake_case["num_traces"] = str(limit)
        camel_case = {"serviceName": service, "startTimeMin": start, "startTimeMax": end}
        camel_case["searchDepth"] = str(limit)
        # Jaeger up to 2.13 knows one spelling and refuses the other with 400; newer ones differ.
        answer = self._get("traces", snake_case, or_else=camel_case)
        traces: dict[str, list[dict[str, Any]]] = {}
        for span in flat_spans(answer):
            traces.setdefault(span["traceId"], []).append(span)
        return traces

    def wait_for_trace(
        self, trace_id: str, spans: int, timeout_s: float = 20.0
    ) -> list[dict[str, Any]]:
        """Return the trace's spans as soon as there are at least `spans` of them.

        Raises:
            TimeoutError: there are fewer after `timeout_s` seconds; the message has their number.
        """
        found: list[dict[str, Any]] = []

        def is_complete() -> bool:
            found[:] = self.trace(trace_id)
            return len(found) >= spans

        try:
            wait_for(f"trace {trace_id}", is_complete, timeout_s, interval_s=0.1)
        except TimeoutError:
            raise TimeoutError(
                f"Jaeger has {len(found)} of {spans} spans of trace {trace_id} after "
                f"{timeout_s:g} s: {sorted(span['name'] for span in found)}"
            ) from None
        return found

    def _get(
        self,
        path: str,
        query: dict[str, str] | None = None,
        or_else: dict[str, str] | None = None,
    ) -> Any:
        """Return the answer's JSON, None for 404; `or_else` is the query to try after a 400."""
        parameters = {f"query.{name}": value for name, value in (query or {}).items()}
        answer = requests.get(f"{self.base_url}/api/v3/{path}", parameters, timeout=10)
        if answer.status_code == 400 and or_else is not None:
            return self._get(path, or_else)
        if answer.status_code == 404:
            return None
        if not answer.ok:
            raise RuntimeError(f"Jaeger answered {answer.status_code} to {path}: {answer.text}")
        return answer.json()


def flat_spans(answer: Any) -> list[dict[str, Any]]:
    """Return the spans in an answer of `/api/v3/traces`, in the order of their start."""
    result = (answer or {}).get("result") or {}
    spans = []
    for resource_spans in result.get("resourceSpans") or []:
        resource = flat_attributes(resource_spans.get("resource", {}).get("attributes"))
        for scope_spans in resource_spans.get("scopeSpans") or []:
            for span in scope_spans.get("spans") or []:
                flat = dict(span, attributes=flat_attributes(span.get("attributes")))
                flat |= {"service": resource.get("service.name"), "resource": resource}
                spans.append(flat)
    return sorted(spans, key=lambda span: int(span["startTimeUnixNano"]))


def flat_attributes(attributes: Any) -> dict[str, Any]:
    """Return OTLP/JSON's list of key and typed value as a dict of Python values."""
    return {
        each.get("key", ""): _python_value(each.get("value") or {}) for each in attributes or []
    }


_VALUES: dict[str, Callable[[Any], Any]] = {
    "stringValue": str,
    "boolValue": bool,
    "intValue": int,  # int64 is a string in OTLP/JSON
    "doubleValue": float,
    "bytesValue": str,  # base64
    "arrayValue": lambda array: [_python_value(each) for each in array.get("values") or []],
    "kvlistValue": lambda pairs: flat_attributes(pairs.get("values")),
}


def _python_value(value: dict[str, Any]) -> Any:
    for kind, content in value.items():
        return _VALUES[kind](content)
    return None


def _rfc3339(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
