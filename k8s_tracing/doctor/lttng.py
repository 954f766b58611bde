# SPDX-License-Identifier: Apache-2.0
"""LTTng as an application here sees it: the daemon's socket, /dev/shm, the library, who records."""

from __future__ import annotations

import os
import re
import shutil
import socket
import struct
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree

from k8s_tracing.agent.lttng import INSTALL_HINT, Control
from k8s_tracing.backends.daemon import daemon_folders, daemon_sockets
from k8s_tracing.doctor.finding import Finding, Level, ok, problem, warning
from k8s_tracing.errors import BackendUnavailable, SessionError

EVENT = "k8s_tracing:start_span"
SHM = Path("/dev/shm")  # noqa: S108 - LTTng's place
SMALL_BYTES = 1 << 20

#: Protocol generation -> releases that speak it; a library and a daemon of two generations do not meet.
_RELEASES = {8: "2.13 and 2.14", 11: "2.15 and later"}
_ROOTS_FOLDER = Path("/var/run/lttng")
_AGENT = "start `k8s-tracing agent` on this machine; in a container, mount the folder of its socket"
_Grade = Callable[[str, str, str], Finding]


def machine(*, needed: bool) -> list[Finding]:
    """Return what can be seen before liblttng-ust is loaded, which makes wait files of its own.

    Args:
        needed: nothing takes LTTng's place here.
    """
    grade: _Grade = problem if needed else warning
    return [*daemon(grade), *shared_memory(SHM, os.getuid(), grade)]


def daemon(grade: _Grade) -> list[Finding]:
    """Is there a session daemon that this user can register with?"""
    found = daemon_sockets()
    if not found:
        folders = " or ".join(map(str, daemon_folders()))
        return [grade("session daemon", f"there is no socket of one in {folders}", _AGENT)]
    # one that answers is enough; what is wrong with the others matters only if none does
    connected = [_connect(path, grade) for path in found]
    answering = [finding for finding in connected if finding.level is Level.OK]
    return answering or connected


def _connect(path: Path, grade: _Grade) -> Finding:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
        except PermissionError:
            info = path.stat()
            return grade(
                "session daemon",
                f"user {os.getuid()} may not connect to {path}, "
                f"which is user {info.st_uid}'s, mode {info.st_mode & 0o777:o}",
                "run the daemon as root or as this user, and let this user enter the folders above its socket",
            )
        except OSError as error:
            return grade(
                "session daemon",
                f"nobody answers on {path}: {error.strerror or error}",
                f"the daemon has died: {_AGENT}",
            )
    return ok("session daemon", f"answers on {path}")


def shared_memory(shm: Path, uid: int, grade: _Grade) -> list[Finding]:
    """Can liblttng-ust map its wait files?"""
    try:
        state = os.statvfs(shm)
    except OSError as error:
        text = f"{shm}: {error.strerror}; liblttng-ust turns itself off"
        return [grade("shared memory", text, f"mount a tmpfs on {shm}")]
    if state.f_flag & os.ST_RDONLY:
        text = f"{shm} is read-only: liblttng-ust cannot map its wait files and turns itself off"
        return [grade("shared memory", text, f"mount {shm} writable")]
    free = state.f_bavail * state.f_frsize
    text = f"{shm} has {free >> 20} of {state.f_blocks * state.f_frsize >> 20} MiB free"
    if free < SMALL_BYTES:
        findings = [warning("shared memory", text, f"make {shm} larger, or remove files there")]
    else:
        findings = [ok("shared memory", text)]
    return findings + wait_files(shm, uid, grade)


def wait_files(shm: Path, uid: int, grade: _Grade) -> list[Finding]:
    """Return what the files say on which liblttng-ust waits for a daemon.

    The one with a user's number must be that user's: else the library takes it for a trap, and no daemon of that
    user's is ever looked for. Only said on its own standard error, if LTTNG_UST_DEBUG is set.
    """
    findings = []
    for path in sorted(shm.glob("lttng-ust-wait-*")):
        number = path.name.removeprefix("lttng-ust-wait-").partition("-")[2]
        if number not in ("", str(uid)):
            continue
        owner = path.stat().st_uid
        try:
            (value,) = struct.unpack("=i", path.read_bytes()[:4])
        except (OSError, struct.error) as error:
            text = f"{path}, of user {owner}, cannot be read: {error}"
            findings.append(grade("wait file", text, f"remove {path} and start the process again"))
            continue
        if number and owner != uid:
            text = f"{path} is user {owner}'s and not ours: liblttng-ust does without that daemon"
            findings.append(grade("wait file", text, f"let user {owner} or root remove {path}"))
            continue
        does = (
            "looks for a daemon every 5 s"
            if value
            else f"waits for a daemon that shares this {shm}"
        )
        findings.append(ok("wait file", f"{path} (user {owner}) holds {value}: a process {does}"))
    return findings


