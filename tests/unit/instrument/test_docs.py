"""The Python in the how-to is run, from top to bottom as one program."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs/how-to/instrument.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)

# Asks the two applications of the page, and tells the spans by their names and parents.
CHECK = """
from wsgiref.util import setup_testing_defaults
from starlette.testclient import TestClient
from k8s_tracing import api

assert TestClient(app).get("/customers/7").text == "ok"
environ = {}
setup_testing_defaults(environ)
response = application(environ, lambda status, headers: None)
assert b"".join(response) == b"hello"
response.close()
spans = {span.span_id: span for span in api.backend().records}
for span in spans.values():
    parent = spans.get(span.parent_span_id)
    print(span.name, "<", parent.name if parent else "-")
"""


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_alone_runs(number: int) -> None:
    run(BLOCKS[number])


def test_the_page_does_what_it_says() -> None:
    assert sorted(run("\n".join([*BLOCKS, CHECK])).splitlines()) == sorted(
        [
            "GET /customers/{id} < -",
            "GET < -",
            "dispatch < -",
            "dispatch < -",
            "dispatch < -",
            "find eta < dispatch",
            "find eta < dispatch",
            "find eta < dispatch",
            "in the other process < dispatch",
            "work < dispatch",
        ]
    )


def run(program: str) -> str:
    """Run a program on the memory backend; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={"K8S_TRACING_BACKEND": "memory", "OTEL_SEMCONV_STABILITY_OPT_IN": "http,database"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
