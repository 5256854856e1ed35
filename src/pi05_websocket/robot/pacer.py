# SPDX-License-Identifier: Apache-2.0
"""Keeps a loop at its rate: each turn is due one period after the one before was due, not after it was done.

In: a clock. Out: waits. A slow turn borrows from the next ones; nobody can borrow more than a second.
"""

from __future__ import annotations

from pi05_websocket.clock import Clock
from pi05_websocket.errors import ConfigError

__all__ = ["Pacer"]

_LONGEST_DEBT_S = 1.0


class Pacer:
    """Waits until the next turn is due.

    Args:
        hz: Turns per second.
        clock: What to wait on.
    """

    def __init__(self, hz: float, clock: Clock) -> None:
        if not hz > 0:
            raise ConfigError(f"control_hz={hz}: must be more than 0")
        self._period = 1.0 / hz
        self._clock = clock
        self._due = clock.now()

    def __repr__(self) -> str:
        return f"<Pacer {1.0 / self._period:g} Hz>"

    def wait(self) -> None:
        """Wait until the next turn is due; return at once when it is late."""
        now = self._clock.now()
        self._due = max(self._due + self._period, now - _LONGEST_DEBT_S)
        self._clock.sleep(self._due - now)
