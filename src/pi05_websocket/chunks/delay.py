# SPDX-License-Identifier: Apache-2.0
"""How many ticks a reply takes: a quantile over a sliding window. Pure.

In: measured delays in ticks. Out: the delay to plan with.
"""

from __future__ import annotations

import math
from collections import deque

__all__ = ["DelayEstimator"]

_FEWEST = 3
"""Samples among which one can stand alone."""
_SPIKE = 3
"""Times the median that a spike exceeds."""


class DelayEstimator:
    """High quantile of the last delays, with real eviction.

    A cold sample counts only until the next one arrives, and only if there is nothing better: the first one,
    and the first after an outage (`expect_cold`), carry connection set-up, the server's warm-up or its
    compiler. A running maximum that never forgets them (LeRobot's `LatencyTracker.max`,
    huggingface/lerobot#2541) asks far too early for the rest of the run.

    While there are fewer samples than the quantile needs, a single one far above the others is left out: one
    spike costs the cycle it happens in and no other.

    Args:
        window: How many samples are remembered.
        quantile: Which quantile of them to plan with; one outlier among ten is ignored at 0.9.
    """

    def __init__(self, *, window: int = 32, quantile: float = 0.9) -> None:
        if window < 1 or not 0.0 < quantile <= 1.0:
            raise AssertionError(f"window={window} quantile={quantile}")
        self._samples: deque[int] = deque(maxlen=window)
        self._quantile = quantile
        self._cold: int | None = None
        self._expect_cold = True

    def __repr__(self) -> str:
        return f"<DelayEstimator ticks={self.ticks()} samples={len(self._samples)}>"

    def expect_cold(self) -> None:
        """Note that the link or the server was away: the next sample says little about the ones after it."""
        self._expect_cold = True

    def add(self, ticks: int) -> None:
        """Record one measured delay in ticks, 0 or more."""
        if self._expect_cold:
            self._expect_cold = False
            self._cold = ticks
        else:
            self._samples.append(ticks)

    def ticks(self) -> int:
        """Return the delay to plan with; 0 before anything was measured."""
        if not self._samples:
            return self._cold or 0
        ordered = sorted(self._samples)
        # Nearest rank: with 10 samples and 0.9 the ninth, so that a single spike does not count.
        rank = math.ceil(self._quantile * len(ordered))
        if rank == len(ordered) and _is_spike(ordered):
            rank -= 1
        return ordered[rank - 1]


def _is_spike(ordered: list[int]) -> bool:
    """Say whether the largest of a few samples stands alone: so many times the middle one."""
    return len(ordered) >= _FEWEST and ordered[-1] > _SPIKE * max(1, ordered[len(ordered) // 2])
