# SPDX-License-Identifier: Apache-2.0
"""An event loop's time and one timer, turned by hand."""

from __future__ import annotations

from collections.abc import Callable


class Clock:
    """What watches of a connection need of an event loop: the time, and one timer."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: tuple[float, Callable[[], None]] | None = None

    def time(self) -> float:
        """Return seconds."""
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Clock:
        """Set the timer."""
        self.due = (self.now + delay, callback)
        return self

    def cancel(self) -> None:
        """Unset it."""
        self.due = None

    def run(self, seconds: float) -> None:
        """Turn on."""
        end = self.now + seconds
        while self.due is not None and self.due[0] <= end:
            (self.now, callback), self.due = self.due, None
            callback()
        self.now = end
