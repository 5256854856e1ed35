# SPDX-License-Identifier: Apache-2.0
"""An exception in one line, no longer than a person reads.

In: an exception, whose text may be what a client has sent: a key or a value of megabytes. Out: a line. Pure.
"""

from __future__ import annotations

__all__ = ["LONGEST_LINE", "in_one_line"]

LONGEST_LINE = 300
"""Characters: what, expected, got and what to do take half of it."""


def in_one_line(exc: BaseException) -> str:
    """Return type and text, without the notes that JAX hangs on its errors, and nothing that moves a cursor."""
    try:
        text = str(exc)[: 2 * LONGEST_LINE].strip()
    except Exception:  # somebody else's `__str__`
        text = "(its text cannot be shown)"
    line = f"{type(exc).__name__}: {text.splitlines()[0] if text else ''}".rstrip(": ")
    shown = "".join(map(_visible, line[: LONGEST_LINE + 1]))
    return shown if len(shown) <= LONGEST_LINE else f"{shown[: LONGEST_LINE - 3]}..."


def _visible(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]
