# SPDX-License-Identifier: Apache-2.0
"""HotROD in one command: start everything, send some dispatches, show the trace of one, clean up.

In a terminal it then stays, for the page and for curl, until Ctrl-C; otherwise it ends by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from types import FrameType

from hotrod import config, tracing
from hotrod.config import SERVICES, Address
from hotrod.processes import Hotrod, ProcessError, free_address

CUSTOMERS = (123, 392, 731, 567)
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Ends the demo on a signal: once, and never while starting what would be left behind."""

    def __init__(self) -> None:
        self.ctrl_c_is_the_end = False  # set when all is done: then Ctrl-C is no failure
        self._held = False
        self._pending: int | None = None
        for number in STOP_SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._pending = number
        if not self._held:
            self._stop()

    def _stop(self) -> None:
        # What is left to do is cleaning up, which takes seconds at most.
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        expected = self.ctrl_c_is_the_end and self._pending == signal.SIGINT
        raise SystemExit(0 if expected else 128 + (self._pending or 0))

    @contextmanager
    def held(self) -> Iterator[None]:
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._pending:
            self._stop()


class Screen:
    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self.color = self.is_terminal and "NO_COLOR" not in os.environ
        self.width = shutil.get_terminal_size((120, 40)).columns
        self._start = time.monotonic()

    def styled(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.color else text

    def title(self, text: str) -> None:
        print(f"\n{self.styled(text, '1')}", flush=True)

    def step(self, name: str, text: str) -> None:
        seconds = self.styled(f"{time.monotonic() - self._start:5.1f} s", "2")
        print(f"  {seconds}  {name:9} {text}", flush=True)

    def steps(self, title: str, steps: Iterable[tuple[str, str]]) -> None:
        self.title(title)
        for name, text in steps:
            print(f"  {name:12} {text}", flush=True)


@dataclass(frozen=True)
class Receiver:
    """What takes the traces by OTLP, its page if it has one, and whether it ends with the demo."""

    endpoint: str
    ui: str
    is_ours: bool


@dataclass(frozen=True)
class Dispatch:
    customer: int
    ok: bool
    answer: str
    latency_ms: float
    trace_id: str


def begin(screen: Screen, interrupts: Interrupts, stack: ExitStack) -> tuple[Path, Receiver]:
    """Make a folder, and find what takes the traces or start a viewer; `stack` ends both."""
    with interrupts.held():
        folder = tempfile.TemporaryDirectory(prefix="hotrod-", ignore_cleanup_errors=True)
        directory = Path(stack.enter_context(folder))
    # As root, the session daemon is another user, as nginx's workers are: they must get to their own folders in there.
    directory.chmod(0o711)
    endpoint = tracing.otlp_endpoint()
    if endpoint is None:
        endpoint, ui = tracing.start_viewer(stack, directory)
        screen.step("viewer", f"ready on {ui}; it takes traces at {endpoint}")
        return directory, Receiver(endpoint, ui, is_ours=True)
    ui = tracing.jaeger_ui(endpoint)
    screen.step("OTLP", f"to {endpoint}" + (f", a Jaeger: {ui}" if ui else ""))
    return directory, Receiver(endpoint, ui, is_ours=False)


def dispatch(frontend: Address, customer: int, request: str) -> Dispatch:
    """Ask for a ride as the page does: with the request's name as baggage."""
    url = f"http://{frontend}/dispatch?customer={customer}"
    headers = {"baggage": f"session=demo,request={request}"}
    # These services are on this machine, whatever proxy the environment names.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    start = time.monotonic()
    try:
        reply = opener.open(urllib.request.Request(url, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        reply = error
    with reply:
        body = json.load(reply)
        trace_id = reply.headers.get("traceresponse", "--").split("-")[1]
    latency_ms = (time.monotonic() - start) * 1000
    ok = reply.status == 200
    minutes = f"{body['ETA'] / 60e9:.0f} min" if ok else ""
    answer = f"driver {body['Driver']} in {minutes}" if ok else body["error"]
    return Dispatch(customer, ok, answer, latency_ms, trace_id)


def send_dispatches(screen: Screen, entrances: Sequence[Address]) -> list[Dispatch]:
    """One alone, then three at once: those wait for each other's query, which their traces show."""
    screen.title("Dispatches: one alone, then three at once")
    first = dispatch(entrances[0], CUSTOMERS[0], "demo-1")
    with ThreadPoolExecutor(len(CUSTOMERS)) as pool:
        names = [f"demo-{number}" for number in range(2, len(CUSTOMERS) + 1)]
        others = pool.map(dispatch, cycle([*entrances[1:], entrances[0]]), CUSTOMERS[1:], names)
        done = [first, *others]
    for sent in done:
        line = f"  customer {sent.customer}  {sent.latency_ms:6.0f} ms  {sent.answer}"
        print(f"{line}  {screen.styled('trace ' + sent.trace_id, '2')}", flush=True)
    return done


def show_trace(screen: Screen, traced: tracing.Tracing, sent: Dispatch, which: str) -> None:
    if traced.spans is None or traced.agent is None:
        return
    from k8s_tracing.report.text import render_trace

    screen.title(f"{which}, customer {sent.customer}")
    spans = tracing.wait_for_trace(traced.spans, sent.trace_id)
    if not spans:
        raise traced.agent.error(f"has received no span of the trace {sent.trace_id}")
    print(render_trace(spans, color=screen.color, width=screen.width), flush=True)


def show_next_steps(
    screen: Screen,
    frontend: Address,
    traced: tracing.Tracing,
    receiver: Receiver,
    sent: Dispatch,
    *,
    stay: bool,
) -> None:
    steps = []
    if stay:
        steps.append(("the page", f"http://{frontend}/"))
        steps.append(("a request", f"curl -i 'http://{frontend}/dispatch?customer=123'"))
        if traced.spans:
            program = os.path.relpath(Path(sys.executable).with_name("k8s-tracing"))
            steps.append(("all traces", f"{program} read {traced.spans}"))
    else:
        steps.append(("the page", "make demo (in a terminal it stays until Ctrl-C)"))
    if receiver.ui and (stay or not receiver.is_ours):
        steps.append(("this trace", f"{receiver.ui}/trace/{sent.trace_id}"))
        steps.append(("all services", f"{receiver.ui}/search"))
    steps += [
        ("no lock", "make demo ARGS=--fix-disable-db-conn-mutex"),
        ("fast query", "make demo ARGS='--fix-db-query-delay 100ms'"),
        ("more routes", "make demo ARGS='--fix-route-worker-pool-size 10'"),
    ]
    screen.steps("Try next", steps)


def end(
    screen: Screen,
    interrupts: Interrupts,
    sent: Sequence[Dispatch],
    check: Callable[[], None],
    *,
    stay: bool,
) -> None:
    """Complain of dispatches that failed; else stay, if asked to, until Ctrl-C or until `check` raises."""
    if not all(one.ok for one in sent):
        raise ProcessError("A dispatch failed; its line above says why.")
    if stay:
        print(f"\n{screen.styled('Ctrl-C ends it all.', '1')}", flush=True)
        interrupts.ctrl_c_is_the_end = True
        while True:
            check()
            time.sleep(0.5)


def run(screen: Screen, interrupts: Interrupts, *, stay: bool, flags: list[str]) -> None:
    with ExitStack() as stack:
        screen.title("HotROD: rides on demand, four services, one trace a ride")
        directory, receiver = begin(screen, interrupts, stack)
        traced = tracing.start(stack, directory, receiver.endpoint)
        screen.step("LTTng", traced.description)

        addresses = {name: free_address(usual) for name, usual in SERVICES.items()}
        env = {**traced.env, "HOTROD_TRACE_UI": receiver.ui}
        hotrod = stack.enter_context(Hotrod(directory, env, addresses=addresses, flags=flags))
        real = "redis" in hotrod.children
        screen.step(
            "Redis", "ready" if real else "not installed; the driver service plays its part"
        )

        def on_healthy(service: str) -> None:
            address, usual = addresses[service], SERVICES[service]
            taken = "" if address == usual else f"  (port {usual.port} is taken)"
            scheme = "grpc" if service == "driver" else "http"
            screen.step(service, f"ready on {scheme}://{address}{taken}")

        hotrod.wait_until_healthy(on_healthy)
        sent = send_dispatches(screen, [addresses["frontend"]])
        hotrod.check()
        slowest = max(sent, key=lambda one: one.latency_ms)
        show_trace(screen, traced, slowest, "The trace of the slowest one")
        show_next_steps(screen, addresses["frontend"], traced, receiver, slowest, stay=stay)
        end(screen, interrupts, sent, hotrod.check, stay=stay)


def make_parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description,
        epilog="All other flags go to the services: `python -m hotrod --help` says which there are.",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "--once", action="store_true", help="end after the dispatches, also in a terminal"
    )
    return parser


def main() -> int:
    given, flags = make_parser(__doc__).parse_known_args()
    config.parse(["frontend", *flags])  # says what is wrong with them now, and not in four logs
    screen = Screen()
    stay = screen.is_terminal and sys.stdin.isatty() and not given.once
    try:
        run(screen, Interrupts(), stay=stay, flags=flags)
    except ProcessError as error:
        print(f"\n{screen.styled('The demo failed.', '1;31')} {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
