"""A Docker daemon of the tests' own, in namespaces of its own.

dockerd runs as in any other place, but in PID, mount and network namespaces that end with it: whatever happens, no
process, mount, bridge, firewall rule or published port of it is left, and it meets neither a user's dockerd nor a port
that is taken on this machine. What tests ask over the network they ask from inside (`Docker.inside`). There is no way
out: images are built from what the base image brings (`tests/support/images.py`).

Only its data root stays, `~/.cache/k8s-tracing/docker`: images and the builder's cache.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, TypeVar

from tests.support.wait import wait_for

P = ParamSpec("P")
T = TypeVar("T")

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "k8s-tracing" / "docker"

_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 30
_PRUNE_TIMEOUT_S = 300
_SHOWN_CHARACTERS = 3000
_CLONE_NEWNET = 0x40000000
_CGROUP = "k8s-tracing-tests"

# A private /run keeps the sockets of containerd's shims, which no option moves, from those of another Docker here.
_IN_NAMESPACES = 'mount -t tmpfs tmpfs /run && exec docker-init -- "$@"'

# What a program of ours is told that builds or runs images: nothing of the user's own Docker, and the builder that
# every Docker has.
_NOT_OURS = ("DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")


class DockerError(AssertionError):
    """A command of Docker failed, or Docker cannot run here; the message says which and why."""


class Docker:
    """A dockerd from `with Docker() as docker:` to the end of the block.

    Attributes:
        env: The environment in which `docker` and `docker compose` talk to it.
    """

    def __init__(self) -> None:
        self.env: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._network: ThreadPoolExecutor | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Docker:
        check_requirements()
        with contextlib.ExitStack() as stack:
            stack.enter_context(_only_user_of(CACHE))
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="k8st-docker-"))
            self._folder = Path(name)
            self.env = self._environment()
            stack.callback(_remove_cgroups)
            stack.callback(self._stop)
            self._start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def run(
        self,
        *arguments: str | Path,
        timeout_s: float = 60,
        stdin: int = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """Run `docker ARGUMENTS` and return what it printed.

        Raises:
            DockerError: it failed or took too long; the message has all that it wrote.
        """
        words = ["docker", *map(str, arguments)]
        try:
            done = subprocess.run(
                words,
                env={**self.env, **(env or {})},
                stdin=stdin,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            written = b"".join(filter(None, (error.stdout, error.stderr))).decode(errors="replace")
            raise DockerError(
                f"`{' '.join(words)}`: not done in {timeout_s:g} s\n{written}"
            ) from None
        if done.returncode != 0:
            written = (done.stdout + done.stderr)[-_SHOWN_CHARACTERS:]
            raise DockerError(
                f"`{' '.join(words)}` failed with exit status {done.returncode}:\n{written}"
            )
        return done.stdout

    def build(
        self,
        image: str,
        dockerfile: Path,
        context: Path,
        arguments: Sequence[str] = (),
        timeout_s: float = 300,
        **build_args: str,
    ) -> str:
        """Build an image; return its name."""
        words = [f"--build-arg={name}={value}" for name, value in build_args.items()]
        self.run(
            "build", "--quiet", "--force-rm", "--tag", image, "--file", dockerfile, *words, *arguments, context,
            timeout_s=timeout_s,
        )  # fmt: skip
        return image

    def has_image(self, image: str) -> bool:
        """Is it in the data root?"""
        return bool(self.run("image", "ls", "--quiet", image).strip())

    def inside(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the daemon's network, where published ports and containers can be reached."""
        assert self._network is not None
        return self._network.submit(function, *args, **kwargs).result()

    @property
    def proc(self) -> Path:
        """/proc as the daemon sees it, with the process ids that it tells."""
        return Path(f"/proc/{self._init_pid()}/root/proc")

    def _start(self) -> None:
        programs = {name: _program(name) for name in ("setpriv", "unshare", "dockerd")}
        # --pdeathsig and --kill-child: a test run that is killed takes everything with it.
        namespaces = [programs["setpriv"], "--pdeathsig=KILL", "--", programs["unshare"]]
        namespaces += ["--pid", "--fork", "--kill-child", "--mount-proc", "--net"]
        daemon = [programs["dockerd"], f"--data-root={CACHE}/data", "--group=0"]
        daemon += [f"--exec-root={self._folder}/exec", f"--pidfile={self._folder}/pid"]
        daemon += [f"--host={self.env['DOCKER_HOST']}", f"--cgroup-parent=/{_CGROUP}"]
        # Another PID namespace than systemd's: it could not follow the numbers that we would give it.
        daemon += ["--exec-opt=native.cgroupdriver=cgroupfs"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*namespaces, "--", "/bin/sh", "-c", _IN_NAMESPACES, "sh", *daemon],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"},
            )
        try:
            wait_for("dockerd", self._answers, _START_TIMEOUT_S, interval_s=0.1)
        except (TimeoutError, DockerError) as error:
            raise DockerError(
                f"dockerd does not run here ({error}); these tests need root, control groups, and leave to make "
                f"namespaces and mounts. The end of its log:\n{self._log_tail()}"
            ) from None
        network = Path(f"/proc/{self._init_pid()}/ns/net")
        self._network = ThreadPoolExecutor(8, initializer=_enter_network, initargs=(network,))
        self.inside(_loopback_up)
        # What a test run that was killed has left in the data root.
        for kind in ("container", "volume", "network"):
            self.run(kind, "prune", "--force", timeout_s=_PRUNE_TIMEOUT_S)

    def _answers(self) -> bool:
        assert self._process is not None
        if (status := self._process.poll()) is not None:
            raise DockerError(f"it ended with exit status {status}")
        words = ["docker", "version", "--format", "{{.Server.Version}}"]
        return subprocess.run(words, env=self.env, capture_output=True, check=False).returncode == 0

    def _init_pid(self) -> int:
        """The first process in the PID namespace; when it dies, all others do."""
        assert self._process is not None
        pid = self._process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def _stop(self) -> None:
        if self._network is not None:
            self._network.shutdown()
        if self._process is None:
            return
        # unshare itself ignores SIGTERM; dockerd stops its containers and takes its mounts down.
        with contextlib.suppress(OSError, IndexError):
            os.kill(self._init_pid(), signal.SIGTERM)
            self._process.wait(_STOP_TIMEOUT_S)
        self._process.kill()
        self._process.wait()

    def _environment(self) -> dict[str, str]:
        config = self._folder / "config"
        plugins = config / "cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-compose").symlink_to(Path(sys.executable).with_name("docker-compose"))
        env = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
        return env | {
            "DOCKER_HOST": f"unix://{self._folder}/docker.sock",
            "DOCKER_CONFIG": str(config),
            "DOCKER_BUILDKIT": "0",
        }

    @property
    def _log(self) -> Path:
        return self._folder / "dockerd.log"

    def _log_tail(self, lines: int = 20) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])


