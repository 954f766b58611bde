# SPDX-License-Identifier: Apache-2.0
"""Print the releases of this package and of what it works with, for a bug report."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `version` takes."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print one line a part."""
    from k8s_tracing.doctor import versions

    found = versions()
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        for name, release in found.items():
            print(f"{name}: {release}")
    return 0
