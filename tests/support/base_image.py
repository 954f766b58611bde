"""The base image of the container tests: Debian with Python, a package index and wheels, made on this machine.

It stands for `python:3.12-slim-bookworm`, which a machine without an image registry cannot have. Its apt-get and pip
install from within it, so that nothing that is built on it needs a network.
"""

from __future__ import annotations

import ast
import contextlib
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.docker import DockerError

#: What the image's configuration has to say.
SETTINGS = "ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheelhouse PIP_DISABLE_PIP_VERSION_CHECK=1"

_SUITE = "bookworm"
#: What `python:3.12-slim-bookworm` has beyond the smallest Debian, as packages: Python, its headers, venv.
_BASE_PACKAGES = ("python3-venv", "python3-dev", "ca-certificates")
_DEFAULT_MIRROR = "http://deb.debian.org/debian"
_DOWNLOAD_TIMEOUT_S = 600


def key(packages: Sequence[str], wheels: Sequence[str]) -> str:
    """Name what `make` would make of these."""
    recipe = [Path(__file__).read_text(), *packages, *wheels]
    return hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:12]


def make(root: Path, packages: Sequence[str], wheels: Sequence[str]) -> None:
    """Put the image's files into a new folder.

    Args:
        root: the folder.
        packages: Debian packages that can be installed later, without a network.
        wheels: requirements in pip's form, likewise.

    Raises:
        DockerError: a program is missing, or could not download something.
    """
    _bootstrap(root, packages)
    _index_packages(root)
    _download_wheels(root, wheels)


def _bootstrap(root: Path, packages: Sequence[str]) -> None:
    """Put a Debian into a folder, and these packages with all that they need into `packages/` in it."""
    program = shutil.which("mmdebstrap")
    if program is None:
        raise DockerError("mmdebstrap is not installed, and these tests need it: run `make setup`")
    download = (
        "APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get --yes --quiet --no-install-recommends --download-only install "
        + " ".join(packages)
        + ' && mkdir "$1/packages" && mv "$1"/var/cache/apt/archives/*.deb "$1/packages"'
    )
    words = [program, "--mode=root", "--variant=minbase", "--quiet"]
    words += [f"--include={','.join(_BASE_PACKAGES)}", f"--customize-hook={download}"]
    for proxy in _apt_proxies():
        words.append(f"--aptopt={proxy}")
    # As Debian's own images: nobody reads there, and nothing needs to outlive a power cut.
    words += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")]
    words += ["--dpkgopt=force-unsafe-io"]
    _run([*words, _SUITE, str(root), _mirror()], "a Debian for the base image")
    # From here on there is no network and no proxy.
    for file in root.glob("etc/apt/apt.conf.d/*mmdebstrap*"):
        file.unlink()


def _index_packages(root: Path) -> None:
    """Make of `packages/` what apt reads: an index, as `dpkg-scanpackages` of dpkg-dev writes it."""
    folder = root / "packages"
    entries = []
    for path in sorted(folder.glob("*.deb")):
        control = _run(["dpkg-deb", "--field", str(path)], path.name).strip()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        size = path.stat().st_size
        entries.append(f"{control}\nFilename: ./{path.name}\nSize: {size}\nSHA256: {digest}\n")
    (folder / "Packages.gz").write_bytes(gzip.compress("\n".join(entries).encode()))
    shutil.rmtree(root / "etc/apt/sources.list.d", ignore_errors=True)
    (root / "etc/apt/sources.list").write_text("deb [trusted=yes] file:/packages ./\n")


def _mirror() -> str:
    """The Debian mirror of this machine, if it has one."""
    words = [
        "apt-get",
        "indextargets",
        "--format",
        "$(SITE)",
        "Created-By: Packages",
        "Label: Debian",
    ]
    sites = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
    return sites[0] if sites else _DEFAULT_MIRROR


def _apt_proxies() -> list[str]:
    """How this machine's apt gets out, in the form of apt.conf(5)."""
    words = [
        "apt-config",
        "dump",
        "--format",
        '%f "%v";%n',
        "Acquire::http::Proxy",
        "Acquire::https::Proxy",
    ]
    answer = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return [line for line in answer.splitlines() if not line.endswith('"";')]


def _download_wheels(root: Path, wanted: Sequence[str]) -> None:
    """Put wheels into `wheelhouse/` of a Debian, with its own Python: which ones depends on its exact version.

    It gets out as this machine's pip does; nothing of that stays.
    """
    env = _pip_environment()
    certificates = env.get("PIP_CERT")
    lent = ["/etc/resolv.conf", *([certificates] if certificates else [])]
    with contextlib.ExitStack() as stack:
        for path in lent:
            stack.enter_context(_lent(path, root))
        _run(["chroot", str(root), "python3", "-m", "venv", "/pip"], "pip for the base image")
        words = ["chroot", str(root), "/pip/bin/pip", "download", "--quiet", "--no-cache-dir"]
        words += ["--only-binary=:all:", "--dest=/wheelhouse", *wanted]
        _run(words, "the wheels for the base image", env)
    shutil.rmtree(root / "pip")


def _pip_environment() -> dict[str, str]:
    """What this machine's pip is configured with, as variables."""
    words = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    variables = {}
    for line in _run(words, "pip's configuration").splitlines():
        name, _, value = line.partition("=")
        option = name.rpartition(".")[2]
        variables["PIP_" + option.upper().replace("-", "_")] = str(ast.literal_eval(value))
    return {**os.environ, **variables}


@contextlib.contextmanager
def _lent(path: str, root: Path) -> Iterator[None]:
    """Copy a file of this machine into a Debian for a while."""
    inside = root / path.removeprefix("/")
    before = inside.read_bytes() if inside.exists() else None
    inside.parent.mkdir(parents=True, exist_ok=True)
    inside.unlink(missing_ok=True)
    shutil.copyfile(path, inside)
    try:
        yield
    finally:
        inside.unlink()
        if before is not None:
            inside.write_bytes(before)


def _run(words: list[str], what: str, env: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            words,
            env=env,
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DockerError(f"{what}: not done in {_DOWNLOAD_TIMEOUT_S} s: {words[0]}") from None
    if done.returncode:
        raise DockerError(
            f"{what}: `{words[0]}` failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return done.stdout
