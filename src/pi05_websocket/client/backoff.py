# SPDX-License-Identifier: Apache-2.0
"""How long to wait before the next attempt to connect. Pure: randomness comes in as a function."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    """Exponential waits with jitter, so that many robots do not come back in step.

    Args:
        first: Upper bound of the first wait, in seconds.
        longest: Upper bound of every wait, in seconds.
        random: Returns a number in [0, 1).
    """

    def __init__(self, first: float, longest: float, random: Callable[[], float]) -> None:
        self._first = first
        self._longest = longest
        self._random = random
        self._attempt = 0

    def next(self) -> float:
        """Return the next wait in seconds: between half and all of the doubled bound."""
        bound = min(self._longest, self._first * 2.0 ** min(self._attempt, 32))
        self._attempt += 1
        return bound * (0.5 + 0.5 * self._random())

    def reset(self) -> None:
        """Begin anew after a success."""
        self._attempt = 0
