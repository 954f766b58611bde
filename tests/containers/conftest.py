"""A Docker daemon of our own, and the images that the tests run."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.support.docker import Docker
from tests.support.images import Images


@dataclass(frozen=True)
class Built:
    """The names of the images."""

    base: str
    agent: str
    application: str
    haproxy: str
    jaeger: str
    redis: str
    postgres: str


@pytest.fixture(scope="session")
def docker(pytestconfig: pytest.Config) -> Iterator[Docker]:
    """A dockerd for the whole test run."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    # Another test run may have to be waited for, which has to be seen.
    with capture.global_and_fixture_disabled():
        daemon = Docker().__enter__()
    try:
        yield daemon
    finally:
        daemon.__exit__(None, None, None)


@pytest.fixture(scope="session")
def images(docker: Docker) -> Iterator[Built]:
    """All images, built side by side where one does not need the other."""
    images = Images(docker)
    base = images.base()
    with ThreadPoolExecutor() as pool:
        built = pool.submit(images.wheel)
        haproxy = pool.submit(images.own, "haproxy")
        jaeger = pool.submit(images.jaeger)
        redis = pool.submit(images.own, "redis")
        postgres = pool.submit(images.own, "postgres")
        wheel = built.result()  # the builder finds it for the next three
        agent = pool.submit(images.agent)
        hotrod = pool.submit(images.hotrod)
        application = pool.submit(images.own, "application", WHEEL_IMAGE=wheel)
        hotrod.result()
        yield Built(
            base=base,
            agent=agent.result(),
            application=application.result(),
            haproxy=haproxy.result(),
            jaeger=jaeger.result(),
            redis=redis.result(),
            postgres=postgres.result(),
        )
    images.prune()
