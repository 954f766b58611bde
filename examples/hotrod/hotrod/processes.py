# SPDX-License-Identifier: Apache-2.0
"""Starts, watches and stops HotROD's processes: a private Redis and the four services.

with processes.Hotrod(directory, environment) as hotrod:
    hotrod.wait_until_healthy()
    requests.get(f"http://{hotrod.addresses['frontend']}/dispatch?customer=123")
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from .config import SERVICES, Address

PACKAGE_PARENT = Path(__file__).resolve().parent.parent
# We may be gone before setpriv has asked for the signal that tells so; then nobody will send it.
IF_PARENT_LIVES = 'test "$PPID" = "$0" && exec "$@"'
ANY_PORT = Address("127.0.0.1", 0)

# The kernel may offer a port a second time while the process it was meant for is still starting.
_given: set[Address] = set()


class ProcessError(Exception):
    """A process did not start, does not answer, or ended by itself. Says what its log says."""


class Child:
    """A process with its log. It ends when we do, whatever happens to us.

    Start it from the main thread: to the kernel, "we" is the thread that starts a process.
    """

    def __init__(
        self, name: str, command: Sequence[str], directory: Path, env: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        # Both become the command in the end. Doing what they do in `preexec_fn` instead would run Python
        # code between fork and exec, which can deadlock where there are threads.
        setpriv = shutil.which("setpriv")
        if setpriv:
            shell = ["sh", "-c", IF_PARENT_LIVES, str(os.getpid())]
            command = [setpriv, "--pdeathsig=TERM", *shell, *command]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal reaches us alone; we stop the children, in order.
                start_new_session=True,
            )

    def check(self) -> None:
        status = self.process.poll()
        if status is not None:
            raise self.error(f"has ended with status {status}")

    def error(self, what: str, log_lines: int = 20) -> ProcessError:
        lines = self.log.read_text(errors="replace").splitlines()[-log_lines:]
        tail = [f"    {line}" for line in lines] or ["    (nothing)"]
        return ProcessError("\n".join([f"{self.name} {what}. The end of its log:", *tail]))

    def stop(self, timeout_s: float = 10) -> None:
        """Ask the process to end, and end its whole group when it does not."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Hotrod:
    """The four services, for as long as the `with`.

    Their Redis is the one given, "" being the driver service's stand-in; else a private one, or where none is
    installed that stand-in, too.
    """

    def __init__(
        self,
        directory: Path,
        env: Mapping[str, str],
        *,
        addresses: Mapping[str, Address] | None = None,
        redis_url: str | None = None,
        flags: Iterable[str] = (),
        program: Sequence[str] = ("-m", "hotrod"),
    ) -> None:
        self.addresses = dict(addresses or {name: free_address() for name in SERVICES})
        self.children: dict[str, Child] = {}
        self._directory = directory
        self._env = {**os.environ, **env}
        self.redis_url = redis_url
        self._flags = list(flags)
        self._program = program

    def __enter__(self) -> Hotrod:
        try:
            if self.redis_url is None:
                self.redis_url = self._start_redis()
            for service in SERVICES:
                self._start_service(service, self.redis_url)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _start_redis(self) -> str:
        address = free_address()
        command = redis_command(address)
        if not command:
            return ""
        child = self.children["redis"] = Child("redis", command, self._directory, self._env)
        wait_for(lambda: accepts_connections(address), child, timeout_s=10)
        return f"redis://{address}/0"

    def _start_service(self, service: str, redis_url: str) -> None:
        command = service_command(
            service, self.addresses[service], self.addresses, redis_url, self._program
        )
        env = service_environment(self._env)
        self.children[service] = Child(service, command + self._flags, self._directory, env)

    def wait_until_healthy(
        self, on_healthy: Callable[[str], None] = lambda service: None, timeout_s: float = 60
    ) -> None:
        """Return when every service answers; call `on_healthy` with each as soon as it does."""
        deadline = time.monotonic() + timeout_s
        waiting = list(SERVICES)
        while waiting:
            for service in list(waiting):
                self.children[service].check()
                if is_healthy(service, self.addresses[service]):
                    waiting.remove(service)
                    on_healthy(service)
            if waiting and time.monotonic() > deadline:
                raise self.children[waiting[0]].error(f"is not ready after {timeout_s:.0f} s")
            time.sleep(0.05)

    def check(self) -> None:
        """Raise ProcessError when one of the processes has ended."""
        for child in self.children.values():
            child.check()

    def stop(self) -> None:
        # The frontend first: no request must meet a service that is gone. Redis last.
        for name in sorted(self.children, key=_stop_order):
            self.children[name].stop()
        self.children.clear()


def redis_command(address: Address) -> list[str]:
    """A Redis that keeps nothing; empty where none is installed."""
    program = shutil.which("redis-server")
    if program is None:
        return []
    command = [program, "--bind", address.host, "--port", str(address.port)]
    return [*command, "--save", "", "--appendonly", "no", "--daemonize", "no"]


def service_command(
    service: str,
    listen: Address,
    peers: Mapping[str, Address],
    redis_url: str,
    program: Sequence[str] = ("-m", "hotrod"),
) -> list[str]:
    """What runs one of the services; flags may follow."""
    command = [sys.executable, *program, service]
    command += ["--listen", str(listen), "--redis-url", redis_url]
    for peer in ("customer", "driver", "route"):
        command += [f"--{peer}", str(peers[peer])]
    return command


def service_environment(env: Mapping[str, str]) -> dict[str, str]:
    """A service's environment: it finds its package, and its log is there as it is written."""
    path = os.pathsep.join(filter(None, [str(PACKAGE_PARENT), env.get("PYTHONPATH", "")]))
    return {**env, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def _stop_order(name: str) -> int:
    return {"frontend": 0, "redis": 2}.get(name, 1)


def free_address(preferred: Address = ANY_PORT) -> Address:
    """The preferred address when nothing listens there, else a free port of the same host."""
    for port in (preferred.port, *[0] * 20):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((preferred.host, port))
                found = Address(preferred.host, probe.getsockname()[1])
                if found not in _given:
                    _given.add(found)
                    return found
    raise ProcessError(f"There is no free port on {preferred.host}.")


def accepts_connections(address: Address) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=1):
        return True
    return False


def is_healthy(service: str, address: Address) -> bool:
    if service == "driver":  # gRPC; it listens only when its drivers are on the map
        return accepts_connections(address)
    connection = http.client.HTTPConnection(*address, timeout=1)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_for(condition: Callable[[], bool], child: Child, timeout_s: float) -> None:
    """Return when the condition holds; raise ProcessError when the child ends or time is up."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        child.check()
        if time.monotonic() > deadline:
            raise child.error(f"is not ready after {timeout_s:.0f} s")
        time.sleep(0.02)
