"""W3C Trace Context, level 2: what a service that uses `extracted` and `inject` answers to headers.

Each row is from the text of the Recommendation, whose section it names; the service is a real one.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import k8s_tracing
from k8s_tracing import api
from k8s_tracing.backends.memory import MemoryBackend
from k8s_tracing.provider import TracerProvider
from k8s_tracing.sampling import Sampling
from k8s_tracing.settings import Limits

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
Headers = list[tuple[str, str]]


class Service(BaseHTTPRequestHandler):
    """Answers with the headers that it would send to each of the services it calls."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        carrier: dict[str, str] = {}
        for name, value in self.headers.items():  # RFC 9110, 5.3: several are one list
            name = name.lower()
            carrier[name] = f"{carrier[name]},{value}" if name in carrier else value
        calls = []
        with k8s_tracing.extracted(carrier), k8s_tracing.span("server"):
            for _ in range(3):
                with k8s_tracing.span("client"):
                    headers: dict[str, str] = {}
                    k8s_tracing.inject(headers)
                    calls.append(headers)
        body = json.dumps(calls).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    api._use(TracerProvider(MemoryBackend({}, Limits(), Sampling())))
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()
    api._use(None)


def ask(port: int, headers: Headers) -> list[dict[str, str]]:
    """The headers of three calls, which the service makes while it serves one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest("GET", "/")
    for name, value in headers:
        connection.putheader(name, value.encode("latin-1"))
    connection.endheaders()
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert isinstance(answer, list)
    return answer


def trace_of(calls: list[dict[str, str]]) -> tuple[str, str]:
    """The trace id and flags of all calls; each has a parent id of its own (4.2: MUST be changed)."""
    parts = []
    for headers in calls:
        found = re.fullmatch(
            r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", headers["traceparent"]
        )
        assert found is not None, headers
        parts.append(found.groups())
    traces, spans, flags = (set(column) for column in zip(*parts, strict=True))
    assert len(spans) == 3
    assert SPAN not in spans
    assert "0" * 16 not in spans
    [trace], [flag] = traces, flags
    assert trace != "0" * 32
    return trace, flag


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", PARENT)],
        # 3.2: vendors MUST expect the header name in any case
        [("TraceParent", PARENT)],
        [("TRACEPARENT", PARENT)],
        [("trAcePArent", PARENT)],
        # RFC 9110, 5.5: blanks around a value are none of it
        [("traceparent", f" {PARENT}")],
        [("traceparent", f"\t{PARENT} \t ")],
        # 3.2.4: a higher version is parsed by what is known; it may be longer, after another dash
        [("traceparent", f"cc-{TRACE}-{SPAN}-01")],
        [("traceparent", f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like")],
        [("traceparent", f"01-{TRACE}-{SPAN}-01-")],
        # 3.3.1: what is wrong with the state does not lose the parent
        [("traceparent", PARENT), ("tracestate", "")],
        [("traceparent", PARENT), ("tracestate", "=,=,;")],
        [("traceparent", PARENT), ("tracestate", "foo=1=2")],
    ],
    ids=str,
)
def test_a_valid_parent_is_continued(port: int, headers: Headers) -> None:
    assert trace_of(ask(port, headers)) == (TRACE, "01")


@pytest.mark.parametrize(
    ("flags", "passed_on"),
    [
        ("00", "00"),
        ("01", "01"),
        ("02", "02"),  # level 2, 3.2.2.5: the trace id is random, and stays so
        ("03", "03"),
        ("ff", "03"),  # 3.2.2.5.3: all others MUST be set to zero
        ("f8", "00"),
    ],
)
def test_the_flags_that_are_defined_are_passed_on(port: int, flags: str, passed_on: str) -> None:
    assert trace_of(ask(port, [("traceparent", PARENT[:-2] + flags)])) == (TRACE, passed_on)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("traceparent", "")],
        [("trace-parent", PARENT)],
        [("trace.parent", PARENT)],
        # two parents are none: combined they are no valid value
        [("traceparent", PARENT), ("traceparent", PARENT.replace("4", "5"))],
        # 3.2.2.1: version ff is invalid, so is what is not two lower-case hexadecimal digits
        [("traceparent", f"ff-{TRACE}-{SPAN}-01")],
        [("traceparent", f".0-{TRACE}-{SPAN}-01")],
        [("traceparent", f"0.-{TRACE}-{SPAN}-01")],
        [("traceparent", f"000-{TRACE}-{SPAN}-01")],
        [("traceparent", f"0000-{TRACE}-{SPAN}-01")],
        [("traceparent", f"0-{TRACE}-{SPAN}-01")],
        [("traceparent", f"CC-{TRACE}-{SPAN}-01")],
        # 3.2.2.2: version 00 has four fields and no more
        [("traceparent", f"{PARENT}.")],
        [("traceparent", f"{PARENT}-")],
        [("traceparent", f"{PARENT}-what-the-future-will-be-like")],
        [("traceparent", f"cc-{TRACE}-{SPAN}-01.what-the-future-will-not-be-like")],
        # 3.2.2.3: the trace id
        [("traceparent", f"00-{'0' * 32}-{SPAN}-01")],
        [("traceparent", f"00-.{TRACE[1:]}-{SPAN}-01")],
        [("traceparent", f"00-{TRACE[1:]}.-{SPAN}-01")],
        [("traceparent", f"00-{TRACE}1-{SPAN}-01")],
        [("traceparent", f"00-{TRACE[1:]}-{SPAN}-01")],
        [("traceparent", f"00-{TRACE.upper()}-{SPAN}-01")],
        # 3.2.2.4: the parent id
        [("traceparent", f"00-{TRACE}-{'0' * 16}-01")],
        [("traceparent", f"00-{TRACE}-.{SPAN[1:]}-01")],
        [("traceparent", f"00-{TRACE}-{SPAN[1:]}.-01")],
        [("traceparent", f"00-{TRACE}-{SPAN}1-01")],
        [("traceparent", f"00-{TRACE}-{SPAN[1:]}-01")],
        [("traceparent", f"00-{TRACE}-{SPAN.upper()}-01")],
        # 3.2.2.5: the flags
        [("traceparent", f"00-{TRACE}-{SPAN}-.0")],
        [("traceparent", f"00-{TRACE}-{SPAN}-0.")],
        [("traceparent", f"00-{TRACE}-{SPAN}-001")],
        [("traceparent", f"00-{TRACE}-{SPAN}-1")],
        [("traceparent", f"00-{TRACE}-{SPAN}-")],
        [("traceparent", f"00-{TRACE}-{SPAN}")],
    ],
    ids=str,
)
def test_without_a_valid_parent_a_new_trace_begins(port: int, headers: Headers) -> None:
    """4.3: and the state that came with it MUST NOT be used."""
    calls = ask(port, [*headers, ("tracestate", "foo=1")])
    trace, flags = trace_of(calls)
    assert trace not in (TRACE, TRACE.replace("4", "5"))
    assert flags == "03"  # sampled, and level 2: random
    assert not any("tracestate" in headers for headers in calls)


KEY_241, KEY_14 = "t" * 241, "v" * 14
CHARACTERS = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")


@pytest.mark.parametrize(
    ("headers", "passed_on"),
    [
        ([("tracestate", "foo=1")], "foo=1"),
        ([("tracestate", "foo=1,bar=2")], "foo=1,bar=2"),
        ([("TraceState", "foo=1")], "foo=1"),
        ([("TRACESTATE", "foo=1")], "foo=1"),
        ([("trace-state", "foo=1")], None),
        ([("trace.state", "foo=1")], None),
        # 3.3: several headers are one list, in their order; an empty one adds nothing
        (
            [("tracestate", "foo=1,bar=2"), ("tracestate", "rojo=1"), ("tracestate", "baz=3")],
            "foo=1,bar=2,rojo=1,baz=3",
        ),
        ([("tracestate", "foo=1"), ("tracestate", "")], "foo=1"),
        ([("tracestate", ""), ("tracestate", "foo=1")], "foo=1"),
        ([("tracestate", "")], None),
        # 3.3.1.1: empty members are allowed, and blanks around members
        ([("tracestate", "foo=1,,bar=2")], "foo=1,bar=2"),
        ([("tracestate", "foo=1 \t , \t bar=2, \t baz=3")], "foo=1,bar=2,baz=3"),
        ([("tracestate", " foo=1")], "foo=1"),
        ([("tracestate", "\tfoo=1\t")], "foo=1"),
        # 3.3.1.3: keys
        (
            [("tracestate", "abcdefghijklmnopqrstuvwxyz0123456789_-*/=1")],
            "abcdefghijklmnopqrstuvwxyz0123456789_-*/=1",
        ),
        ([("tracestate", "0a_-*/@a0_-*/=1")], "0a_-*/@a0_-*/=1"),
        ([("tracestate", f"{'z' * 256}=1")], f"{'z' * 256}=1"),
        ([("tracestate", f"{KEY_241}@{KEY_14}=1")], f"{KEY_241}@{KEY_14}=1"),
        # 3.3.1.4: values, with blanks within and before but not after
        ([("tracestate", f"foo={CHARACTERS[1:]}")], f"foo={CHARACTERS[1:]}"),
        ([("tracestate", "foo=1 2")], "foo=1 2"),
        ([("tracestate", f"foo={'v' * 256}")], f"foo={'v' * 256}"),
        # 3.3.1.1: 32 members at most
        (
            [("tracestate", ",".join(f"k{n}={n}" for n in range(32)))],
            ",".join(f"k{n}={n}" for n in range(32)),
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_state_is_passed_on(port: int, headers: Headers, passed_on: str | None) -> None:
    calls = ask(port, [("traceparent", PARENT), *headers])
    assert trace_of(calls)[0] == TRACE
    assert {call.get("tracestate") for call in calls} == {passed_on}


@pytest.mark.parametrize(
    "state",
    [
        "foo =1",
        "FOO=1",
        "foo.bar=1",
        "@foo=1",
        "é=1",
        "foo=bar=baz",
        "foo=\x7f",
        "foo=é",
        "foo=",
        "foo",
        "=1",
        f"{'z' * 257}=1",
        f"foo={'v' * 257}",
        ",".join(f"k{n}={n}" for n in range(33)),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_a_member_that_breaks_the_rules_is_not_passed_on(port: int, state: str) -> None:
    """3.3.1: the whole state may be discarded, but what is invalid must not be forwarded."""
    calls = ask(port, [("traceparent", PARENT), ("tracestate", state)])
    assert trace_of(calls)[0] == TRACE
    for call in calls:
        kept = [member for member in call.get("tracestate", "").split(",") if member]
        assert len(kept) <= 32
        assert set(kept) & {state} == set()


def test_a_state_without_a_parent_is_not_used(port: int) -> None:
    assert not any("tracestate" in call for call in ask(port, [("tracestate", "foo=1")]))


@pytest.mark.parametrize("state", ["foo=1,foo=1", "foo=1,foo=2", "foo=1,bar=1,foo=2"])
def test_of_a_key_that_comes_twice_one_member_is_passed_on_at_most(port: int, state: str) -> None:
    """3.3.1.3: only one entry per key is allowed."""
    for call in ask(port, [("traceparent", PARENT), ("tracestate", state)]):
        keys = [member.split("=")[0] for member in call.get("tracestate", "").split(",")]
        assert keys.count("foo") <= 1
