# SPDX-License-Identifier: Apache-2.0
"""How far two action chunks are apart, joint by joint, over many observations. Pure.

In: pairs of chunks. Out: median, 95th percentile and largest difference of each joint, and a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pi05_websocket.data import Float32Array
from pi05_websocket.errors import ConfigError

__all__ = ["Differences", "Quantiles", "as_dict", "summarize", "table"]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of one joint's differences, in action units."""

    median: float
    p95: float
    largest: float


class Differences:
    """Collects differences between chunks of the same observation."""

    def __init__(self) -> None:
        self._rows: list[npt.NDArray[np.float64]] = []
        self.observations = 0
        """How many were compared."""
        self.other_lengths: list[tuple[int, int]] = []
        """Rows expected and rows got, where these differ."""

    def __repr__(self) -> str:
        return f"<Differences of {self.observations} observations>"

    def add(self, expected: Float32Array, got: Float32Array) -> None:
        """Compare two chunks row by row, as far as both go.

        Raises:
            ConfigError: Their actions have different widths: these are policies of different robots.
        """
        if expected.shape[1] != got.shape[1]:
            raise ConfigError(
                f"expected actions of {expected.shape[1]} values, got {got.shape[1]}: another robot's policy"
            )
        if len(expected) != len(got):
            self.other_lengths.append((len(expected), len(got)))
        rows = min(len(expected), len(got))
        self._rows.append(
            np.abs(expected[:rows].astype(np.float64) - got[:rows].astype(np.float64))
        )
        self.observations += 1

    def joints(self) -> list[Quantiles]:
        """Return each joint's quantiles over all rows; empty before the first comparison."""
        return summarize(np.concatenate(self._rows)) if self._rows else []


def summarize(rows: npt.NDArray[np.float64]) -> list[Quantiles]:
    """Return the quantiles of each column of `(n, joints)` differences."""
    return [
        Quantiles(float(np.median(column)), float(np.quantile(column, 0.95)), float(column.max()))
        for column in rows.T
    ]


def table(found: Sequence[Quantiles], joints: Sequence[str]) -> list[str]:
    """Return lines for people: one for each joint."""
    width = max([5, *(len(name) for name in joints)])
    lines = [f"{'joint':{width}}  {'median':>8} {'95 %':>8} {'largest':>8}"]
    for number, one in enumerate(found):
        name = joints[number] if number < len(joints) else str(number)
        lines.append(f"{name:{width}}  {one.median:8.3g} {one.p95:8.3g} {one.largest:8.3g}")
    return lines


def as_dict(found: Sequence[Quantiles], joints: Sequence[str]) -> dict[str, Any]:
    """Return the same for programs: joint to its quantiles."""
    return {
        (joints[number] if number < len(joints) else str(number)): {
            "median": round(one.median, 6),
            "p95": round(one.p95, 6),
            "max": round(one.largest, 6),
        }
        for number, one in enumerate(found)
    }
