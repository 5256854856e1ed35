# SPDX-License-Identifier: Apache-2.0
"""Which tick it is, and whether the loop really runs at the control rate. Pure: the time comes in.

A robot's ticks follow the clock, so that a late loop skips rows instead of playing the chunk too slowly.
"""

from __future__ import annotations

from collections import deque

from pi05_websocket.errors import ConfigError

__all__ = ["RateMonitor", "WallTicks"]


class WallTicks:
    """Counts control periods on the clock, with slack against jitter.

    A loop that is called once per period, give or take a quarter of it, gets consecutive ticks; rounding each
    call's time alone would repeat and skip rows whenever the calls fall near a boundary.

    Args:
        control_hz: Control rate.
    """

    def __init__(self, control_hz: float) -> None:
        if not control_hz > 0:
            raise ConfigError(f"control_hz={control_hz}: must be more than 0")
        self._hz = control_hz
        self._origin: float | None = None
        self._last = 0

    def at(self, now: float) -> int:
        """Return the tick for a call at monotonic second `now`; the first call is tick 0."""
        if self._origin is None:
            self._origin = now
            return 0
        ahead = (now - self._origin) * self._hz - self._last
        if ahead >= 1.75:
            self._last += round(ahead)
        elif ahead >= 0.25:
            self._last += 1
        return self._last


class RateMonitor:
    """Compares the observed call rate with the configured one.

    Args:
        control_hz: The rate the policy's rows are for.
        window: Calls to look at before judging.
        tolerance: Relative difference that is still fine; LeRobot's loop runs 27 to 28 Hz at `--fps=30`.
    """

    def __init__(self, control_hz: float, *, window: int = 90, tolerance: float = 0.15) -> None:
        self._hz = control_hz
        self._tolerance = tolerance
        self._periods: deque[float] = deque(maxlen=window)
        self._last: float | None = None
        self._told = False

    def restart(self) -> None:
        """Forget the last call, for a pause between episodes."""
        self._last = None
        self._periods.clear()

    def observe(self, now: float) -> float | None:
        """Take the time of a call; return the observed rate once, when it is off, else None."""
        if self._last is not None:
            self._periods.append(now - self._last)
        self._last = now
        if self._told or len(self._periods) < (self._periods.maxlen or 0):
            return None
        median = sorted(self._periods)[len(self._periods) // 2]
        observed = 1.0 / median if median > 0 else float("inf")
        if abs(observed - self._hz) <= self._tolerance * self._hz:
            return None
        self._told = True
        return observed
