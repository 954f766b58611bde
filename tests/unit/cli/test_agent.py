"""Options of `k8s-tracing agent` and what becomes of them."""

import argparse
import contextlib
import re
from pathlib import Path

import pytest

from k8s_tracing.agent import main
from k8s_tracing.cli import agent
from k8s_tracing.dataplane import cluster, names, plane, scheduler
from k8s_tracing.errors import AgentError

PAGE = Path(__file__).parents[3] / "docs/reference/agent.md"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for flag in agent.OPTIONS:
        monkeypatch.delenv(agent.variable(flag), raising=False)


def parse(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> main.Options:
    parser = argparse.ArgumentParser()
    agent.add_arguments(parser)
    given: list[main.Options] = []
    watched: list[dict[str, object]] = []

    def watch(**parts: object) -> contextlib.AbstractContextManager[object]:
        watched.append(parts)
        return contextlib.nullcontext(object())

    def run_agent(options: main.Options, data_plane: object = None) -> int:
        given.append(options)
        assert bool(watched) == (data_plane is not None)
        return 7

    monkeypatch.setattr(main, "run_agent", run_agent)
    monkeypatch.setattr(plane, "DataPlane", watch)
    monkeypatch.setattr(scheduler, "Scheduler", dict)
    monkeypatch.setattr(names.StaticNames, "from_file", lambda path: path)
    assert agent.run(parser.parse_args(arguments)) == 7
    if watched:
        assert watched == [DATA_PLANE]
    (options,) = given
    return options


ALL = {
    "--endpoint": ["http://h:1", "grpc://h:2"],
    "--protocol": ["grpc"],
    "--output-file": ["f", "-"],
    "--spool": ["s"],
    "--spool-max-bytes": ["2Gi"],
    "--spool-max-age": ["90m"],
    "--session": ["n"],
    "--private": ["p"],
    "--proc": ["/host/proc"],
    "--app-socket-dir": ["a"],
    "--rotation-s": ["0.5"],
    "--buffers": ["pid"],
    "--buffer-memory": ["8Mi"],
    "--listen": ["0.0.0.0:1"],
    "--ingress-udp": ["127.0.0.1:0"],
    "--ingress-tcp": ["[::1]:0"],
    "--ingress-unix": ["i"],
    "--otlp-http": ["127.0.0.1:4318"],
    "--otlp-grpc": ["127.0.0.1:4317"],
    "--services": ["t"],
    "--cpu-split": ["500us"],
    "--log-level": ["debug"],
}
DATA_PLANE = {
    "udp": ("127.0.0.1", 0),
    "tcp": ("::1", 0),
    "unix": Path("i"),
    "otlp_http": ("127.0.0.1", 4318),
    "otlp_grpc": ("127.0.0.1", 4317),
    "names": Path("t"),
    "scheduler": {"shortest_ns": 500_000, "proc": Path("/host/proc")},
}
OPTIONS = main.Options(
    session="n",
    rotation_s=0.5,
    endpoints=("http://h:1", "grpc://h:2"),
    protocol="grpc",
    output_files=(Path("f"), Path("-")),
    spool=Path("s"),
    spool_max_bytes=2 << 30,
    spool_max_age_s=5400.0,
    private=Path("p"),
    proc=Path("/host/proc"),
    buffer_owner="pid",
    buffer_memory_bytes=8 << 20,
    app_socket_dir=Path("a"),
    listen="0.0.0.0:1",
    log_level="debug",
)


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = main.Options(session="k8s-tracing", listen="127.0.0.1:4319")
    assert parse(monkeypatch) == expected


def test_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ALL.keys() == agent.OPTIONS.keys()
    words = [word for flag, values in ALL.items() for value in values for word in (flag, value)]
    assert parse(monkeypatch, *words) == OPTIONS


def test_names_come_from_the_api_server_or_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    followed = contextlib.nullcontext("the API server's")
    watched: list[object] = []

    def watch(**parts: object) -> contextlib.AbstractContextManager[object]:
        watched.append(parts["names"])
        return contextlib.nullcontext(object())

    monkeypatch.setattr(cluster.ClusterNames, "in_cluster", lambda: followed)
    monkeypatch.setattr(names.StaticNames, "from_file", lambda path: path)
    monkeypatch.setattr(plane, "DataPlane", watch)
    monkeypatch.setattr(main, "run_agent", lambda options, data_plane: 0)
    parser = argparse.ArgumentParser()
    agent.add_arguments(parser)
    for value in ("kubernetes", "./kubernetes.json"):
        assert agent.run(parser.parse_args(["--services", value])) == 0
    assert watched == ["the API server's", Path("kubernetes.json")]


def test_every_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for flag, values in ALL.items():
        name = "K8S_TRACING_AGENT_" + flag[2:].replace("-", "_").upper()
        monkeypatch.setenv(name, " ".join(values))
    assert parse(monkeypatch) == OPTIONS


def test_an_option_goes_before_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K8S_TRACING_AGENT_ENDPOINT", "http://a http://b")
    monkeypatch.setenv("K8S_TRACING_AGENT_SESSION", "variable")
    options = parse(monkeypatch, "--endpoint", "http://c", "--session", "option")
    assert (options.endpoints, options.session) == (("http://c",), "option")


def test_where_health_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse(monkeypatch, "--private", "p").listen == "127.0.0.1:0"
    assert parse(monkeypatch, "--private", "p", "--listen", "127.0.0.1:9").listen == "127.0.0.1:9"
    assert parse(monkeypatch, "--listen", "none").listen is None


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("LOG_LEVEL", "loud", "one of debug, info, warning, error"),
        ("ROTATION_S", "0", "not a positive number"),
        ("ROTATION_S", "soon", "could not convert"),
        ("SPOOL_MAX_BYTES", "much", "not a size"),
        ("SPOOL_MAX_AGE", "0", "not a time"),
    ],
)
def test_a_variable_that_cannot_be(
    name: str, text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"K8S_TRACING_AGENT_{name}", text)
    with pytest.raises(AgentError, match=f"K8S_TRACING_AGENT_{name}.*{said}"):
        parse(monkeypatch)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("1.5k", 1500), ("1K", 1000), ("2Ki", 2048), ("3MiB", 3 << 20), ("1T", 10**12)],
)
def test_sizes(text: str, size: int) -> None:
    assert agent.size_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("1", 1), ("1.5m", 90), ("2h", 7200), ("1d", 86400), ("3s", 3)]
)
def test_times(text: str, seconds: float) -> None:
    assert agent.duration_s(text) == seconds


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "soon"])
def test_a_rotation_takes_time(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    agent.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--rotation-s", text])
    assert "--rotation-s" in capsys.readouterr().err


def test_the_page_has_every_option_with_its_variable() -> None:
    rows = re.findall(
        r"^\| `(--[a-z-]+)[^`]*` \| `([A-Z0-9_]+)` \|", PAGE.read_text(), re.MULTILINE
    )
    assert rows == [(flag, agent.variable(flag)) for flag in agent.OPTIONS]
