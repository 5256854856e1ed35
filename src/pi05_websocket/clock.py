# SPDX-License-Identifier: Apache-2.0
"""Time as a parameter: a clock to read and sleep on, and a deadline made from a timeout once.

Everything that paces, waits or measures takes a `Clock`, so that tests run on a virtual one.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "Deadline", "SystemClock"]


class Clock(Protocol):
    """Monotonic seconds and a way to wait for them to pass."""

    def now(self) -> float:
        """Return monotonic seconds since an arbitrary origin."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; zero and negative durations return at once."""
        ...


class SystemClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

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
