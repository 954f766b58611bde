# SPDX-License-Identifier: Apache-2.0
"""Print recorded traces as trees, or convert them.

PATH is an LTTng trace folder (or one that has such folders below it, like a session's
output or the chunks of its rotation) or a file of OTLP JSON lines.

    k8s-tracing read PATH --to otlp-json > spans.jsonl   # a line a trace, for anything that reads OTLP
    k8s-tracing read PATH --to jaeger-json > jaeger.json # for the upload of Jaeger's page
    k8s-tracing read PATH --to perfetto > perfetto.json  # for ui.perfetto.dev
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
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
        "--to", choices=tuple(_WRITERS), default="tree", help="what to write (default: %(default)s)"
    )
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="default: auto"
    )


def run(args: argparse.Namespace) -> int:
    """Read every PATH and write the traces."""
    from k8s_tracing.report.spill import Traces

    counts = Counts()
    with Traces() as traces:
        wanted = (args.trace_id or "").lower()
        for spans in _read(args.paths, counts):
            traces.add(span for span in spans if span.trace_id.startswith(wanted))
        for text in _WRITERS[args.to](counts.counted(traces.traces(args.limit)), args):
            sys.stdout.write(text)
    sys.stdout.flush()
    print(counts.summary(), file=sys.stderr)
    return 0


@dataclass
class Counts:
    """What was written.

    Attributes:
        stats: What the relay counted, if there were LTTng traces.
    """

    spans: int = 0
    traces: int = 0
    unfinished: int = 0
    stats: RelayStats | None = None

    def count(self, spans: Sequence[SpanRecord]) -> None:
        """Take note of spans."""
        self.traces += len({span.trace_id for span in spans})
        self.spans += len(spans)
        self.unfinished += sum(span.unfinished for span in spans)

    def counted(self, traces: Iterable[list[SpanRecord]]) -> Iterator[list[SpanRecord]]:
        """Hand traces on, and count them."""
        for spans in traces:
            self.count(spans)
            yield spans

    def summary(self) -> str:
        """Say in one line what there is, and what is missing."""
        text = f"spans: {self.spans}; traces: {self.traces}; unfinished: {self.unfinished}"
        if self.stats is None:
            return text
        counts = {
            "lost events": self.stats.discarded_events,
            "lost packets": self.stats.lost_packets,
            "unreadable packets": self.stats.unreadable_packets,
            "ends without a start": self.stats.ends_without_start,
            "invalid fields": self.stats.invalid_fields,
            "invalid events": self.stats.invalid_events,
        }
        for name, count in counts.items():
            if count or name == "lost events":
                text += f"; {name}: {count}"
        return text


def _read(paths: Sequence[Path], counts: Counts) -> Iterator[Iterable[SpanRecord]]:
    """The spans of all paths, in pieces that fit into memory."""
    from k8s_tracing.otlp import iter_json_lines

    for path in paths:
        if not path.exists():
            raise K8sTracingError(f"{path} does not exist")
    for path in paths:
        if not path.is_dir():
            yield iter_json_lines(path)
    folders = [path for path in paths if path.is_dir()]
    if folders:
        yield from _read_folders(folders, counts)


def _read_folders(folders: Sequence[Path], counts: Counts) -> Iterator[Iterable[SpanRecord]]:
    from k8s_tracing.agent.chunks import chunk_folders
    from k8s_tracing.agent.relay import Relay

    chunks = [chunk for folder in folders for chunk in chunk_folders(folder)]
    if not chunks:
        raise K8sTracingError(f"no LTTng trace in {', '.join(map(str, folders))}")
    with Relay() as relay:
        for chunk in chunks:
            yield _decode(relay.read(chunk))
        yield _decode(relay.finish())
        counts.stats = relay.stats


def _decode(requests: Iterator[Request]) -> Iterator[SpanRecord]:
    """The spans of requests. What can be read of a damaged trace is kept, with a word on stderr."""
    from k8s_tracing.otlp import parse_request

    try:
        for request in requests:
            yield from parse_request(request.body)
    except RelayError as error:
        print(f"k8s-tracing: {error}", file=sys.stderr)


def print_trees(spans: Iterable[SpanRecord], *, color: bool) -> None:
    """Print the traces of spans, as wide as the terminal is."""
    sys.stdout.write(_trees(spans, color=color))


def _trees(spans: Iterable[SpanRecord], *, color: bool, events: bool = False) -> str:
    from k8s_tracing.report.text import render_traces

    width = min(shutil.get_terminal_size((120, 0)).columns, MAX_WIDTH)
    return render_traces(spans, color=color, width=width, events=events)


def wants_color(choice: str) -> bool:
    """Decide for `--color`. NO_COLOR is what other tools ask, too (no-color.org)."""
    if choice != "auto":
        return choice == "always"
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def _tree(traces: Iterator[list[SpanRecord]], args: argparse.Namespace) -> Iterator[str]:
    separator = ""
    for spans in traces:
        yield separator + _trees(spans, color=wants_color(args.color), events=args.events)
        separator = "\n"


def _otlp_json(traces: Iterator[list[SpanRecord]], args: argparse.Namespace) -> Iterator[str]:
    from k8s_tracing.otlp import to_json_line, to_request

    for spans in traces:
        yield f"{to_json_line(to_request(spans))}\n"


def _jaeger_json(traces: Iterator[list[SpanRecord]], args: argparse.Namespace) -> Iterator[str]:
    """The object that Jaeger answers, a trace at a time."""
    from k8s_tracing.jaeger import answer, to_trace

    before, after = json.dumps(answer([])).split("[]", 1)
    separator = f"{before}[\n"
    for spans in traces:
        yield separator + json.dumps(to_trace(spans), ensure_ascii=False)
        separator = ",\n"
    yield f"\n]{after}\n" if separator == ",\n" else f"{before}[]{after}\n"


def _perfetto(traces: Iterator[list[SpanRecord]], args: argparse.Namespace) -> Iterator[str]:
    from k8s_tracing.report.perfetto import write

    return write(traces)


_WRITERS: dict[str, Callable[[Iterator[list[SpanRecord]], argparse.Namespace], Iterator[str]]] = {
    "tree": _tree,
    "otlp-json": _otlp_json,
    "jaeger-json": _jaeger_json,
    "perfetto": _perfetto,
}
