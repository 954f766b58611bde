# SPDX-License-Identifier: Apache-2.0
"""The command `k8s-tracing`: one module a subcommand, whose docstring is the subcommand's help.

A module of a command has `add_arguments(parser)` and `run(args) -> int`, the exit status. It imports what it needs
inside `run`, so that `--help` is quick and a missing extra concerns only the commands that use it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from k8s_tracing.cli import agent, doctor, ingress, read, record, version, view
from k8s_tracing.errors import K8sTracingError
from k8s_tracing.resource import version as package_version

COMMANDS: tuple[ModuleType, ...] = (agent, record, read, view, ingress, doctor, version)

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130  # what a shell reports of a program that SIGINT ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: The arguments after the program's name; the process's own when None.

    Returns:
        The exit status: what the command returned, 1 after an error of ours, 130 after Ctrl-C.
    """
    args = _parser().parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()  # here, where a reader that has gone away can still be handled
    except K8sTracingError as error:
        print(f"k8s-tracing: {error}", file=sys.stderr)
        return EXIT_ERROR
    except BrokenPipeError:
        _discard_stdout()
        return EXIT_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return status


class _ShowVersion(argparse.Action):
    """Looks the version up when it is asked for, and not at every start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"k8s-tracing {package_version()}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="k8s-tracing", description="Distributed tracing for Python services on Kubernetes."
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in COMMANDS:
        name = module.__name__.rpartition(".")[2].replace("_", "-")
        text = (module.__doc__ or "").strip()
        command = commands.add_parser(
            name,
            help=text.partition("\n")[0].rstrip("."),
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _discard_stdout() -> None:
    """Point stdout at nothing: the interpreter flushes it once more at exit and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
