# SPDX-License-Identifier: Apache-2.0
"""How long to wait before the next attempt to connect. Pure: randomness comes in as a function."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Backoff"]

_MOST_ASKED_S = 60.0


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

    def next(self, asked_s: float | None = None) -> float:
        """Return the next wait in seconds: between half and all of the doubled bound.

        Args:
            asked_s: How long the server asked to wait at least: up to a quarter longer then, so that those
                it sent away do not come back together. It cannot ask for more than a minute.
        """
        bound = min(self._longest, self._first * 2.0 ** min(self._attempt, 32))
        self._attempt += 1
        least = min(asked_s or 0.0, _MOST_ASKED_S) * (1.0 + 0.25 * self._random())
        return max(bound * (0.5 + 0.5 * self._random()), least)

    def reset(self) -> None:
        """Begin anew after a success."""
        self._attempt = 0
