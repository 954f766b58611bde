"""The command line as such: help, errors, broken pipes, Ctrl-C."""

import subprocess
import sys
from pathlib import Path

import pytest

from k8s_tracing import cli
from k8s_tracing.errors import K8sTracingError


def test_every_command_has_a_help(capsys):
    for command in ("--help", *(module.__name__.split(".")[-1] for module in cli.COMMANDS)):
        with pytest.raises(SystemExit) as stop:
            cli.main([command, "--help"])
        assert stop.value.code == 0
        assert "usage: k8s-tracing" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.startswith("k8s-tracing 0.")


def test_without_a_command_it_says_what_there_is(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (K8sTracingError("do this"), 1, "k8s-tracing: do this\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_ends_a_command(monkeypatch, capsys, error, status, message):
    def fail(args):
        raise error

    monkeypatch.setattr(cli.read, "run", fail)
    assert cli.main(["read", "x"]) == status
    assert capsys.readouterr().err == message


def test_a_reader_that_goes_away_is_no_error():
    """As in `k8s-tracing read PATH | head -1`; here the reader has gone before the first line."""
    path = Path(__file__).parents[2] / "golden" / "report" / "hotrod.jsonl"
    command = [sys.executable, "-m", "k8s_tracing", "read", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.close()
        assert program.stderr.read() == b""
        assert program.wait() == 1
