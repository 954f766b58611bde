"""The native core under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

COMPILE = (
    *("gcc", "-g", "-O1", "-fPIC", "-shared", "-fno-omit-frame-pointer"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
)


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, whose C was compiled with ASan and UBSan."""
    folder = tmp_path_factory.mktemp("sanitized")
    package = folder / "k8s_tracing"
    package.mkdir()
    for entry in (ROOT / "k8s_tracing").iterdir():
        if entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    cmake = (ROOT / "_native" / "CMakeLists.txt").read_text()
    found = re.search(r"add_library\(_core MODULE WITH_SOABI ([^)]*)\)", cmake)
    assert found
    libraries = dict(
        re.findall(r"add_library\(k8s_tracing_(relay|dataplane) SHARED ([^)]*)\)", cmake)
    )
    extension = sysconfig.get_config_var("EXT_SUFFIX")
    include = f"-I{sysconfig.get_path('include')}"
    compilers = [
        subprocess.Popen([*COMPILE, *options, *sources, "-o", package / name], cwd=ROOT / "_native")
        for name, options, sources in (
            (f"_core{extension}", ["-std=c11", include], found[1].split()),
            (
                "libk8s_tracing_relay.so",
                ["-std=gnu11", "-D_GNU_SOURCE"],
                libraries["relay"].split(),
            ),
            ("libk8s_tracing_dataplane.so", ["-std=gnu11"], libraries["dataplane"].split()),
        )
    ]
    assert [compiler.wait() for compiler in compilers] == [0, 0, 0]
    for name in libraries:
        (package / f"{name}.cdef.txt").symlink_to(ROOT / f"_native/{name}.cdef.txt")
    return folder


CORE = (
    "tests/contract/test_contract.py",
    "tests/unit/native",
    "tests/unit/test_core_memory.py",
    "tests/unit/test_sampling.py",
    "tests/unit/test_processors.py",
    "tests/property/test_attributes.py",
)
CPU = ("tests/unit/test_cpu.py",)
RELAY = (
    "tests/unit/agent/test_relay.py",
    "tests/unit/agent/test_relay_cpu.py",
    "tests/unit/agent/test_relay_cpu_state.py",
    "tests/unit/agent/test_relay_losses.py",
    "tests/unit/agent/test_relay_state.py",
    "tests/unit/agent/test_relay_unfinished.py",
    "tests/property/test_relay_cpu.py",
    "tests/property/test_relay_pairing.py",
)
DATAPLANE = (
    "tests/unit/dataplane/test_asked.py",
    "tests/unit/dataplane/test_conntrack.py",
    "tests/unit/dataplane/test_join.py",
    "tests/unit/dataplane/test_scheduler.py",
    "tests/unit/dataplane/test_unobserved.py",
)


@pytest.mark.parametrize(
    "suites",
    [
        pytest.param(CORE, id="core"),
        pytest.param(CPU, id="cpu", marks=pytest.mark.alone),
        pytest.param(RELAY, id="relay"),
        pytest.param(DATAPLANE, id="dataplane"),
    ],
)
def test_the_suites_pass_under_address_and_undefined_behaviour_sanitizers(
    sanitized: Path, suites: tuple[str, ...]
) -> None:
    libraries = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        # the editable install's own finder would come first
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in type(f).__module__.lower()]\n"
        "import k8s_tracing._core as core\n"
        "assert core.__file__.startswith(sys.argv[1]), core.__file__\n"
        "import hypothesis\n"
        "hypothesis.settings.register_profile('few', max_examples=20, deadline=None)\n"
        "hypothesis.settings.load_profile('few')\n"
        "import pytest; sys.exit(pytest.main(sys.argv[2:]))\n"
    )
    # the backend in memory; and what counts memory blocks has other numbers here
    chosen = "not left_behind and not lttng and not otel"
    rewrite = "ignore::pytest.PytestAssertRewriteWarning"  # hypothesis was imported before
    answer = subprocess.run(
        [
            *(sys.executable, "-c", script, str(sanitized), *suites),
            *("-q", "-p", "no:cacheprovider", "-p", "no:faulthandler", "-p", "pytest_timeout"),
            # a sanitizer ends the process, and what pytest had caught of file descriptor 2 with it
            *("-k", chosen, "-W", rewrite, "--capture=sys"),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "LD_PRELOAD": " ".join(libraries),
            # CPython keeps what it has at exit, and its allocator would hide what is used after it was freed
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:allocator_may_return_null=1",
            "PYTHONMALLOC": "malloc",
            # other plugins take longer to load than the tests to run
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, (answer.stdout + answer.stderr)[-20000:]
    assert " passed" in answer.stdout
