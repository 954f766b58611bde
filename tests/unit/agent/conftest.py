"""What the agent's parts are given."""

from collections.abc import Iterator

import pytest

from k8s_tracing.agent.stopping import Stop


@pytest.fixture
def stop() -> Iterator[Stop]:
    stop = Stop()
    yield stop
    stop.close()
