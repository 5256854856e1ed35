# SPDX-License-Identifier: Apache-2.0
"""Single keys from the terminal, without waiting and without a thread. A context manager.

In: a terminal. Out: the keys pressed since the last look. Where standard input is no terminal there are none.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

__all__ = ["Keyboard"]


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
        """Return what was pressed since the last call."""
        pressed = ""
        while self._pressed():
            key = sys.stdin.read(1) if self._windows is None else str(self._windows.getwch())
            if not key:  # the terminal is gone
                break
            pressed += key
        return pressed

    def _pressed(self) -> bool:
        if self._windows is not None:
            return bool(self._windows.kbhit())
        if self._unix is None:
            return False
        _, select = self._unix
        return bool(select.select([sys.stdin], [], [], 0)[0])
