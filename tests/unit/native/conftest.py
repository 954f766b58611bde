"""Native spans, whose records are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from k8s_tracing import native
from k8s_tracing.backends.memory import MemoryBackend
from k8s_tracing.provider import TracerProvider
from k8s_tracing.sampling import Sampling
from k8s_tracing.settings import Limits
from k8s_tracing.testing import using


@pytest.fixture
def backend() -> Iterator[MemoryBackend]:
    backend = MemoryBackend({"service.name": "tests"}, Limits(), Sampling())
    native._reported.clear()
    with using(TracerProvider(backend)):
        yield backend


@pytest.fixture
def tracer(backend: MemoryBackend) -> Any:
    return backend.tracer("tests")
