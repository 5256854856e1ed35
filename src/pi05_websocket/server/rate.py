# SPDX-License-Identifier: Apache-2.0
"""How many requests a second: a token bucket. Pure; the time is a parameter."""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """Lets `rate` requests through a second, and a second's worth of them at once, one at least.

    In any stretch of t seconds it lets no more than `max(rate, 1) + rate * t` through.
    """

    def __init__(self, rate: float, now: float) -> None:
        """Begin full.

        Args:
            rate: Requests per second, above 0.
            now: Monotonic seconds.
        """
        self.rate = rate
        self._tokens = self._room
        self._filled_at = now

    def __repr__(self) -> str:
        return f"<TokenBucket rate={self.rate:g} tokens={self._tokens:.2f}>"

    @property
    def _room(self) -> float:
        return max(self.rate, 1.0)

    def set_rate(self, rate: float, now: float) -> None:
        """Go on at another rate; what was used up stays used up."""
        self._fill(now)
        self.rate = rate
        self._tokens = min(self._tokens, self._room)

    def take(self, now: float) -> bool:
        """Take a token for one request; False when there is none. A clock that goes back adds nothing."""
        self._fill(now)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _fill(self, now: float) -> None:
        passed = max(now - self._filled_at, 0.0)
        self._tokens = min(self._tokens + passed * self.rate, self._room)
        self._filled_at = max(now, self._filled_at)
