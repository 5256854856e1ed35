# SPDX-License-Identifier: Apache-2.0
"""What tests of robots and policies need, ours and yours: a clock that only moves when told."""

from __future__ import annotations

__all__ = ["FakeClock"]


class FakeClock:
    """A virtual clock: `sleep` advances it and returns at once."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now

    def __repr__(self) -> str:
        return f"<FakeClock {self._now:.6f}>"

    def now(self) -> float:
        """Return the virtual seconds."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Advance by `seconds`; zero and negative durations do nothing."""
        self._now += max(0.0, seconds)
