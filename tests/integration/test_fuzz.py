"""Broken packets and metadata: the relay reads nothing that is not its own, and comes to an end.

A bounded run of mutated inputs under the sanitizers. CONTRIBUTING.md has the command for a search of any length.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.fuzz import make_corpus

ROOT = Path(__file__).parents[2]
FUZZ = ROOT / "tests" / "fuzz"
NATIVE = ROOT / "_native"
SECONDS = 10


def relay_sources() -> list[Path]:
    """The relay's sources as CMake has them; the target has files of its own, in memory."""
    found = re.search(
        r"add_library\(k8s_tracing_relay SHARED ([^)]*)\)", (NATIVE / "CMakeLists.txt").read_text()
    )
    assert found
    return [NATIVE / name for name in found[1].split() if name != "relay_file.c"]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("fuzz") / "fuzz"
    subprocess.run(
        [
            *("gcc", "-std=c11", "-D_GNU_SOURCE", "-g", "-O1", f"-I{NATIVE}"),
            *("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
            *(FUZZ / "driver.c", FUZZ / "fuzz_relay.c", *relay_sources()),
            *("-o", program),
        ],
        check=True,
    )
    return program


def test_mutated_traces(target: Path) -> None:
    corpus = sorted(make_corpus.CORPUS.iterdir())
    done = subprocess.run(
        [target, str(SECONDS), "1", *corpus],
        env={
            **os.environ,
            "FUZZ_TRACE": str(make_corpus.golden_folder()),
            "ASAN_OPTIONS": "detect_leaks=1:max_allocation_size_mb=64",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert int(done.stdout) > len(corpus)


def test_the_corpus_is_what_its_script_makes() -> None:
    for name, content in make_corpus.seeds().items():
        assert (make_corpus.CORPUS / name).read_bytes() == content, name
