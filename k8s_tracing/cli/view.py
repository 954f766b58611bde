# SPDX-License-Identifier: Apache-2.0
"""Show traces in the browser, and receive more of them by OTLP.

PATH is an LTTng trace folder (or one that has such folders below it), a file of OTLP JSON lines, or a file of Jaeger's
JSON. Without one the viewer shows what is sent to it.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `view` takes."""
    parser.add_argument("paths", nargs="*", metavar="PATH", type=Path, help="what to show")
    parser.add_argument(
        "--host", default="127.0.0.1", help="listen there (%(default)s: only this machine)"
    )
    parser.add_argument(
        "--port", type=_port, default=16686, help="of the page and the query API (%(default)s)"
    )
    parser.add_argument(
        "--otlp-http-port", type=_port, default=4318, metavar="PORT", help="(%(default)s)"
    )
    parser.add_argument(
        "--otlp-grpc-port", type=_port, default=4317, metavar="PORT", help="(%(default)s)"
    )
    parser.add_argument(
        "--store", type=Path, metavar="FILE", help="keep the traces in FILE for the next time"
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")


def run(args: argparse.Namespace) -> int:
    """Load the paths, then serve."""
    import signal
    import sys

    from k8s_tracing.viewer.load import load
    from k8s_tracing.viewer.server import Addresses, Viewer
    from k8s_tracing.viewer.store import Store

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    addresses = Addresses(args.host, args.port, args.otlp_http_port, args.otlp_grpc_port)
    with Store(args.store) as store, Viewer(store, addresses) as viewer:
        for path in args.paths:
            load(path, store)
        print(f"k8s-tracing: OTLP/HTTP: {viewer.otlp_http_url}")
        print(f"k8s-tracing: OTLP/gRPC: {viewer.otlp_grpc_url}")
        print(f"k8s-tracing: page: {viewer.url}", flush=True)
        if args.open:
            import webbrowser

            webbrowser.open(viewer.url)
        viewer.serve()
    return 0


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"not a port: {text}")
    return int(text)
