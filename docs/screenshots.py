"""Makes the pictures of the viewer in docs/images again, from HotROD's real traces.

    .venv/bin/python docs/screenshots.py

HotROD runs twice, with its faults and without its lock, and the viewer receives its spans as it does in `make demo`.
"""

from __future__ import annotations

import os
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


def run_hotrod(endpoint: str, *flags: str) -> None:
    """Send four dispatches through HotROD, whose spans go to this endpoint."""
    command = [sys.executable, "examples/hotrod/demo.py", "--once", *flags]
    env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    subprocess.run(command, cwd=REPOSITORY, env=env, check=True, stdout=subprocess.DEVNULL)


def dispatches(viewer: Viewer) -> list[dict[str, Any]]:
    """The traces of dispatches, the longest first."""
    query = {"service": "frontend", "operation": "GET /dispatch"}
    answer = requests.get(f"{viewer.url}/api/trace-summaries", params=query, timeout=20)
    return sorted(answer.json()["data"], key=lambda trace: -trace["duration"])


def picture(page: Page, url: str, name: str, wait_for: str) -> None:
    """Open a page and keep what it shows."""
    page.goto(url)
    page.locator(wait_for).first.wait_for()
    page.evaluate("document.activeElement?.blur()")
    page.wait_for_timeout(300)  # the minimap and the results' fading are drawn
    page.screenshot(path=IMAGES / f"{name}.png")
    print(IMAGES / f"{name}.png")


def tab(browser: Browser, theme: Any) -> Page:
    """A new tab in light or dark."""
    return browser.new_context(viewport=WIDE, color_scheme=theme).new_page()


def main() -> None:
    """Run HotROD, then take the pictures."""
    program = shutil.which("chromium") or "chromium-browser"
    args = ["--no-sandbox"] if os.geteuid() == 0 else []
    with Viewer() as viewer, sync_playwright() as playwright:
        run_hotrod(viewer.otlp_http_endpoint)
        run_hotrod(viewer.otlp_http_endpoint, "--fix-disable-db-conn-mutex")
        found = dispatches(viewer)
        slowest, fastest = found[0]["traceID"], found[-1]["traceID"]
        browser = playwright.chromium.launch(executable_path=program, args=args)
        light, dark = tab(browser, "light"), tab(browser, "dark")
        trace = f"{viewer.url}/trace/{slowest}"
        picture(light, f"{viewer.url}/search?service=frontend", "search", ".trace-item")
        picture(light, trace, "trace", ".path")
        picture(dark, trace, "trace-dark", ".path")
        picture(light, f"{trace}...{fastest}", "compare", ".compare-row .bar")
        picture(light, f"{viewer.url}/dependencies", "dependencies", ".graph")
        browser.close()


if __name__ == "__main__":
    main()
