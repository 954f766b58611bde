# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin with one fixture. In conftest.py: ``pytest_plugins = ["k8s_tracing.testing_plugin"]``.

It is not a plugin that pytest finds by itself: that would import k8s_tracing, and so OpenTelemetry, at the start of
every test run on every machine that has it installed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k8s_tracing.testing import Captured, capture


@pytest.fixture
def k8s_tracing_spans() -> Iterator[Captured]:
    """The spans that the test makes, with fixed ids and a clock that advances by 1 s a reading."""
    with capture(fixed=True) as captured:
        yield captured
