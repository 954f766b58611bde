"""What `k8s-tracing view` takes."""

import argparse
from pathlib import Path

import pytest

from k8s_tracing.cli import main, view


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    view.add_arguments(parser)
    return parser.parse_args(words)


def test_this_machine_alone_on_jaegers_ports_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("K8S_TRACING_VIEW_HOST", "K8S_TRACING_VIEW_STORE"):
        monkeypatch.delenv(name, raising=False)
    args = parsed()
    assert (args.host, args.port, args.otlp_http_port, args.otlp_grpc_port) == (
        "127.0.0.1",
        16686,
        4318,
        4317,
    )
    assert (args.store, args.max_bytes, args.max_age) == (None, 1 << 30, 0)


def test_variables_and_options_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K8S_TRACING_VIEW_HOST", "::1")
    monkeypatch.setenv("K8S_TRACING_VIEW_STORE", "kept")
    assert (parsed().host, Path(parsed().store)) == ("::1", Path("kept"))
    args = parsed("--host", "0.0.0.0", "--store", "other")
    assert (args.host, args.store) == ("0.0.0.0", Path("other"))


@pytest.mark.parametrize(
    ("words", "attribute", "value"),
    [
        (["--max-bytes", "500M"], "max_bytes", 500 << 20),
        (["--max-bytes", "2g"], "max_bytes", 2 << 30),
        (["--max-bytes", "99999999"], "max_bytes", 99999999),
        (["--max-age", "90s"], "max_age", 90),
        (["--max-age", "7d"], "max_age", 7 * 86400),
        (["--port", "0"], "port", 0),
    ],
)
def test_sizes_ages_and_ports(words: list[str], attribute: str, value: int) -> None:
    assert getattr(parsed(*words), attribute) == value


@pytest.mark.parametrize(
    "words",
    [
        ["--max-bytes", "1M"],
        ["--max-bytes", "x"],
        ["--max-bytes", ""],
        ["--max-bytes", "-5G"],
        ["--max-age", "5"],
        ["--max-age", "0d"],
        ["--max-age", "xd"],
        ["--port", "65536"],
        ["--port", "-1"],
        ["--otlp-http-port", "x"],
    ],
)
def test_what_is_not_taken(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(*words)
    assert f"argument {words[0]}: " in capsys.readouterr().err


def test_a_path_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(tmp_path / "missing")]) == 1
    assert "missing does not exist" in capsys.readouterr().err
