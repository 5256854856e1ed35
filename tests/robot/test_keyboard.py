# SPDX-License-Identifier: Apache-2.0
"""Keys as a terminal sends them."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator

import pytest

from pi05_websocket.robot.keyboard import Keyboard

pty = pytest.importorskip("pty", reason="there are no pseudo-terminals here")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A terminal on standard input; gives the end at which somebody types."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r") as end:
        monkeypatch.setattr(sys, "stdin", end)
        yield ours
    os.close(ours)


def typed(terminal: int, keyboard: Keyboard, sent: bytes) -> str:
    """Type, and return what one look at the keys gives."""
    os.write(terminal, sent)
    assert select.select([sys.stdin], [], [], 10.0)[0], "what is typed arrives"
    return keyboard.keys()


def test_keys_come_without_enter(terminal: int):
    """And the terminal is as it was afterwards."""
    with Keyboard() as keyboard:
        assert keyboard.on
        assert keyboard.keys() == ""
        assert typed(terminal, keyboard, b"r") == "r"

    assert not keyboard.on


def test_two_quick_keys_both_count(terminal: int):
    """The second may be the stop."""
    with Keyboard() as keyboard:
        assert typed(terminal, keyboard, b"rp") == "rp"


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"\x1bOR", ""),  # F3
        (b"\x1b[15~", ""),  # F5
        (b"\x1b[1;5C", ""),  # Ctrl and an arrow
        (b"\x1br", ""),  # Alt and r
        (b"p\x1b[Aq", "pq"),
        (b"\x1b", "\x1b"),  # Escape itself
        ("tgrün\n".encode(), "tgrün\n"),
    ],
)
def test_keys_that_are_no_characters_do_nothing(terminal: int, sent: bytes, keys: str):
    """A function key is not the letter it ends with: F3 must not let an arm move."""
    with Keyboard() as keyboard:
        assert typed(terminal, keyboard, sent) == keys


def test_no_keys_without_a_terminal(monkeypatch):
    """In a service, or in a test, there is nobody to press one."""
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with Keyboard() as keyboard:
            assert keyboard.keys() == ""
            assert repr(keyboard) == "<Keyboard off>"
