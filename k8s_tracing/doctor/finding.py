# SPDX-License-Identifier: Apache-2.0
"""One thing that the doctor found."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"  # tracing works, but not as well as it could, or not for long
    PROBLEM = "problem"  # nothing is traced


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what was looked at, in a word or two.
        text: what there is, in one line.
        remedy: what to do about it; empty if there is nothing to be done.
    """

    level: Level
    subject: str
    text: str
    remedy: str = ""


def ok(subject: str, text: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding(Level.OK, subject, text)


def warning(subject: str, text: str, remedy: str = "") -> Finding:
    """Return a finding that tracing can live with."""
    return Finding(Level.WARNING, subject, text, remedy)


def problem(subject: str, text: str, remedy: str) -> Finding:
    """Return a finding that means that nothing is traced."""
    return Finding(Level.PROBLEM, subject, text, remedy)
