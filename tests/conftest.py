"""Fixtures for the real programs that tests run against, and a header that names their versions.

A program that is missing is a failure that says how to install it. Nothing is skipped for it.
"""

import functools
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import jaeger as jaeger_support
from tests.support import side_by_side
from tests.support.lttng import SessionDaemon

JAEGER_BUILD_TIMEOUT_S = 1500


def pytest_report_header() -> list[str]:
    """Say which of the real programs are here, and in which version."""
    programs = [_version(name) for name in ("lttng", "babeltrace2", "redis-server")]
    binary = jaeger_support.binary(build=False)
    state = "built" if binary.exists() else "not built yet; the first test that needs it builds it"
    return [
        "real programs: " + ", ".join(programs),
        f"jaeger: {state} ({binary})",
        f"native extension: {_native_extension()}",
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the first test that needs Jaeger the time to build it; and in a process of several, put tests in order."""
    worker = getattr(config, "workerinput", None)
    built = worker["jaeger_is_built"] if worker else _jaeger_is_built()
    waiting = [] if built else [i for i in items if "jaeger" in getattr(i, "fixturenames", ())]
    for item in waiting:
        item.add_marker(pytest.mark.timeout(JAEGER_BUILD_TIMEOUT_S))
    if worker:
        side_by_side.sort(items, {item.path for item in waiting})


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each process the same: all have to find the tests in one order."""
    node.workerinput["jaeger_is_built"] = _jaeger_is_built()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What tools/run-tests hands out at a time."""
    return side_by_side.scheduler(config, log)


@functools.cache
def _jaeger_is_built() -> bool:
    return jaeger_support.binary(build=False).exists()


@pytest.fixture(scope="session")
def jaeger(pytestconfig: pytest.Config) -> Iterator[jaeger_support.Jaeger]:
    """A Jaeger for the whole test run; tests tell their traces apart by trace id."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    # The build takes minutes when Jaeger is not in the cache; its progress has to be seen.
    with capture.global_and_fixture_disabled():
        jaeger_support.binary()
    with jaeger_support.Jaeger() as running:
        yield running


@pytest.fixture
def session_daemon() -> Iterator[SessionDaemon]:
    """A private lttng-sessiond for one test."""
    with SessionDaemon() as daemon:
        yield daemon


@pytest.fixture(scope="session")
def registered_daemon() -> Iterator[SessionDaemon]:
    """A private daemon with which this very process registers: liblttng-ust reads the variable once."""
    with SessionDaemon() as daemon:
        before = os.environ.get("LTTNG_HOME")
        os.environ["LTTNG_HOME"] = str(daemon.home)
        try:
            yield daemon
        finally:
            if before is None:
                del os.environ["LTTNG_HOME"]
            else:
                os.environ["LTTNG_HOME"] = before


def _version(program: str) -> str:
    if shutil.which(program) is None:
        return f"{program} MISSING (run `make setup`)"
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    words = answer.stdout.split("\n", 1)[0].replace("v=", "").split()
    return f"{program} {next((word for word in words if word[0].isdigit()), 'of unknown version')}"


def _native_extension() -> str:
    """Where the compiled part lies; found, not imported: tests choose the backend themselves."""
    try:
        found = importlib.util.find_spec("k8s_tracing._core")
    except ImportError:
        return "MISSING, k8s_tracing is not installed (run `make setup`)"
    return str(found.origin) if found else "MISSING (run `make setup`); the fallback is in use"
