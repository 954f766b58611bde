# SPDX-License-Identifier: Apache-2.0
"""Send what the programs on this machine record to an OpenTelemetry backend.

Owns one LTTng recording session, reads the chunks that it finishes and sends their spans by OTLP, to Jaeger, an
OpenTelemetry Collector or any other receiver. Chunks wait on disk until the receiver has acknowledged them.
The OTEL_EXPORTER_OTLP_* variables mean what OpenTelemetry says they mean; options go before them.

Ends in order on SIGTERM and SIGINT: what is recorded by then is still sent, for 10 seconds at most. Exit status 1 says
that something had to stay on disk; the next agent with the same --spool sends it.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

DEFAULT_SESSION = "k8s-tracing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `agent` takes."""
    parser.add_argument(
        "--endpoint", metavar="URL", help="OTLP receiver (default: http://localhost:4318)"
    )
    parser.add_argument(
        "--protocol", choices=("http/protobuf", "grpc"), help="how (default: http/protobuf)"
    )
    parser.add_argument(
        "--output-file", type=Path, metavar="PATH", help="also append OTLP JSON lines to PATH"
    )
    parser.add_argument(
        "--spool", type=Path, metavar="DIR", help="where chunks wait until they are acknowledged"
    )
    parser.add_argument(
        "--session", default=DEFAULT_SESSION, metavar="NAME", help="LTTng session (%(default)s)"
    )
    parser.add_argument(
        "--private",
        type=Path,
        metavar="DIR",
        help="run an LTTng session daemon of our own in DIR instead of using the machine's; "
        "DIR/env.json tells what programs need in their environment to find it",
    )
    parser.add_argument(
        "--rotation-s",
        type=_positive,
        default=1.0,
        metavar="SECONDS",
        help="finish a chunk this often (%(default)s)",
    )
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info"
    )


def run(args: argparse.Namespace) -> int:
    """Run the agent until it is told to stop."""
    from k8s_tracing.agent.main import Options, run_agent

    return run_agent(
        Options(
            endpoint=args.endpoint,
            protocol=args.protocol,
            output_file=args.output_file,
            spool=args.spool,
            session=args.session,
            private=args.private,
            rotation_s=args.rotation_s,
            log_level=args.log_level,
        )
    )


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"not a positive number of seconds: {text}")
    return number
