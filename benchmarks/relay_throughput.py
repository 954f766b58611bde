# SPDX-License-Identifier: Apache-2.0
"""How fast the relay turns a recorded trace into OTLP, against Babeltrace's own reader on the same folder.

Spans are recorded once, by the library through a private session daemon. Then each reader reads that folder in a
process of its own, in turn, several times over. What counts is the CPU time of the whole process, less that of the same
program with a trace of one span: a figure is spans per second of one core. The median of all turns is printed.

Only our relay makes spans of the events; Babeltrace's readers decode them and throw them away. Babeltrace's Python
bindings are an extension of the system's interpreter, and read only the first part of the trace, because they are slow.
rotel, an OpenTelemetry collector in Rust, does another thing: it receives what our relay made, as OTLP by HTTP, and
sends it on, gzipped. What our agent costs with the sending is what process_cpu measures.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULE = "benchmarks.relay_throughput"
SPANS = 300_000
BURST = 2_000
#: After a burst, in s: LTTng's consumer daemon empties what was filled.
PAUSE_S = 0.01
#: The bindings read so many spans at most.
BINDINGS_SPANS = 30_000

KINDS = ("bare", "4 attributes")
OURS = "our relay, to OTLP bytes"
LIMIT = "babeltrace2, C, sink.utils.dummy"
COUNTER = "babeltrace2, C, sink.utils.counter"
BINDINGS = "bt2 (Python), events counted"
FIELDS = "bt2 (Python), fields read"
ROTEL = "rotel (Rust), OTLP received and sent"
SYSTEM_PYTHON = "/usr/bin/python3"


def record(spans: int, kind: str) -> None:
    """Make spans in this process."""
    import k8s_tracing
    from benchmarks.cases import ATTRIBUTES, NAME

    k8s_tracing.init("benchmark", backend="lttng")
    attributes = ATTRIBUTES if kind == KINDS[1] else None
    for number in range(spans):
        with k8s_tracing.span(NAME, attributes):  # type: ignore[arg-type]
            pass
        if number % BURST == BURST - 1:
            time.sleep(PAUSE_S)


def relay(folder: Path) -> dict[str, int]:
    """Read a trace with our relay, as the agent does."""
    from k8s_tracing.agent.relay import Relay

    size = 0
    with Relay() as reader:
        for requests in (reader.read(folder), reader.finish()):
            size += sum(len(request.body) for request in requests)
        stats = reader.stats
    return {"spans": stats.spans, "bytes": size, "discarded": stats.discarded_events}


def bindings(folder: Path, read_fields: bool) -> None:
    """Read a trace with Babeltrace's Python bindings; runs in the system's interpreter."""
    import bt2  # type: ignore[import-not-found]

    left = 2 * BINDINGS_SPANS
    for message in bt2.TraceCollectionMessageIterator(str(folder)):
        if type(message) is not bt2._EventMessageConst:
            continue
        if read_fields:
            event = message.event
            name, fields = event.name, event.payload_field
            ids = int(fields["trace_id_low"]) if "trace_id_low" in fields else 0
            span = int(fields["span_id"]) if "span_id" in fields else 0
            text = str(fields["op_name"]) if "op_name" in fields else ""
            time_ns = message.default_clock_snapshot.ns_from_origin
            del name, ids, span, text, time_ns
        left -= 1
        if not left:
            return


def command(reader: str, folder: Path) -> list[str]:
    """Return the command line of a reader."""
    if reader in (LIMIT, COUNTER):
        return ["babeltrace2", str(folder), "-c", reader.rpartition(" ")[2]]
    python = sys.executable if reader == OURS else SYSTEM_PYTHON
    return [python, "-m", MODULE, "--child", reader, str(folder)]


def cpu_s(words: list[str]) -> tuple[float, str]:
    """Run a program to its end; return its CPU time and what it printed."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    with process.stdout:
        printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return usage.ru_utime + usage.ru_stime, printed


def requests(folder: Path) -> list[bytes]:
    """Return what our relay makes of a trace."""
    from k8s_tracing.agent.relay import Relay

    with Relay() as reader:
        return [request.body for part in (reader.read(folder), reader.finish()) for request in part]


def rotel_cpu_s(folder: Path, spans: int) -> float:
    """Have rotel forward what our relay made of a trace; return its CPU time."""
    from benchmarks.rotel_peer import forward_cpu_s

    return forward_cpu_s(requests(folder), spans)


