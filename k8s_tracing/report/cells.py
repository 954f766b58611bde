# SPDX-License-Identifier: Apache-2.0
"""Texts in the columns of a terminal: what a character takes there, and what must not get there."""

from __future__ import annotations

import unicodedata


def clean(text: str) -> str:
    """Names come from anywhere: what could drive the terminal is not printed as it is."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def cells_of(text: str) -> int:
    """How many columns a text takes."""
    if text.isascii():
        return len(text)
    return sum(_cell(c) for c in text)


def _cell(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fit(text: str, cells: int) -> str:
    """Cut a text that is too long, at its end."""
    if cells_of(text) <= cells:
        return text
    kept, used = "", 1
    for character in text:
        used += _cell(character)
        if used > cells:
            break
        kept += character
    return kept + "…"
