# SPDX-License-Identifier: Apache-2.0
"""How long a batch takes: the median of the last ones of its size, and a straight line between sizes. Pure.

In: durations as they are measured, in seconds. Out: the duration to expect.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Hashable

from pi05_websocket.server.prefix import InferenceTime

__all__ = ["ModelTimes"]


_MOST_GROUPS = 64
"""What is remembered. Clients choose groups, by the sizes of their images; a fleet has a handful."""


class ModelTimes:
    """Expected seconds for each group of requests and size of batch; the groups that were measured last."""

    def __init__(self) -> None:
        self._measured: OrderedDict[Hashable, dict[int, InferenceTime]] = OrderedDict()
        """The one measured last at the end."""
        self._curves: dict[Hashable, list[tuple[int, float]]] = {}

    def __repr__(self) -> str:
        return f"<ModelTimes {self._curves}>"

    def add(self, group: Hashable, size: int, seconds: float) -> None:
        """Record a batch."""
        sizes = self._measured.setdefault(group, {})
        sizes.setdefault(size, InferenceTime()).add(1000 * seconds)
        self._curves[group] = _rising(sizes)
        self._measured.move_to_end(group)
        if len(self._measured) > _MOST_GROUPS:
            oldest, _ = self._measured.popitem(last=False)
            del self._curves[oldest]

    def expect(self, group: Hashable, size: int) -> float:
        """Return the seconds that a batch will take; 0 before anything was measured.

        Where a size was never tried it errs to the short side, so that it is tried: smaller ones are taken
        to cost in proportion, larger ones go on as the last two did, or cost no more.
        """
        curve = self._curves.get(group)
        if not curve:
            return 0.0
        at = bisect_left(curve, (size, -1.0))
        if at == 0:
            least, seconds = curve[0]
            return seconds * size / least
        if at == len(curve):
            return _beyond(curve, size)
        return _between(curve[at - 1], curve[at], size)


def _rising(sizes: dict[int, InferenceTime]) -> list[tuple[int, float]]:
    """Return size and seconds, larger batches never shorter: what says otherwise is noise or a first run."""
    curve, longest = [], 0.0
    for size in sorted(sizes):
        ms = sizes[size].ms()
        assert ms is not None
        longest = max(longest, ms / 1000)
        curve.append((size, longest))
    return curve


def _between(lower: tuple[int, float], upper: tuple[int, float], size: int) -> float:
    share = (size - lower[0]) / (upper[0] - lower[0])
    return lower[1] + share * (upper[1] - lower[1])


def _beyond(curve: list[tuple[int, float]], size: int) -> float:
    last = curve[-1]
    return last[1] if len(curve) == 1 else _between(curve[-2], last, size)
