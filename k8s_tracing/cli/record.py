# SPDX-License-Identifier: Apache-2.0
"""Run a program and show the traces that it records.

Needs neither root nor an agent: LTTng runs in a temporary folder for as long as the program does. Then the traces are
printed as trees, or written to a file (-o), or sent to an OTLP receiver (--endpoint).

    k8s-tracing record -- python app.py --port 8080

The exit status is the program's: 128 + n if signal n ended it.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `record` takes."""
    parser.add_argument(
        "-o", "--output-file", type=Path, metavar="FILE", help="append OTLP JSON lines to FILE"
    )
    parser.add_argument("--endpoint", metavar="URL", help="send to this OTLP receiver")
    parser.add_argument(
        "--protocol", choices=("http/protobuf", "grpc"), help="how (default: http/protobuf)"
    )
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="of the trees"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD ARGS...")


def run(args: argparse.Namespace) -> int:
    """Record, then print, write or send."""
    from k8s_tracing.agent.endpoint import from_environment
    from k8s_tracing.agent.export import Exporter, FileExporter, open_exporter
    from k8s_tracing.agent.recording import ended_in_order_by_signals, recording, run_program, send
    from k8s_tracing.agent.relay import Relay
    from k8s_tracing.cli.read import Counts, print_trees, wants_color
    from k8s_tracing.errors import AgentError
    from k8s_tracing.otlp import parse_request

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise AgentError(
            "nothing to run: name the program after `--`, as in `k8s-tracing record -- python app.py`"
        )
    exporters: list[Exporter] = []
    with ended_in_order_by_signals(), ExitStack() as stack:
        if args.output_file is not None:
            exporters.append(FileExporter(args.output_file))
        if args.endpoint is not None:
            exporters.append(
                open_exporter(
                    from_environment(os.environ, url=args.endpoint, protocol=args.protocol)
                )
            )
        for exporter in exporters:
            stack.callback(exporter.close)
        relay = stack.enter_context(Relay())
        recorded = stack.enter_context(recording())
        # Named, because a fallback that sends elsewhere would leave nothing to show, and nothing that says why.
        env = {"K8S_TRACING_BACKEND": "lttng", **os.environ, **recorded.env}
        status = run_program(command, env)
        requests = recorded.finish(relay)
        spans = sum(request.spans for request in requests)
        if not spans:
            _say(
                "no spans were recorded: the program, or one that it started, has to use k8s_tracing "
                "(`import k8s_tracing; k8s_tracing.init()`), on a machine with liblttng-ust"
            )
        sent = True
        for delivery in send(requests, exporters):
            done = delivery.total.accepted == spans
            sent = sent and done
            ending = (
                "" if done else f" of {spans}: the others are lost, write them to a file with -o"
            )
            _say(f"{delivery.exporter.name}: {delivery.total.accepted} spans{ending}")
        if not exporters:
            records = [span for request in requests for span in parse_request(request.body)]
            print_trees(records, color=wants_color(args.color))
            sys.stdout.flush()
            if records:
                counts = Counts(stats=relay.stats)
                counts.count(records)
                _say(counts.summary())
        return status or (0 if sent else 1)


def _say(text: str) -> None:
    print(f"k8s-tracing: {text}", file=sys.stderr)
