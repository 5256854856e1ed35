# SPDX-License-Identifier: Apache-2.0
"""A stranger's words become printable and short, and ordinary ones stay as they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.wire.foreign_words import LONGEST_LINE, in_a_line, in_lines, listed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("KeyError: 'observation/image'", "KeyError: 'observation/image'"),
        ("Größe 学", "Größe 学"),
        ("", ""),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),  # the same escape in one character
        ("a\r\nb\u2028c", "a\\r\\nb\\u2028c"),
        ("\u202eevil", "\\u202eevil"),  # from here on backwards
        ("x" * (LONGEST_LINE + 1), "x" * LONGEST_LINE + "..."),
    ],
)
def test_one_line(text: str, shown: str) -> None:
    """Control characters, line breaks and marks of direction are written out."""
    assert in_a_line(text) == shown


def test_lines_stay_lines() -> None:
    """Of a traceback its line breaks and tabs are kept, and nothing else that a terminal obeys."""
    assert in_lines("a\n\tb\r\x1b[0m") == "a\n\tb\\r\\x1b[0m"
    assert in_lines("abc", longest=2) == "ab..."


def test_names_are_listed() -> None:
    """The first two dozen, each bounded."""
    assert listed(["a", "b\x1b", 3]) == "a, b\\x1b, 3"
    assert listed([]) == ""
    assert listed("abcdefghijklmnopqrstuvwxy") == ", ".join("abcdefghijklmnopqrstuvwx") + ", ..."
    assert listed(["x" * 100], each=3) == "xxx..."


@given(st.text())
def test_whatever_comes_is_printable(text: str) -> None:
    """And no longer than ten times what is looked at."""
    assert in_a_line(text, 20).isprintable()
    assert len(in_a_line(text, 20)) <= 203
