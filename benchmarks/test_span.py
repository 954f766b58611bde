# SPDX-License-Identifier: Apache-2.0
"""Our own cases under pytest-benchmark, to compare one change with another:

    .venv/bin/python -m pytest benchmarks --benchmark-autosave
    .venv/bin/python -m pytest benchmarks --benchmark-compare

A session of a private daemon records the spans. For peers and ratios see span_cost.py, where each case has a process of
its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.cases import CASES
from tests.support.lttng import SessionDaemon

OURS = [name for name, case in CASES.items() if name.startswith("ours") and case.recorded]


@pytest.fixture(scope="module")
def recording() -> Iterator[None]:
    """Record this process: liblttng-ust reads the variable once, when it is loaded."""
    with SessionDaemon() as daemon, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTTNG_HOME", str(daemon.home))
        session = daemon.session(
            "benchmark", channel_options=("--subbuf-size=512k", "--num-subbuf=8")
        )
        yield
        session.stop()


@pytest.mark.parametrize("name", OURS)
def test_span(name: str, recording: None, benchmark: BenchmarkFixture) -> None:
    assert "LTTNG_HOME" in os.environ
    case = CASES[name]
    work = case.make()
    benchmark.extra_info["spans"] = case.spans
    benchmark.pedantic(work, rounds=50, iterations=max(1, 1000 // case.spans), warmup_rounds=2)
