# SPDX-License-Identifier: Apache-2.0
"""How many ticks a reply takes: a quantile over a sliding window. Pure.

In: measured delays in ticks. Out: the delay to plan with.
"""

from __future__ import annotations

import math
from collections import deque

__all__ = ["DelayEstimator"]


class DelayEstimator:
    """High quantile of the last delays, with real eviction.

    The first sample counts only until the second arrives: it carries connection set-up, the server's
    warm-up or its compiler, and a running maximum that never forgets it (LeRobot's `LatencyTracker.max`,
    huggingface/lerobot#2541) asks far too early for the rest of the run.

    Args:
        window: How many samples are remembered.
        quantile: Which quantile of them to plan with; one outlier among ten is ignored at 0.9.
    """

    def __init__(self, *, window: int = 32, quantile: float = 0.9) -> None:
        if window < 1 or not 0.0 < quantile <= 1.0:
            raise AssertionError(f"window={window} quantile={quantile}")
        self._samples: deque[int] = deque(maxlen=window)
        self._quantile = quantile
        self._tentative: int | None = None

    def __repr__(self) -> str:
        return f"<DelayEstimator ticks={self.ticks()} samples={len(self._samples)}>"

    def add(self, ticks: int) -> None:
        """Record one measured delay in ticks, 0 or more."""
        if self._tentative is None and not self._samples:
            self._tentative = ticks
            return
        self._tentative = None
        self._samples.append(ticks)

    def ticks(self) -> int:
        """Return the delay to plan with; 0 before anything was measured."""
        if self._tentative is not None:
            return self._tentative
        if not self._samples:
            return 0
        ordered = sorted(self._samples)
        # Nearest rank: with 10 samples and 0.9 the ninth, so that a single spike does not count.
        return ordered[math.ceil(self._quantile * len(ordered)) - 1]
