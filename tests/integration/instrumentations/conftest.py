"""Every backend behind OpenTelemetry's own instrumentations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.instrumentation._semconv import _OpenTelemetrySemanticConventionStability

from k8s_tracing.testing import using
from tests.contract.conftest import InMemory, Lttng, Recording, Sdk
from tests.support.recorded import Recorded

# As the agent does: gRPC's fork handlers would write into what `lttng` answers, which is forked where root runs this.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


# OpenTelemetry's SDK is here to say what is expected: these tests may ask of ours what the SDK does, no less.
@pytest.fixture(params=["memory", "lttng", "otel"])
def recorded(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Recorded]:
    """A backend behind OpenTelemetry's global provider, which `init` can set once in a process."""
    if request.param == "memory":
        recording: Recording = InMemory()
    elif request.param == "otel":
        recording = Sdk()
    else:
        daemon = request.getfixturevalue("registered_daemon")
        recording = Lttng(daemon, f"instrumented-{tmp_path.name}")
    with using(recording.provider):
        yield Recorded(recording)


@pytest.fixture(autouse=True)
def _stable_conventions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The attribute names that are stable; the instrumentations read the variable once in a process."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")
    monkeypatch.setattr(_OpenTelemetrySemanticConventionStability, "_initialized", False)
    yield
    _OpenTelemetrySemanticConventionStability._initialized = False
