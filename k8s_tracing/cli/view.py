# SPDX-License-Identifier: Apache-2.0
"""Show traces in the browser, and receive more of them by OTLP.

PATH is an LTTng trace folder (or one that has such folders below it), a file of OTLP JSON lines, or a file of Jaeger's
JSON. Without one the viewer shows what is sent to it. It answers to Jaeger's query APIs, on Jaeger's ports, to this
machine alone; K8S_TRACING_VIEW_HOST and K8S_TRACING_VIEW_STORE say otherwise, as their options do.

Traces are kept until it ends, or in the file that --store names; past --max-bytes or --max-age the oldest go.
Ends on SIGTERM and SIGINT. Exit status 1 says that a PATH could not be read.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from k8s_tracing.errors import K8sTracingError, RelayError

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    from k8s_tracing.viewer.server import Viewer

_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_TIMES_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MIN_BYTES = 32 << 20
_PROGRESS_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `view` takes."""
    parser.add_argument("paths", nargs="*", metavar="PATH", type=Path, help="what to show")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument(
        "--host",
        default=os.environ.get("K8S_TRACING_VIEW_HOST") or "127.0.0.1",
        help="listen there; 0.0.0.0: to whoever reaches this machine (default: 127.0.0.1)",
    )
    for name, port, what in (
        ("--port", 16686, "the page and the query APIs"),
        ("--otlp-http-port", 4318, "OTLP over HTTP"),
        ("--otlp-grpc-port", 4317, "OTLP over gRPC"),
    ):
        text = f"{what} ({port}; 0: any that is free)"
        parser.add_argument(name, type=_port, default=port, metavar="PORT", help=text)
    parser.add_argument(
        "--no-receiver", action="store_true", help="show the PATHs, receive nothing"
    )
    parser.add_argument(
        "--store",
        type=Path,
        default=os.environ.get("K8S_TRACING_VIEW_STORE"),
        metavar="FILE",
        help="keep the traces in FILE (default: until the end)",
    )
    parser.add_argument(
        "--max-bytes", type=_size, default=1 << 30, metavar="SIZE", help="like 500M (1G)"
    )
    parser.add_argument(
        "--max-age", type=_age_s, default=0, metavar="AGE", help="like 12h or 7d (no limit)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve, and load the paths meanwhile."""
    try:
        from k8s_tracing.viewer.server import Addresses, Viewer
        from k8s_tracing.viewer.store import Limits, Store
    except ModuleNotFoundError as error:
        raise K8sTracingError(
            f"{error}: the viewer is an extra; pip install 'k8s-tracing[viewer]'"
        ) from error

    for path in args.paths:
        if not path.exists():
            raise K8sTracingError(f"{path} does not exist")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    ports = (None, None) if args.no_receiver else (args.otlp_http_port, args.otlp_grpc_port)
    store = Store(args.store and Path(args.store), Limits(args.max_bytes, args.max_age))
    with store, Viewer(store, Addresses(args.host, args.port, *ports)) as viewer:
        if not args.no_receiver:
            _say(f"OTLP/HTTP: {viewer.otlp_http_url}")
            _say(f"OTLP/gRPC: {viewer.otlp_grpc_url}")
        _say(f"page: {viewer.url}")
        if args.open:
            import webbrowser

            webbrowser.open(viewer.url)
        with _Loading(viewer, args.paths) as loading:
            viewer.serve()
        return 1 if loading.failed else 0


class _Loading(threading.Thread):
    """Reads the paths while the page is there already. The first that cannot be read ends the viewer."""

    def __init__(self, viewer: Viewer, paths: Sequence[Path]) -> None:
        super().__init__(name="loading", daemon=True)
        self._viewer = viewer
        self._paths = paths
        self._ending = False
        self.failed = False

    def __enter__(self) -> _Loading:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending = True
        self.join()

    def run(self) -> None:
        try:
            for path in self._paths:
                self._load(path)
        except (K8sTracingError, OSError) as error:
            print(f"k8s-tracing: {error}", file=sys.stderr, flush=True)
            self.failed = True
        except BaseException:
            self.failed = True
            raise
        finally:
            if self.failed:
                self._viewer.stop()

    def _load(self, path: Path) -> None:
        spans, next_word = 0, time.monotonic() + _PROGRESS_S
        for request in _requests(path):
            if self._ending:
                return
            spans += self._viewer.add(request)
            if time.monotonic() > next_word:
                _say(f"{path}: {spans} spans so far")
                next_word = time.monotonic() + _PROGRESS_S
        _say(f"{path}: {spans} spans")


def _requests(path: Path) -> Iterator[ExportTraceServiceRequest]:
    from k8s_tracing.viewer.load import read_file

    return _read_folder(path) if path.is_dir() else read_file(path)


def _read_folder(path: Path) -> Iterator[ExportTraceServiceRequest]:
    """What can be read of a damaged trace is shown, with a word on stderr."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    from k8s_tracing.agent.chunks import chunk_folders
    from k8s_tracing.agent.relay import Relay

    chunks = chunk_folders(path)
    if not chunks:
        raise K8sTracingError(f"no LTTng trace in {path}")
    with Relay() as relay:
        for requests in (*map(relay.read, chunks), relay.finish()):
            try:
                for request in requests:
                    yield ExportTraceServiceRequest.FromString(request.body)
            except RelayError as error:
                print(f"k8s-tracing: {error}", file=sys.stderr, flush=True)


def _say(text: str) -> None:
    print(f"k8s-tracing: {text}", flush=True)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"not a port: {text}")
    return int(text)


def _size(text: str) -> int:
    number, unit = text[:-1], text[-1:].lower()
    if unit.isdecimal():
        number, unit = text, ""
    if not number.isdecimal() or unit not in ("", *_UNITS):
        raise argparse.ArgumentTypeError(f"not a size like 500M: {text}")
    size = int(number) * _UNITS.get(unit, 1)
    if size < _MIN_BYTES:
        raise argparse.ArgumentTypeError(f"less than 32M: {text}")
    return size


def _age_s(text: str) -> int:
    number, unit = text[:-1], text[-1:]
    if not number.isdecimal() or unit not in _TIMES_S or not int(number):
        raise argparse.ArgumentTypeError(f"not an age like 30m, 12h or 7d: {text}")
    return int(number) * _TIMES_S[unit]
