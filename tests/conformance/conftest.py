"""OpenTelemetry's own tests, taken from its source packages into a cache outside of the tree."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

#: Source packages carry the tests, wheels do not.
SOURCES = (
    "opentelemetry-sdk==1.45.1"
    " --hash=sha256:63d24a6ca645019a631e6a51999c73e93adcac1196ca640b8ae78a7cc4762bf3",
    "opentelemetry-api==1.45.1"
    " --hash=sha256:aa38ed19bcc084ba42782a73255b3582283eced7ad6dddbd6695189e69adfb75",
)


@pytest.fixture(scope="session")
def opentelemetry_sources() -> Path:
    """A folder with the folders opentelemetry_sdk-1.45.1 and opentelemetry_api-1.45.1."""
    requirements = "\n".join(SOURCES) + "\n"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "k8s-tracing"
    name = f"opentelemetry-{hashlib.sha256(requirements.encode()).hexdigest()[:12]}"
    if not (cache / name).exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            (Path(folder) / "requirements.txt").write_text(requirements)
            unpacked = Path(folder) / "unpacked"
            subprocess.run(
                [
                    *(sys.executable, "-m", "pip", "--disable-pip-version-check", "download"),
                    *("--quiet", "--no-deps", "--no-binary=opentelemetry-sdk,opentelemetry-api"),
                    *("--requirement", "requirements.txt", "--dest", "archives"),
                ],
                cwd=folder,
                check=True,
            )
            for archive in (Path(folder) / "archives").glob("*.tar.gz"):
                # the archives are those whose hashes stand above; Python 3.11.2 has no filters yet
                with tarfile.open(archive) as tar:
                    tar.extraction_filter = getattr(tarfile, "data_filter", None)
                    tar.extractall(unpacked)
            try:
                unpacked.rename(cache / name)
            except OSError:  # another run was faster
                assert (cache / name).is_dir()
    return cache / name