def check_requirements() -> None:
    """Say what is missing for a dockerd of our own.

    Raises:
        DockerError: something is.
    """
    if os.geteuid() != 0:
        raise DockerError(
            "the container tests start a Docker daemon of their own, which needs root: run `sudo make test`, or "
            "leave them out with ARGS='--ignore=tests/containers'"
        )
    for name in ("dockerd", "docker", "docker-init", "unshare", "setpriv"):
        _program(name)
    if not any(Path("/sys/fs/cgroup").iterdir()):
        raise DockerError(
            "there are no control groups in /sys/fs/cgroup, without which no container runs: in a container, this "
            "one must be started with --privileged and --cgroupns=host"
        )


def _program(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        raise DockerError(f"{name} is not installed, and these tests need it: run `make setup`")
    return path


@contextlib.contextmanager
def _only_user_of(folder: Path) -> Iterator[None]:
    """Hold the data root alone: no two daemons can have it, so another test run is waited for."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    with (folder / "lock").open("w") as file:
        started = time.monotonic()
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited_s = time.monotonic() - started
                print(
                    f"docker: another test run uses {folder}; waited {waited_s:.0f} s",
                    file=sys.stderr,
                )
                time.sleep(5)
        yield


def _enter_network(namespace: Path) -> None:
    """Move this thread into a network namespace; Python has setns() only from 3.12 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    with namespace.open() as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


def _loopback_up() -> None:
    """A new network's loopback interface is down, and with it the ports published there; netdevice(7)."""
    siocsifflags, iff_up = 0x8914, 0x1
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, siocsifflags, struct.pack("16sh14x", b"lo", iff_up))


def _remove_cgroups() -> None:
    """Nobody is in them any more, but only the runtime that made them would remove them."""
    for top in Path("/sys/fs/cgroup").glob(f"**/{_CGROUP}"):
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
