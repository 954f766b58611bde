"""The images of the container tests.

No registry is asked. All are built on a base image of our own (`tests/support/base_image.py`): the Dockerfiles are
those that a user builds, with BASE_IMAGE set and nothing else. An image is made anew after a week, as any should be.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from threading import Lock

from packaging.requirements import Requirement

from tests.support import base_image
from tests.support.docker import Docker, DockerError
from tests.support.jaeger import binary as jaeger_binary

REPOSITORY = Path(__file__).resolve().parents[2]
AGENT = REPOSITORY / "deploy" / "agent" / "Dockerfile"
OWN_IMAGES = REPOSITORY / "tests" / "containers" / "images"
PREFIX = "k8s-tracing-test/"

#: What our distributions are built with, beyond what they require.
_BUILD_REQUIREMENTS = ("pip", "scikit-build-core>=0.11", "cmake", "ninja")
_MAX_AGE = "168h"


class Images:
    """Makes images on the base image.

    Each stage of a Dockerfile gets a name, too: what has none is pruned afterwards, so that the builder's cache does
    not grow with every change of the sources.
    """

    def __init__(self, docker: Docker) -> None:
        self._docker = docker
        self._lock = Lock()
        self._base: str | None = None

    def base(self) -> str:
        """Debian with Python, packages and wheels; BASE_IMAGE of all others."""
        with self._lock:
            if self._base is None:
                self._base = self._make_base()
            return self._base

    def build(
        self, name: str, dockerfile: Path, context: Path | None = None, **build_args: str
    ) -> str:
        """Build an image; return its name.

        Args:
            name: without the prefix that all images of the tests have.
            dockerfile: its file.
            context: its context, the repository unless something else is said.
            build_args: more than BASE_IMAGE.
        """
        image = PREFIX + name
        arguments = {"BASE_IMAGE": self.base(), **build_args}
        for stage in re.findall(r"(?m)^FROM .* AS (\w+)$", dockerfile.read_text()):
            self._docker.build(
                f"{image}-{stage}",
                dockerfile,
                context or REPOSITORY,
                [f"--target={stage}"],
                **arguments,
            )
        return self._docker.build(image, dockerfile, context or REPOSITORY, **arguments)

    def wheel(self) -> str:
        """The first stage of the agent and of HotROD: this package, compiled."""
        return self._docker.build(
            f"{PREFIX}agent-wheel", AGENT, REPOSITORY, ["--target=wheel"], BASE_IMAGE=self.base()
        )

    def agent(self) -> str:
        """The node agent, from the Dockerfile that is delivered."""
        return self.build("agent", AGENT)

    def hotrod(self) -> str:
        """HotROD's services."""
        return self.build("hotrod", REPOSITORY / "examples" / "hotrod" / "Dockerfile")

    def own(self, name: str, **build_args: str) -> str:
        """One of those in tests/containers/images."""
        return self.build(name, OWN_IMAGES / name / "Dockerfile", OWN_IMAGES / name, **build_args)

    def jaeger(self) -> str:
        """The Jaeger that tools/build-jaeger makes, alone in an image."""
        binary = jaeger_binary()
        name = f"{PREFIX}jaeger:{binary.parent.name.rpartition('-')[2]}"
        if not self._docker.has_image(name):
            with tempfile.TemporaryDirectory(prefix="k8st-jaeger-") as folder:
                shutil.copy2(binary, folder)
                self._docker.build(name, OWN_IMAGES / "jaeger" / "Dockerfile", Path(folder))
        return name

    def prune(self) -> None:
        """Remove what later builds have replaced."""
        self._docker.run("image", "prune", "--force", timeout_s=300)

    def _make_base(self) -> str:
        self._docker.run(
            "image", "prune", "--all", "--force", f"--filter=until={_MAX_AGE}", timeout_s=300
        )
        packages = debian_packages(dockerfiles())
        wheels = requirements(["agent", "auto", "hotrod"])
        name = f"{PREFIX}base:{base_image.key(packages, wheels)}"
        if not self._docker.has_image(name):
            with tempfile.TemporaryDirectory(prefix="k8st-base-") as folder:
                root = Path(folder, "root")
                base_image.make(root, packages, wheels)
                self._import(root, name)
        return name

    def _import(self, root: Path, name: str) -> None:
        tar = subprocess.Popen(
            ["tar", "--create", "--directory", root, "."], stdout=subprocess.PIPE
        )
        assert tar.stdout is not None
        with tar, tar.stdout:
            words = ("import", "--change", base_image.SETTINGS, "-", name)
            self._docker.run(*words, stdin=tar.stdout.fileno(), timeout_s=300)
        if tar.returncode:
            raise DockerError(f"tar of {root} ended with exit status {tar.returncode}")


def dockerfiles() -> list[Path]:
    """Every Dockerfile of the repository that is built on the base image."""
    found = [
        *REPOSITORY.glob("deploy/**/Dockerfile"),
        *REPOSITORY.glob("examples/**/Dockerfile"),
        *OWN_IMAGES.glob("*/Dockerfile"),
    ]
    return sorted(found)


def debian_packages(files: Iterable[Path]) -> list[str]:
    """The packages that Dockerfiles install by apt-get."""
    found: set[str] = set()
    for file in files:
        text = file.read_text().replace("\\\n", " ")
        for words in re.findall(r"apt-get install --yes --no-install-recommends ([^&;\n]*)", text):
            found.update(words.split())
    return sorted(found)


def requirements(extras: list[str]) -> list[str]:
    """What the package needs with these extras, and what the tests' own images install."""
    wanted = {*_BUILD_REQUIREMENTS}
    for line in importlib.metadata.requires("k8s-tracing") or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
            requirement.marker = None
            wanted.add(str(requirement))
    for file in OWN_IMAGES.glob("*/requirements.txt"):
        wanted.update(file.read_text().split())
    return sorted(wanted)
