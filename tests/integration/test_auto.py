"""`opentelemetry-instrument` and environment variables alone: unchanged applications record through LTTng."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import requests

from k8s_tracing.agent.relay import Relay
from k8s_tracing.otlp import parse_request
from k8s_tracing.record import SpanRecord
from tests.support.lttng import Session, SessionDaemon
from tests.support.ports import free_port
from tests.support.wait import wait_for

APPS = Path(__file__).parent / "apps"
BIN = Path(sys.executable).parent
INSTRUMENT = str(BIN / "opentelemetry-instrument")
PARENT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}

#: The ways to choose us; each alone must do, also beside the SDK, which is installed here.
WAYS = {
    "distro": {"OTEL_PYTHON_DISTRO": "k8s_tracing"},
    "configurator": {"OTEL_PYTHON_CONFIGURATOR": "k8s_tracing"},
    "provider": {"OTEL_PYTHON_TRACER_PROVIDER": "k8s_tracing"},
    "all": {
        "OTEL_PYTHON_DISTRO": "k8s_tracing",
        "OTEL_PYTHON_CONFIGURATOR": "k8s_tracing",
        "OTEL_PYTHON_TRACER_PROVIDER": "k8s_tracing",
    },
}
SERVICE = {"OTEL_SERVICE_NAME": "unchanged", "OTEL_SEMCONV_STABILITY_OPT_IN": "http"}


@contextlib.contextmanager
def serving(words: list[str], port: int, env: Mapping[str, str], log: Path) -> Iterator[None]:
    """A server that answers on `port`; what it wrote is in the failure, if there is one."""
    with (
        log.open("wb") as out,
        subprocess.Popen([INSTRUMENT, *words], cwd=APPS, env=env, stdout=out, stderr=out) as server,
    ):
        try:
            wait_for("the server", lambda: server.poll() is not None or answers(port), 60)
            assert server.poll() is None, log.read_text()
            yield
        finally:
            server.terminate()
            server.wait(60)


def answers(port: int) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/none", timeout=10)
        return True
    return False


def spans_of(session: Session) -> list[SpanRecord]:
    session.stop()
    with Relay() as relay:
        found = [*relay.read(session.output), *relay.finish()]
    return [span for request in found for span in parse_request(request.body)]


@pytest.mark.parametrize("way", WAYS)
def test_flask(session_daemon: SessionDaemon, tmp_path: Path, way: str) -> None:
    session = session_daemon.session("flask")
    port = free_port()
    words = [str(BIN / "flask"), "--app", "flask_app", "run", "--port", str(port)]
    env = {**session_daemon.env, **SERVICE, **WAYS[way]}
    with serving(words, port, env, tmp_path / "log"):
        base = f"http://127.0.0.1:{port}"
        assert requests.get(f"{base}/hello/ann", headers=PARENT, timeout=10).text.startswith(
            "hello ann"
        )
        assert requests.get(f"{base}/fail", timeout=10).status_code == 500
    spans = {span.name: span for span in spans_of(session)}
    hello = spans["GET /hello/<name>"]
    assert (hello.kind, hello.service_name, hello.status) == ("SERVER", "unchanged", "UNSET")
    assert f"00-{hello.trace_id}-{hello.parent_span_id}-01" == PARENT["traceparent"]
    assert hello.attributes["http.response.status_code"] == 200
    assert hello.scope_name == "opentelemetry.instrumentation.flask"
    assert spans["GET /fail"].status == "ERROR"
    assert hello.resource["telemetry.distro.name"] == "k8s_tracing"


def test_flask_under_gunicorn_with_workers(session_daemon: SessionDaemon, tmp_path: Path) -> None:
    session = session_daemon.session("gunicorn")
    port = free_port()
    words = [str(BIN / "gunicorn"), "--workers", "3", "--bind", f"127.0.0.1:{port}"]
    env = {**session_daemon.env, **SERVICE, **WAYS["provider"]}
    pids = set()
    with serving([*words, "--preload", "flask_app:app"], port, env, tmp_path / "log"):

        def all_workers_have_answered() -> bool:
            text = requests.get(f"http://127.0.0.1:{port}/hello/ann", timeout=10).text
            pids.add(int(text.rpartition(" ")[2]))
            return len(pids) == 3

        wait_for("an answer of every worker", all_workers_have_answered, 60)
    spans = [span for span in spans_of(session) if span.name == "GET /hello/<name>"]
    assert {span.resource["process.pid"] for span in spans} == pids
    assert len({span.resource["service.instance.id"] for span in spans}) == 3
    assert {span.service_name for span in spans} == {"unchanged"}


def test_fastapi(session_daemon: SessionDaemon, tmp_path: Path) -> None:
    session = session_daemon.session("fastapi")
    port = free_port()
    words = [str(BIN / "uvicorn"), "--port", str(port), "fastapi_app:app"]
    env = {**session_daemon.env, **SERVICE, **WAYS["provider"]}
    with serving(words, port, env, tmp_path / "log"):
        url = f"http://127.0.0.1:{port}/hello/ann"
        assert requests.get(url, headers=PARENT, timeout=10).json() == {"hello": "ann"}
    spans = spans_of(session)
    [hello] = [span for span in spans if span.name == "GET /hello/{name}"]
    assert (hello.kind, hello.service_name) == ("SERVER", "unchanged")
    assert f"00-{hello.trace_id}-{hello.parent_span_id}-01" == PARENT["traceparent"]
    assert hello.scope_name == "opentelemetry.instrumentation.fastapi"
    assert not hello.unfinished


def run(program: str, env: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*words, sys.executable, "-c", program],
        env=env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


ONE_PROVIDER = """
import k8s_tracing
from k8s_tracing import api
from opentelemetry import trace
with k8s_tracing.span("before init"):
    with trace.get_tracer("other").start_as_current_span("by OpenTelemetry"):
        pass
