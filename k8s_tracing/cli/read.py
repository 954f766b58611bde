# SPDX-License-Identifier: Apache-2.0
"""Print recorded traces as trees.

PATH is an LTTng trace folder, a folder of chunks, or a file of OTLP JSON lines.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `read` takes."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="what to read")


def run(args: argparse.Namespace) -> int:
    """Read every PATH and print the traces."""
    return 0
