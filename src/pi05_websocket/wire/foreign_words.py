# SPDX-License-Identifier: Apache-2.0
"""A peer's words for a person's eyes: bounded, and with every control character written out.

In: any text. Out: printable text. Pure. An error text may be megabytes long, and an escape sequence in it would
be obeyed by the terminal that shows the log: it could hide lines, or retitle the window.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["LONGEST_LINE", "LONGEST_TEXT", "in_a_line", "in_lines", "listed"]

LONGEST_LINE: Final = 500
"""Characters of a line. The line of a traceback that names the error seldom has more."""

LONGEST_TEXT: Final = 20_000
"""Characters of a whole text: a long traceback has 10,000."""

_MOST_LISTED: Final = 24
_CUT: Final = "..."


def in_a_line(text: str, longest: int = LONGEST_LINE) -> str:
    """Return a text as one line; what is cut off is marked.

    Args:
        text: A peer's.
        longest: Characters that are looked at; one that is written out takes up to ten.
    """
    return _printable(text, longest, kept="")


def in_lines(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text with its line breaks and tabs; what is cut off is marked."""
    return _printable(text, longest, kept="\n\t")


def listed(names: Iterable[object], each: int = 60) -> str:
    """Return names with commas between them, the first two dozen; a mark stands for the others."""
    words: list[str] = []
    for name in names:
        if len(words) == _MOST_LISTED:
            words.append(_CUT)
            break
        words.append(in_a_line(str(name), each))
    return ", ".join(words)


def _printable(text: str, longest: int, *, kept: str) -> str:
    shown = text[:longest]
    if not shown.isprintable():
        shown = "".join(
            char if char.isprintable() or char in kept else _written_out(char) for char in shown
        )
    return shown + _CUT if len(text) > longest else shown


def _written_out(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
