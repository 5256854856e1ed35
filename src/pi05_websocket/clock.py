# SPDX-License-Identifier: Apache-2.0
"""Time as a parameter: a clock to read and sleep on, and a deadline made from a timeout once.

Everything that paces, waits or measures takes a `Clock`, so that tests run on a virtual one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "Deadline", "SystemClock"]

_NO_SLEEP_S = 0.1


class Clock(Protocol):
    """Monotonic seconds and a way to wait for them to pass."""

    def now(self) -> float:
        """Return monotonic seconds since an arbitrary origin."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; zero and negative durations return at once."""
        ...


def _asleep_s() -> float:
    """Return how long the machine has been suspended since it was started; 0 where the system does not say.

    Linux's monotonic clock stands still meanwhile, and so would every plan's age: an arm whose computer wakes
    up would go on with rows from before.
    """
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


class SystemClock:
    """The machine's monotonic clock, which goes on while the machine is suspended.

    Args:
        asleep_s: How long the machine has been suspended since some moment.
    """

    def __init__(self, asleep_s: Callable[[], float] = _asleep_s) -> None:
        self._asleep_s = asleep_s
        self._before_s = asleep_s()

    def now(self) -> float:
        """Return `time.monotonic()`, and the seconds of suspension in this program's life."""
        slept = self._asleep_s() - self._before_s
        # Two clocks are read one after the other, so a difference of a moment is none.
        return time.monotonic() + (slept if slept > _NO_SLEEP_S else 0.0)

    def sleep(self, seconds: float) -> None:
        """Wait with `time.sleep`."""
        if seconds > 0:
            time.sleep(seconds)


SYSTEM_CLOCK = SystemClock()
"""The default clock everywhere."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock; `math.inf` never comes."""

    at: float

    @classmethod
    def after(cls, timeout_s: float | None, now: float) -> Deadline:
        """Return the deadline `timeout_s` after `now`; None means never."""
        return cls(math.inf if timeout_s is None else now + timeout_s)

    def left(self, now: float) -> float:
        """Return the seconds left, 0.0 once it has passed."""
        return max(0.0, self.at - now)

    def passed(self, now: float) -> bool:
        """Say whether the moment has come."""
        return now >= self.at