before = trace.get_tracer_provider()
k8s_tracing.init(INIT)
assert trace.get_tracer_provider() is before is api._provider
with k8s_tracing.span("after init"):
    pass
print(k8s_tracing.backend_name())
"""


@pytest.mark.parametrize("instrumented", [True, False])
def test_there_is_one_provider_with_init_and_without(
    session_daemon: SessionDaemon, instrumented: bool
) -> None:
    session = session_daemon.session("both")
    env = {**session_daemon.env, **SERVICE, **WAYS["provider"]}
    done = run(ONE_PROVIDER.replace("INIT", ""), env, *([INSTRUMENT] if instrumented else []))
    assert done.stdout == "lttng\n"
    assert "too late" not in done.stderr
    spans = {span.name: span for span in spans_of(session)}
    assert set(spans) == {"before init", "by OpenTelemetry", "after init"}
    assert spans["by OpenTelemetry"].parent_span_id == spans["before init"].span_id


def test_what_init_is_told_too_late_is_logged_with_the_remedy(
    session_daemon: SessionDaemon,
) -> None:
    session_daemon.session("late")
    env = {**session_daemon.env, **SERVICE, **WAYS["provider"]}
    done = run(ONE_PROVIDER.replace("INIT", "'mine'"), env, INSTRUMENT)
    assert "service_name came too late" in done.stderr
    assert "OTEL_SERVICE_NAME" in done.stderr


NO_EXPORT = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
WHOSE = "from opentelemetry import trace; print(type(trace.get_tracer_provider()).__module__)"


def test_being_installed_chooses_nothing(session_daemon: SessionDaemon) -> None:
    """OpenTelemetry's own distro and configurator, which are installed here as well, do their work."""
    env = {**session_daemon.env, **SERVICE, **NO_EXPORT}
    assert run(WHOSE, env, INSTRUMENT).stdout == "opentelemetry.sdk.trace\n"


def test_called_first_but_not_chosen_our_configurator_lets_the_other_work() -> None:
    program = f"""
from k8s_tracing.distro import Configurator, distro
assert distro() is None
Configurator().configure(auto_instrumentation_version="1")
{WHOSE}
"""
    assert run(program, {**os.environ, **NO_EXPORT}).stdout == "opentelemetry.sdk.trace\n"


def test_a_wrong_variable_does_not_stop_the_application(session_daemon: SessionDaemon) -> None:
    program = """
from opentelemetry import trace
with trace.get_tracer("app").start_as_current_span("work"):
    print("works")
"""
    env = {**session_daemon.env, **SERVICE, **WAYS["provider"], "K8S_TRACING_BACKEND": "fast"}
    done = run(program, env, INSTRUMENT)
    assert done.stdout == "works\n"
    assert "there is no backend 'fast'" in done.stderr
