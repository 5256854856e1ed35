# SPDX-License-Identifier: Apache-2.0
"""Single keys from the terminal, without waiting and without a thread. A context manager.

In: a terminal. Out: the keys pressed since the last look. Where standard input is no terminal there are none.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Any

__all__ = ["Keyboard"]


_AT_ONCE = 1024
_NO_CHARACTER = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|[^\x1b])")
"""What terminals send for function keys, arrows and Alt: an escape and more. Their letters are no commands."""
_WINDOWS_PREFIXES = ("\x00", "\xe0")


class Keyboard:
    """Reads keys as they are pressed; gives the terminal back as it was."""

    def __init__(self) -> None:
        self._saved: Any = None
        self._unix: tuple[Any, Any] | None = None
        self._windows: Any = None

    def __repr__(self) -> str:
        return f"<Keyboard {'on' if self.on else 'off'}>"

    @property
    def on(self) -> bool:
        """Whether there is a terminal to read from."""
        return self._unix is not None or self._windows is not None

    def __enter__(self) -> Keyboard:
        if not sys.stdin or not sys.stdin.isatty():
            return self
        try:
            termios, tty = importlib.import_module("termios"), importlib.import_module("tty")
        except ImportError:
            self._windows = importlib.import_module("msvcrt")
            return self
        self._saved = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        self._unix = (termios, importlib.import_module("select"))
        return self

    def __exit__(self, *exc: object) -> None:
        if self._unix is not None:
            termios, _ = self._unix
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._saved)
        self._unix = self._windows = None

    def keys(self) -> str:
        """Return what was pressed since the last call; keys that are no characters are left out."""
        if self._windows is not None:
            return self._keys_of_windows()
        if self._unix is None:
            return ""
        _, select = self._unix
        # Past Python's own buffer: `select` does not see into it, and a stop would wait for another key.
        source, pressed = sys.stdin.fileno(), b""
        while select.select([source], [], [], 0)[0]:
            read = os.read(source, _AT_ONCE)
            pressed += read
            if len(read) < _AT_ONCE:  # all of it, or the terminal is gone
                break
        return _NO_CHARACTER.sub("", pressed.decode(errors="ignore"))

    def _keys_of_windows(self) -> str:
        pressed = ""
        while self._windows.kbhit():
            key = str(self._windows.getwch())
            if key in _WINDOWS_PREFIXES:
                self._windows.getwch()  # which function key it was
            else:
                pressed += key
        return pressed
