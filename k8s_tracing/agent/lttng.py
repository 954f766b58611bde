# SPDX-License-Identifier: Apache-2.0
"""The `lttng` command, as the one way in which the agent talks to a session daemon.

The command and not liblttng-ctl: its machine interface is stable over the releases, and a daemon that hangs costs a
child process that can be killed, not a thread of ours.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from k8s_tracing.errors import SessionError

COMMAND_TIMEOUT_S = 30.0

INSTALL_HINT = "On Debian and Ubuntu: apt-get install lttng-tools"

# A user in the group "tracing" is sent to root's daemon when there is one. Commands for a private daemon name a group
# that nobody is in.
_NO_GROUP = "k8s-tracing-nobody"


@dataclass(frozen=True)
class Control:
    """Commands to one session daemon.

    Attributes:
        home: The daemon's LTTNG_HOME; None for the daemon that this user's commands reach by default.
        uid: The user that must run the commands, where it is not the one who runs us.
    """

    home: Path | None = None
    uid: int | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def run(self, *args: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run one command and return what it printed.

        Raises:
            SessionError: It failed, or took longer than `timeout_s`.
        """
        words = [program("lttng"), "--no-sessiond"]
        if self.home is not None:
            words.append(f"--group={_NO_GROUP}")
        words += args
        said = " ".join(["lttng", *args])
        try:
            done: subprocess.CompletedProcess[str] = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                cwd="/",
                env=self.command_env(),
                # Ctrl-C is for us: we stop the session in order, a command must not die half-way.
                start_new_session=True,
                **self._as_user(),
            )
        except subprocess.TimeoutExpired:
            raise SessionError(
                f"`{said}` did not answer within {timeout_s:.0f} s: the session daemon hangs or the machine is "
                "overloaded. Look at the daemon with `lttng list`; if that hangs too, restart it."
            ) from None
        if done.returncode:
            reason = done.stderr.strip() or done.stdout.strip()
            raise SessionError(f"`{said}` failed: {reason or f'exit status {done.returncode}'}")
        return done.stdout

    def query(self, *args: str, timeout_s: float = COMMAND_TIMEOUT_S) -> ElementTree.Element:
        """Run a command through the machine interface and return its answer as XML.

        Raises:
            SessionError: As `run`, or the answer is no XML.
        """
        answer = self.run("--mi", "xml", *args, timeout_s=timeout_s)
        try:
            return ElementTree.fromstring(answer)  # noqa: S314  written by the program that we ran
        except ElementTree.ParseError as error:
            raise SessionError(
                f"cannot read the answer of `lttng {' '.join(args)}`: {error}"
            ) from None

    def answers(self) -> bool:
        """Is there a daemon?"""
        try:
            self.run("list", timeout_s=10.0)
        except SessionError:
            return False
        return True

    def command_env(self) -> dict[str, str]:
        """The environment of the commands: ours, the daemon's home, messages in English."""
        env = dict(self.environ) | {"LC_ALL": "C"}
        if self.home is not None:
            env["LTTNG_HOME"] = str(self.home)
        return env

    def _as_user(self) -> dict[str, Any]:
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.uid, "extra_groups": []}


def program(name: str) -> str:
    """The path of an LTTng program.

    Raises:
        SessionError: It is not installed.
    """
    path = shutil.which(name)
    if path is None:
        raise SessionError(f"{name} was not found: LTTng is not installed. {INSTALL_HINT}")
    return path


@functools.cache
def command_options(command: str) -> frozenset[str]:
    """The options that a command of the installed `lttng` knows, such as `--shm-path` of `create`.

    Asked for, not derived from the release: that is what `--list-options` is for, in all of 2.13 to 2.15.
    """
    listed = subprocess.run(
        [program("lttng"), command, "--list-options"],
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    ).stdout
    return frozenset(listed.split())


@functools.cache
def version() -> tuple[int, int]:
    """The release of the installed lttng-tools, such as (2, 13)."""
    text = subprocess.run(
        [program("lttng"), "--version"], capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S
    ).stdout
    return parse_version(text)


def parse_version(text: str) -> tuple[int, int]:
    """Find the release in what `lttng --version` says.

    Raises:
        SessionError: It is not there.
    """
    match = re.search(r"\b(\d+)\.(\d+)\.\d+", text)
    if match is None:
        raise SessionError(f"cannot tell the release of LTTng from {text.strip()!r}")
    return int(match[1]), int(match[2])
