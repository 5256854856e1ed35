# SPDX-License-Identifier: Apache-2.0
"""How long a message travels one way, from round trips and what the server says it did meanwhile. Pure."""

from __future__ import annotations

from collections import deque

__all__ = ["TravelEstimator"]


class TravelEstimator:
    """Half of the shortest round trip without the server's part, over a sliding window.

    The shortest, because everything that is added to a round trip by chance only makes it longer.
    """

    def __init__(self, window: int = 32) -> None:
        self._one_way_ms: deque[float] = deque(maxlen=window)

    def __repr__(self) -> str:
        return f"<TravelEstimator {self.one_way_ms():.1f} ms>"

    def add(self, *, round_trip_ms: float, server_ms: float) -> None:
        """Record one exchange; `server_ms` is queue and inference as the server states them."""
        self._one_way_ms.append(max(0.0, round_trip_ms - server_ms) / 2)

    def one_way_ms(self) -> float:
        """Return the time to expect; 0 before anything was measured."""
        return min(self._one_way_ms, default=0.0)
