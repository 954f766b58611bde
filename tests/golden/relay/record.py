"""Records anew what lies in recorded/: one of everything, by LTTng itself, over two chunks.

    python -m tests.golden.relay.record

Then look at the new expected.jsonl, which it writes as well, and commit both.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cffi
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.lttng import SessionDaemon

HERE = Path(__file__).parent
NATIVE = HERE.parents[2] / "_native"
TRACE = {"trace_id_high": 0x0102030405060708, "trace_id_low": 0x1112131415161718}
ROOT, CHILD, FAILED, OPEN = 0x1001, 0x1002, 0x1003, 0x1004


def main() -> None:
    """Record, and write what the relay makes of it."""
    from k8s_tracing.agent.relay import Relay
    from k8s_tracing.otlp import to_json_line

    chunks = HERE / "recorded"
    shutil.rmtree(chunks, ignore_errors=True)
    with SessionDaemon() as daemon:
        session = daemon.session("golden", channel_options=("--subbuf-size=4k", "--num-subbuf=4"))
        program = subprocess.Popen(
            [sys.executable, "-m", "tests.golden.relay.record", "record"],
            env=daemon.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert program.stdout is not None
        program.stdout.readline()
        daemon.lttng("rotate", session.name)
        program.communicate(b"\n")
        session.stop()
        daemon.lttng("rotate", session.name)
        shutil.copytree(session.output / "archives", chunks)
    with Relay() as relay, (HERE / "expected.jsonl").open("w") as expected:
        for chunk in sorted(chunks.iterdir()):
            for request in relay.read(chunk):
                expected.write(pretty(to_json_line(request.body)))
        for request in relay.finish():
            expected.write(pretty(to_json_line(request.body)))


def pretty(line: str) -> str:
    """A request on one line, but its keys in order."""
    return json.dumps(json.loads(line), sort_keys=True) + "\n"


def record() -> None:
    """Emit the events, and wait for a line on stdin in the middle."""
    import k8s_tracing

    ffi = cffi.FFI()
    header = (NATIVE / "emit.h").read_text()
    ffi.cdef(re.sub(r"(?m)^#.*$|^extern .*$", "", header))
    library = next(
        path
        for folder in k8s_tracing.__path__
        if (path := Path(folder) / "libk8s_tracing_lttng.so").exists()
    )
    lib: Any = ffi.dlopen(str(library))
    keep: list[Any] = []

    def text(value: str) -> Any:
        keep.append(ffi.new("char[]", value.encode()))
        return keep[-1]

    def otlp(message: Any) -> dict[str, Any]:
        body = message.SerializeToString()
        keep.append(ffi.new("uint8_t[]", body + bytes(8)))
        return {"attributes": keep[-1], "attributes_size": len(body)}

    def start(span_id: int, parent: int, name: str, kind: int) -> None:
        ids = {**TRACE, "span_id": span_id, "parent_span_id": parent}
        rest = {"name": text(name), "kind": kind, "scope_id": 1, "flags": 1}
        lib.k8s_tracing_start_span(ffi.new("struct k8s_tracing_start *", {**ids, **rest}))

    def end(span_id: int, name: str = "", message: str = "", **fields: Any) -> None:
        ids = {"trace_id_low": TRACE["trace_id_low"], "span_id": span_id}
        texts = {"name": text(name), "status_message": text(message)}
        lib.k8s_tracing_end_span(ffi.new("struct k8s_tracing_end *", {**ids, **texts, **fields}))

    resource = Resource()
    resource.attributes.add(key="service.name").value.string_value = "rôle"
    body = resource.SerializeToString()
    lib.k8s_tracing_set_process(0xABCDEF0123456789, body + bytes(8), len(body))
    lib.k8s_tracing_add_scope(1, text("golden"), text("1.2"))

    start(ROOT, 0, "GET /", 2)
    start(CHILD, ROOT, "SELECT", 3)
    event = Span.Event()
    event.attributes.add(key="reason").value.string_value = "lock"
    retry = {"span_id": CHILD, "name": text("retry"), "dropped_attributes": 1, **otlp(event)}
    lib.k8s_tracing_span_event(ffi.new("struct k8s_tracing_event *", retry))
    print("rotate", flush=True)
    sys.stdin.readline()

    link = Span.Link(trace_state="vendor=1")
    link.attributes.add(key="batch").value.bool_value = True
    linked = {"linked_trace_id_high": 5, "linked_trace_id_low": 6, "linked_span_id": 7, "flags": 1}
    lib.k8s_tracing_span_link(
        ffi.new("struct k8s_tracing_link *", {"span_id": CHILD, **linked, **otlp(link)})
    )
    span = Span(trace_state="vendor=2")
    span.attributes.add(key="text").value.string_value = "vier"
    span.attributes.add(key="truth").value.bool_value = False
    span.attributes.add(key="count").value.int_value = -4
    span.attributes.add(key="ratio").value.double_value = 0.25
    span.attributes.add(key="bytes").value.bytes_value = b"\0\xff"
    values = span.attributes.add(key="list").value.array_value
    values.values.add().string_value = "a"
    values.values.add().string_value = ""
    end(CHILD, **otlp(span), dropped_attributes=3, dropped_events=2, dropped_links=1)
    start(FAILED, ROOT, "first name", 1)
    end(FAILED, "second name", "no such table", status=2)
    start(OPEN, ROOT, "never ends", 1)
    end(ROOT, status=1)


if __name__ == "__main__":
    record() if sys.argv[1:] == ["record"] else main()
