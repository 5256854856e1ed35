# SPDX-License-Identifier: Apache-2.0
"""Exceptions in one line."""

from __future__ import annotations

import pytest

from pi05_websocket.server.one_line import LONGEST_LINE, in_one_line


class Silent(Exception):
    """Has no text that could be shown."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("exc", "line"),
    [
        (ValueError("wrong"), "ValueError: wrong"),
        (ValueError(), "ValueError"),
        (ValueError("  first\nsecond"), "ValueError: first"),
        (KeyError("observation/image"), "KeyError: 'observation/image'"),
        (Silent(), "Silent: (its text cannot be shown)"),
        (ValueError("a\x1b[2Jb\u202ec"), "ValueError: a\\x1b[2Jb\\u202ec"),
        (ValueError("π₀.₅ größer"), "ValueError: π₀.₅ größer"),
    ],
)
def test_type_and_first_line(exc: BaseException, line: str) -> None:
    """What moves the cursor, or the reading direction, is written out."""
    assert in_one_line(exc) == line


@pytest.mark.parametrize("text", ["k" * 10_000_000, "\x1b" * 1_000_000])
def test_a_text_of_megabytes(text: str) -> None:
    """A client chooses what an exception quotes; the line has its bound all the same."""
    line = in_one_line(KeyError(text))
    assert len(line) == LONGEST_LINE
    assert line.endswith("...")
