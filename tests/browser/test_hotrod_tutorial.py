"""The tutorial in examples/hotrod/README.md: its commands are run, its clicks are made in a real Chromium.

With HOTROD_IMAGES set, its pictures are made again: in that folder, from what the browser shows then.
"""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from hotrod import config
from playwright.sync_api import Page, expect

from tests.support.wait import wait_for

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "examples" / "hotrod"
README = (FOLDER / "README.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", README, re.MULTILINE | re.DOTALL)
    for line in map(str.strip, block.splitlines())
]
DEMOS = [line for line in COMMANDS if line.startswith("make demo")]
IMAGES = os.environ.get("HOTROD_IMAGES")

# Its load fails where a request takes longer than two seconds.
pytestmark = pytest.mark.alone


class Demo:
    """What the demo has written to its terminal so far."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self.process = process
        self.said = ""
        self._terminal = terminal
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self.said += os.read(self._terminal, 65536).decode("utf-8", "replace")
            except OSError:  # nobody has it open any more
                return

    def line(self, label: str) -> str:
        """Wait until the demo stays, then return what stands behind a label of "Try next"."""

        def stays() -> bool:
            assert self.process.poll() is None, self.said
            return "Ctrl-C ends it all." in self.said

        wait_for("the demo", stays, 120, interval_s=0.1)
        found = re.search(rf"^  {label} +(.*?)\r?$", self.said, re.MULTILINE)
        assert found, self.said
        return found.group(1)

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(90)
        self._reader.join()
        assert status == 0, self.said


@contextmanager
def demo(command: str) -> Iterator[Demo]:
    """Run `make demo ARGS=...` as in a terminal, without the set-up before it."""
    words = shlex.split(command)
    assert words[:2] == ["make", "demo"]
    flags = shlex.split(words[2].removeprefix("ARGS=")) if len(words) > 2 else []
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(FOLDER / "demo.py"), *flags],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "NO_COLOR": "1"},
        start_new_session=True,
    )
    os.close(theirs)
    running = Demo(process, terminal)
    try:
        yield running
        running.end()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(90)
        os.close(terminal)


def click_all_four(page: Page, url: str, picture: str = "") -> list[int]:
    """Ask for four rides at once; return how long each took, in ms, the slowest first."""
    page.goto(url)
    page.get_by_role("button", name="All four at once").click()
    rides = page.locator(".rides li[data-ms]")
    expect(rides).to_have_count(4)
    expect(page.locator(".rides").get_by_role("link", name="open the trace")).to_have_count(4)
    save(page, picture)
    return sorted((int(each.get_attribute("data-ms") or 0) for each in rides.all()), reverse=True)


def slowest_trace(page: Page) -> str:
    """The address behind [open trace] of the slowest ride."""
    slowest = max(
        page.locator(".rides li[data-ms]").all(),
        key=lambda ride: int(ride.get_attribute("data-ms") or 0),
    )
    link = slowest.get_by_role("link", name="open the trace")
    assert link.text_content() == "[open trace]"
    return link.get_attribute("href") or ""


def save(page: Page, name: str) -> None:
    if IMAGES and name:
        page.wait_for_timeout(500)  # the bars have grown
        page.screenshot(path=Path(IMAGES) / f"{name}.png")


def open_lookup(page: Page, trace: str, picture: str = "") -> None:
    """Open a trace in the viewer, when it is whole, and there the span `find customer`."""
    row = page.get_by_role("treegrid").locator("[data-span]").filter(has_text="find customer")

    def is_there() -> bool:
        page.goto(trace)
        page.get_by_role("treegrid").or_(page.get_by_text("not", exact=False)).first.wait_for()
        return row.count() == 1

    wait_for("the trace in the viewer", is_there, 60, interval_s=0.5)
    save(page, picture)
    row.click()
    expect(page.locator(".detail")).to_contain_text("find customer")


def test_make_runs_what_is_run_here() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    assert "$(BIN)/python $(1) $(ARGS)" in makefile
    assert "$(call in_order,examples/hotrod/demo.py)" in makefile
    assert DEMOS[0] == "make demo"


@pytest.mark.timeout(400)
def test_find_the_lock_then_the_pool(page: Page, browser_says: list[str]) -> None:
    page.set_viewport_size({"width": 1000, "height": 860})
    with demo(DEMOS[0]) as running:
        url = running.line("the page")
        page.goto(url)
        page.get_by_role("button", name="Rachel's Floral Designs").click()
        expect(page.locator(".rides li[data-ms]")).to_have_count(1)
        client = page.locator("#client").text_content()
        expect(page.locator(".rides li")).to_contain_text(f"request {client}-1")
        with_lock = click_all_four(page, url, "four-at-once")
        open_lookup(page, slowest_trace(page), "trace")
        detail = page.locator(".detail")
        expect(detail).to_contain_text("Waiting for lock behind")
        expect(detail).to_contain_text("blockers")
        statistics = requests.get(route_of(running) + "/debug/vars", timeout=10).json()
        assert "Trom_Chocolatier" in statistics["route.calc.by.customer.sec"]
        load(url)
        page.goto("about:blank")  # the viewer's page listens to a viewer that now ends
    # The last command has the flag of the one between, and one more: each is shown to work in tests/e2e.
    with demo(DEMOS[2]) as running:
        fixed = click_all_four(page, running.line("the page"), "fixed")
        open_lookup(page, slowest_trace(page))
        expect(page.locator(".detail")).not_to_contain_text("Waiting for lock behind")
        page.goto("about:blank")
    # The slowest one no longer waits for three queries of 0.3 s.
    assert fixed[0] < with_lock[0] - 300
    # A trace is asked for again until the viewer has it, and the browser says so each time.
    browser_says[:] = [said for said in browser_says if "404 (Not Found)" not in said]


def load(url: str) -> None:
    """Run the page's wrk, for a shorter time: it ends with its table."""
    [command] = [line for line in COMMANDS if line.startswith("wrk ")]
    words = shlex.split(command)
    words[words.index("--duration") + 1] = "2s"
    words[-1] = url.rstrip("/")
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert re.search(r"^failed +0$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^p99 +[0-9.]+ ms$", done.stdout, re.MULTILINE), done.stdout


def route_of(running: Demo) -> str:
    found = re.search(r"route +ready on (http://\S+)", running.said)
    assert found, running.said
    return found.group(1)


@pytest.mark.parametrize("command", DEMOS[1:])
def test_the_flags_in_the_commands_are_flags(command: str) -> None:
    config.parse(["frontend", *shlex.split(shlex.split(command)[2].removeprefix("ARGS="))], {})


@pytest.mark.parametrize(
    "command", [line for line in COMMANDS if line.startswith("python -m hotrod")]
)
def test_the_services_by_hand_are_services(command: str) -> None:
    assert config.parse(shlex.split(command)[3:], {}).service in config.SERVICES


def test_every_picture_and_file_of_the_page_is_there() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (FOLDER / target).exists(), target
