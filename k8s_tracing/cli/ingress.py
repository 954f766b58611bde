# SPDX-License-Identifier: Apache-2.0
"""Print or check the configuration that makes HAProxy or nginx part of the traces.

    k8s-tracing ingress config haproxy             lines for each frontend
    k8s-tracing ingress config nginx               lines for the http block and for locations
    k8s-tracing ingress config nginx --check FILE  what FILE lacks, with all that it includes

The proxies are the ones that distributions ship. They go on with the trace of a request or begin one, and log one line
a request to the agent (`k8s-tracing agent --ingress-udp`), which makes spans of it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `ingress` takes."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    config = commands.add_parser("config", help="print or check configuration")
    config.add_argument("proxy", choices=("haproxy", "nginx"))
    config.add_argument(
        "--service-name", metavar="NAME", help="what its spans call it (default: the proxy's kind)"
    )
    config.add_argument(
        "--log-to",
        default="127.0.0.1:5514",
        metavar="TARGET",
        help="where the agent listens for syslog, in the proxy's own notation (default: %(default)s)",
    )
    config.add_argument("--check", type=Path, metavar="FILE", help="say what FILE lacks")


def run(args: argparse.Namespace) -> int:
    """Print or check."""
    from k8s_tracing.dataplane.ingress import check, haproxy, nginx

    service = args.service_name or args.proxy
    if args.proxy == "haproxy":
        snippet = haproxy.snippet(service, args.log_to)
        if args.check is None:
            sys.stdout.write(snippet)
            return 0
        return _report(args.check, check.check_haproxy(args.check, snippet))
    http, location = nginx.snippets(service, args.log_to)
    if args.check is None:
        sys.stdout.write(f"{http}\n{location}")
        return 0
    return _report(args.check, check.check_nginx(args.check))


def _report(path: Path, problems: list[str]) -> int:
    for problem in problems:
        print(f"{path}: {problem}")
    if not problems:
        print(f"{path}: all there")
    return 1 if problems else 0
