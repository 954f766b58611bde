# SPDX-License-Identifier: Apache-2.0
"""Print recorded traces as trees.

PATH is an LTTng trace folder (or one that has such folders below it, like a session's
output or the chunks of its rotation) or a file of OTLP JSON lines.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from k8s_tracing.errors import K8sTracingError, RelayError
from k8s_tracing.record import SpanRecord

if TYPE_CHECKING:
    from k8s_tracing.agent.relay import RelayStats, Request

MAX_WIDTH = 160  # wider lines are hard to follow with the eye


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `read` takes."""
    parser.add_argument("paths", nargs="+", metavar="PATH", type=Path, help="what to read")
    parser.add_argument("--trace-id", metavar="ID", help="only this trace, or those that begin so")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N traces")
    parser.add_argument("--events", action="store_true", help="print span events, too")
    parser.add_argument(
        "--json", action="store_true", help="print OTLP JSON lines instead of trees"
    )
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="default: auto"
    )


def run(args: argparse.Namespace) -> int:
    """Read every PATH and print the traces."""
    spans, lost = _read(args.paths)
    spans = _choose(spans, args.trace_id, args.limit)
    if args.json:
        _print_json(spans)
    else:
        print_trees(spans, color=wants_color(args.color), events=args.events)
    sys.stdout.flush()
    print(summary(spans, lost), file=sys.stderr)
    return 0


def _read(paths: Sequence[Path]) -> tuple[list[SpanRecord], RelayStats | None]:
    """The spans of all paths, and what the relay counted if there were LTTng traces among them."""
    from k8s_tracing.otlp import read_json_lines

    spans: list[SpanRecord] = []
    folders = []
    for path in paths:
        if not path.exists():
            raise K8sTracingError(f"{path} does not exist")
        if path.is_dir():
            folders.append(path)
        else:
            spans += read_json_lines(path)
    if not folders:
        return spans, None
    recorded, stats = _read_folders(folders)
    return spans + recorded, stats


def _read_folders(folders: Sequence[Path]) -> tuple[list[SpanRecord], RelayStats]:
    from k8s_tracing.agent.relay import Relay, chunk_folders

    chunks = [chunk for folder in folders for chunk in chunk_folders(folder)]
    if not chunks:
        raise K8sTracingError(f"no LTTng trace in {', '.join(map(str, folders))}")
    spans: list[SpanRecord] = []
    with Relay() as relay:
        for chunk in chunks:
            spans += _decode(relay.read(chunk))
        spans += _decode(relay.finish())
        return spans, relay.stats


def _decode(requests: Iterator[Request]) -> Iterator[SpanRecord]:
    """The spans of requests. What can be read of a damaged trace is kept, with a word on stderr."""
    from k8s_tracing.otlp import parse_request

    try:
        for request in requests:
            yield from parse_request(request.body)
    except RelayError as error:
        print(f"k8s-tracing: {error}", file=sys.stderr)


def _choose(
    spans: Sequence[SpanRecord], trace_id: str | None, limit: int | None
) -> list[SpanRecord]:
    """The spans of the traces asked for, the oldest trace first."""
    chosen: dict[str, list[SpanRecord]] = {}
    for span in sorted(spans, key=lambda span: span.start_time_ns):
        if trace_id is None or span.trace_id.startswith(trace_id.lower()):
            chosen.setdefault(span.trace_id, []).append(span)
    return [span for trace in list(chosen.values())[:limit] for span in trace]


def _print_json(spans: Sequence[SpanRecord]) -> None:
    """One line a trace."""
    from k8s_tracing.otlp import to_json_line, to_request

    for _, trace in itertools.groupby(spans, key=lambda span: span.trace_id):
        print(to_json_line(to_request(trace)))


def print_trees(spans: Sequence[SpanRecord], *, color: bool, events: bool = False) -> None:
    """Print the traces of spans, as wide as the terminal is."""
    from k8s_tracing.report.text import render_traces

    width = min(shutil.get_terminal_size((120, 0)).columns, MAX_WIDTH)
    sys.stdout.write(render_traces(spans, color=color, width=width, events=events))


def wants_color(choice: str) -> bool:
    """Decide for `--color`. NO_COLOR is what other tools ask, too (no-color.org)."""
    if choice != "auto":
        return choice == "always"
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def summary(spans: Sequence[SpanRecord], stats: RelayStats | None) -> str:
    """Say in one line what there is, and what is missing."""
    traces = len({span.trace_id for span in spans})
    unfinished = sum(span.unfinished for span in spans)
    text = f"spans: {len(spans)}; traces: {traces}; unfinished: {unfinished}"
    if stats is None:
        return text
    counts = {
        "lost events": stats.discarded_events,
        "lost packets": stats.lost_packets,
        "unreadable packets": stats.unreadable_packets,
        "ends without a start": stats.ends_without_start,
        "invalid fields": stats.invalid_fields,
        "invalid events": stats.invalid_events,
    }
    for name, count in counts.items():
        if count or name == "lost events":
            text += f"; {name}: {count}"
    return text
