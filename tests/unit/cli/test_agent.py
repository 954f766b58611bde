"""Options of `k8s-tracing agent` and what becomes of them."""

import argparse
from pathlib import Path

import pytest

from k8s_tracing.agent import main
from k8s_tracing.cli import agent


def parse(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> main.Options:
    parser = argparse.ArgumentParser()
    agent.add_arguments(parser)
    given: list[main.Options] = []

    def run_agent(options: main.Options) -> int:
        given.append(options)
        return 7

    monkeypatch.setattr(main, "run_agent", run_agent)
    assert agent.run(parser.parse_args(arguments)) == 7
    (options,) = given
    return options


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    options = parse(monkeypatch=monkeypatch)
    assert options == main.Options(session="k8s-tracing", rotation_s=1.0, log_level="info")


def test_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    words = (
        "--endpoint http://h:1 --protocol grpc --output-file f --spool s --session n --private p"
    )
    options = parse(
        *words.split(), "--rotation-s", "0.5", "--log-level", "debug", monkeypatch=monkeypatch
    )
    assert options == main.Options(
        session="n",
        rotation_s=0.5,
        endpoint="http://h:1",
        protocol="grpc",
        output_file=Path("f"),
        spool=Path("s"),
        private=Path("p"),
        log_level="debug",
    )


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "soon"])
def test_a_rotation_takes_time(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    agent.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--rotation-s", text])
    assert "--rotation-s" in capsys.readouterr().err
