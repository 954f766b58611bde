"""Makes the pictures of the viewer in docs/images again, from HotROD's real traces.

    .venv/bin/python docs/screenshots.py [NAME...]

HotROD runs twice, with its faults and without its lock, and the viewer receives its spans as it does in `make demo`;
then behind ingresses and Services, as in `make demo-dataplane`, which needs root. With names: those pictures only
(`trace`, `dataplane`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests
from playwright.sync_api import Browser, Page, sync_playwright

REPOSITORY = Path(__file__).resolve().parents[1]
IMAGES = REPOSITORY / "docs/images"
sys.path.insert(0, str(REPOSITORY))

from tests.support.viewer import Viewer  # noqa: E402

WIDE = {"width": 1280, "height": 720}
NARROW = {"width": 900, "height": 900}
TALL = {"width": 1280, "height": 1360}


def run_hotrod(endpoint: str, *flags: str, demo: str = "demo") -> str:
    """Send four dispatches through HotROD, whose spans go to this endpoint; what it prints."""
    command = [sys.executable, f"examples/hotrod/{demo}.py", "--once", *flags]
    env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    return subprocess.run(
        command, cwd=REPOSITORY, env=env, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def dispatches(viewer: Viewer) -> list[dict[str, Any]]:
    """The traces of dispatches, the longest first."""
    query = {"service": "frontend", "operation": "GET /dispatch"}
    answer = requests.get(f"{viewer.url}/api/trace-summaries", params=query, timeout=20)
    return sorted(answer.json()["data"], key=lambda trace: -trace["duration"])


def picture(page: Page, url: str, name: str, wait_for: str, collapse: str = "") -> None:
    """Open a page, hide what is below one span, and keep what it shows."""
    page.goto(url)
    page.locator(wait_for).first.wait_for()
    if collapse:
        page.get_by_label(f"Collapse {collapse}").last.click()
    page.evaluate("document.activeElement?.blur()")
    page.wait_for_timeout(300)  # the minimap and the results' fading are drawn
    page.screenshot(path=IMAGES / f"{name}.png")
    print(IMAGES / f"{name}.png")


def tab(browser: Browser, theme: Any, viewport: Any = WIDE) -> Page:
    """A new tab in light or dark."""
    return browser.new_context(viewport=viewport, color_scheme=theme).new_page()


def pictures_of_the_viewer(browser: Browser) -> None:
    """HotROD's four processes."""
    with Viewer() as viewer:
        run_hotrod(viewer.otlp_http_endpoint)
        run_hotrod(viewer.otlp_http_endpoint, "--fix-disable-db-conn-mutex")
        found = dispatches(viewer)
        slowest, fastest = found[0]["traceID"], found[-1]["traceID"]
        light, dark = tab(browser, "light"), tab(browser, "dark")
        trace = f"{viewer.url}/trace/{slowest}"
        picture(light, f"{viewer.url}/search?service=frontend", "search", ".trace-item")
        picture(light, trace, "trace", ".path")
        picture(dark, trace, "trace-dark", ".path")
        picture(light, f"{trace}...{fastest}", "compare", ".compare-row .bar")
        picture(light, f"{viewer.url}/dependencies", "dependencies", ".graph")


def pictures_of_the_data_plane(browser: Browser) -> None:
    """HotROD behind an ingress and with Services; the first dispatch opened a connection to each.

    Then one of three dispatches at once, whose driver has the CPU it needs, beside one whose driver has not.
    """
    with Viewer() as viewer:
        normal = trace_ids(run_hotrod(viewer.otlp_http_endpoint, demo="demo_dataplane"))
        page = tab(browser, "light", TALL)
        chosen = span_of(viewer, normal[0], "service default/customer:http")
        driver = "/driver.DriverService/FindNearest"
        url = f"{viewer.url}/trace/{normal[0]}?span={chosen}"
        picture(page, url, "dataplane", ".path", collapse=driver)
        throttled = run_hotrod(viewer.otlp_http_endpoint, "--throttle", demo="demo_dataplane")
        page = tab(browser, "light", NARROW)
        for name, traces in {"not-throttled": normal, "throttled": trace_ids(throttled)}.items():
            span = span_of(viewer, traces[-1], driver)
            url = f"{viewer.url}/trace/{traces[-1]}?span={span}"
            picture(page, url, name, ".path", collapse=driver)


def trace_ids(printed: str) -> list[str]:
    """Of the dispatches that a demo sent, in their order."""
    return re.findall(r"customer .* trace ([0-9a-f]{32})", printed)


def span_of(viewer: Viewer, trace_id: str, operation: str) -> str:
    """The span of that operation that has no other of that name below it."""
    trace = requests.get(f"{viewer.url}/api/traces/{trace_id}", timeout=20).json()["data"][0]
    found = [span for span in trace["spans"] if span["operationName"] == operation]
    last = max(found, key=lambda span: span["startTime"])
    return str(last["spanID"])


def main(names: list[str]) -> None:
    """Run HotROD, then take the pictures."""
    program = shutil.which("chromium") or "chromium-browser"
    args = ["--no-sandbox"] if os.geteuid() == 0 else []
    takes = {"trace": pictures_of_the_viewer, "dataplane": pictures_of_the_data_plane}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=args)
        for name in names or takes:
            takes[name](browser)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
