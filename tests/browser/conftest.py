"""A real Chromium, headless, that the viewer's page runs in."""

from __future__ import annotations

import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

import k8s_tracing

PAGE = Path(k8s_tracing.__file__).parent / "viewer/page"
TIMEOUT_MS = 20_000


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium: Playwright's own would be a download from elsewhere.

    It ends with the tests of this folder, since Playwright's event loop would be in the way of others'.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "Chromium is missing: `make setup` installs it"
    # Chromium's sandbox does not start as root; what it shows here are our own pages.
    args = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=args)
        yield chromium
        chromium.close()


@pytest.fixture
def browser_says() -> list[str]:
    """Errors and warnings of `page`. A test takes out what it expects of them; what is left fails it."""
    return []


@pytest.fixture
def page(browser: Browser, browser_says: list[str]) -> Iterator[Page]:
    """A tab of its own. A script that fails, or something that the policy stops, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    context.set_default_timeout(TIMEOUT_MS)
    tab = context.new_page()
    tab.on("pageerror", lambda error: browser_says.append(str(error)))
    tab.on(
        "console",
        lambda said: browser_says.append(said.text) if said.type in ("error", "warning") else None,
    )
    yield tab
    context.close()
    assert browser_says == []


class _Static(http.server.SimpleHTTPRequestHandler):
    """The page's files, with nothing behind them."""

    def translate_path(self, path: str) -> str:
        return str(PAGE / path.removeprefix("/"))

    def do_GET(self) -> None:
        if self.path != "/":
            super().do_GET()
            return
        body = b"<!doctype html><link rel=icon href=data:,><title>empty</title>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="package")
def static() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Static) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