def record_all(folder: Path, spans: int) -> dict[tuple[str, int], Path]:
    """Record a trace of every kind and size; return their folders."""
    from k8s_tracing.agent.daemon import PrivateDaemon
    from k8s_tracing.agent.session import Session

    traces = {}
    with PrivateDaemon(folder / "daemon") as daemon:
        for kind in KINDS:
            for count in (1, spans):
                output = folder / f"{kind.replace(' ', '-')}-{count}"
                output.mkdir()
                daemon.grant(output)
                session = Session(output.name, output, daemon.control)
                session.start()
                words = [sys.executable, "-m", MODULE, "--child", "record", str(count), kind]
                subprocess.run(words, env=dict(os.environ) | daemon.env, check=True, cwd=ROOT)
                session.finish()
                traces[kind, count] = output
    return traces


def readers() -> list[str]:
    """Return what there is to measure on this machine."""
    found = [OURS, LIMIT, COUNTER]
    if importlib.util.find_spec("rotel"):
        found.append(ROTEL)
    words = [SYSTEM_PYTHON, "-c", "import bt2"]
    if (
        shutil.which(SYSTEM_PYTHON)
        and not subprocess.run(words, stderr=subprocess.DEVNULL).returncode
    ):
        found += [BINDINGS, FIELDS]
    return found


def child(words: list[str]) -> None:
    """Do what the words say, in a process of its own."""
    match words:
        case ["record", count, kind]:
            record(int(count), kind)
        case [reader, folder] if reader == OURS:
            print(json.dumps(relay(Path(folder))))
        case [reader, folder]:
            bindings(Path(folder), reader == FIELDS)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--spans", type=int, default=SPANS, help="in each trace")
    parser.add_argument("--turns", type=int, default=5, help="processes of each reader")
    parser.add_argument("--json", type=Path, help="write all figures, in spans/s, to this file")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child)
        return

    from benchmarks.span_cost import machine

    about = machine()
    names = readers()
    rates: dict[str, dict[str, list[float]]] = {}
    lines = []
    lost = 0
    done: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="k8st-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        traces = record_all(folder, args.spans)
        for kind in KINDS:
            found = rates.setdefault(kind, {})
            for _ in range(args.turns):
                for reader in names:
                    if reader == ROTEL:
                        start_up_s = rotel_cpu_s(traces[kind, 1], 1)
                        whole_s = rotel_cpu_s(traces[kind, args.spans], done["spans"])
                        rate = (done["spans"] - 1) / (whole_s - start_up_s)
                        found.setdefault(reader, []).append(rate)
                        continue
                    start_up, _ = cpu_s(command(reader, traces[kind, 1]))
                    whole, printed = cpu_s(command(reader, traces[kind, args.spans]))
                    python = reader in (BINDINGS, FIELDS)
                    spans = min(BINDINGS_SPANS, args.spans) if python else args.spans
                    found.setdefault(reader, []).append((spans - 1) / (whole - start_up))
                    if reader == OURS:
                        done = json.loads(printed)
            size = sum(each.stat().st_size for each in traces[kind, args.spans].rglob("*"))
            lost += args.spans - done["spans"]
            lines += [
                "",
                f"{kind}: {done['spans']} of {args.spans} spans in the trace, "
                f"{done['discarded']} events discarded by LTTng;",
                f"{size / args.spans:.0f} bytes a span in the trace, "
                f"{done['bytes'] / args.spans:.0f} as OTLP",
                f"{'':38}{'spans/s/core':>13}{'/ C reader':>12}",
            ]
            limit = statistics.median(found[LIMIT])
            for reader, values in found.items():
                rate = statistics.median(values)
                lines.append(f"{reader:38}{rate:13,.0f}{rate / limit:11.2f}x")
    for key, value in about.items():
        print(f"{key}: {value}")
    print(f"medians of {args.turns} processes; CPU time less start-up")
    if ROTEL not in names:
        print("not measured: rotel; pip install rotel")
    if BINDINGS not in names:
        print("not measured: Babeltrace's Python bindings; apt-get install python3-bt2")
    print(*lines, sep="\n")
    if args.json:
        args.json.write_text(json.dumps({"machine": about, "spans_per_s": rates}, indent=1))
    if lost:
        sys.exit(f"{lost} spans are not in the traces: the figures above are too good.")


if __name__ == "__main__":
    main()