def library() -> list[Finding]:
    """Return what is to say of liblttng-ust and our provider; loads both."""
    try:
        from k8s_tracing.backends.lttng import load
    except ImportError:
        return []  # the missing extension is a finding of its own
    try:
        load()
    except BackendUnavailable as error:
        text, _, remedy = str(error).partition(": ")
        return [warning("LTTng provider", text, remedy)]
    path = _mapped("liblttng-ust.so")
    if path is None:
        return [warning("liblttng-ust", "is not mapped although the provider is loaded")]
    generation = _generation(path)
    found = [ok("LTTng provider", "is built and loads")]
    if generation is None:
        return [*found, ok("liblttng-ust", f"{path}; its protocol is not known here")]
    release = _RELEASES.get(generation, "unknown")
    text = f"{path} speaks protocol {generation} (LTTng {release})"
    others = {_number(socket_) for socket_ in daemon_sockets()} - {None}
    if others and generation not in others:
        spoken = ", ".join(map(str, sorted(filter(None, others))))
        return [
            *found,
            problem(
                "liblttng-ust",
                f"{text}, the session daemon {spoken}: they do not meet",
                "use images whose liblttng-ust is of the same generation as the node's LTTng",
            ),
        ]
    return [*found, ok("liblttng-ust", text)]


def _mapped(name: str) -> Path | None:
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = Path("/", line.partition("/")[2])
        if path.name.startswith(name):
            return path
    return None


def _generation(library: Path) -> int | None:
    """The number in the name of the socket that a library looks for: it has no function that tells."""
    try:
        found = re.search(rb"lttng-ust-sock-(\d+)", library.read_bytes())
    except OSError:
        return None
    return int(found[1]) if found else None


def _number(path: Path) -> int | None:
    found = re.search(r"-(\d+)$", path.name)
    return int(found[1]) if found else None


def session() -> list[Finding]:
    """Does a session record our events? Asked of the lttng command, where it is installed."""
    found = daemon_sockets()
    if not found:
        return []
    if shutil.which("lttng") is None:
        text = "the lttng command is not here to ask, as in most containers: --probe finds out"
        return [ok("session", text)]
    control = _control(found[0].parent)
    try:
        recording = list(_recording(control))
    except SessionError as error:
        text = f"the daemon cannot be asked: {str(error).partition(chr(10))[0]}"
        return [warning("session", text, "ask as the daemon's user; or --probe finds out")]
    if not recording:
        text = "no active session records k8s_tracing's events: spans are not recorded"
        return [problem("session", text, "start `k8s-tracing agent`")]
    return [ok("session", f"{', '.join(recording)} records k8s_tracing's events")]


def _control(folder: Path) -> Control:
    """Commands to the daemon whose sockets are in `folder`; root asks a private daemon as its user."""
    if folder.resolve() == _ROOTS_FOLDER.resolve():
        return Control()
    owner = folder.stat().st_uid
    return Control(folder.parent, owner if os.geteuid() == 0 and owner != 0 else None)


def _recording(control: Control) -> Iterable[str]:
    """The names of the active sessions with an enabled rule that our events match."""
    for session in control.query("list").iterfind("{*}output/{*}sessions/{*}session"):
        name = session.findtext("{*}name", "")
        if session.findtext("{*}enabled") != "true":
            continue
        detail = control.query("list", name)
        if any(_matches(rule) for rule in detail.iterfind(".//{*}domain//{*}event")):
            yield name


def _matches(rule: ElementTree.Element) -> bool:
    enabled = rule.findtext("{*}enabled") == "true"
    return enabled and fnmatchcase(EVENT, rule.findtext("{*}name", ""))


def versions() -> dict[str, str]:
    """Return the releases of LTTng's parts."""
    from k8s_tracing.agent.lttng import version

    try:
        tools = ".".join(map(str, version()))
    except SessionError:
        tools = f"not installed ({INSTALL_HINT})"
    [*_, found] = library() or [warning("", "missing")]
    return {"liblttng-ust": found.text, "lttng-tools": tools}
