# SPDX-License-Identifier: Apache-2.0
"""What a long run says: how fast memory grows, whether files and threads come back, whether answers slow down.

In: samples of processes over time, bounds. Out: figures, and a sentence for each bound that is broken. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

__all__ = [
    "Bounds",
    "ProcessFigures",
    "Sample",
    "Slope",
    "as_dict",
    "drift",
    "figures_of",
    "first_and_last_tenth",
    "motion_verdict",
    "slope_of",
    "verdict",
]

_HOUR_S = 3600.0
_MOST_POINTS = 240
"""The slopes of all pairs of them are taken, 28,680. A longer run is summed up in medians of its stretches."""
_Z_95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One process at one moment."""

    at_s: float
    """Since the run began."""

    rss_mb: float
    """Resident memory."""

    blocks: int | None
    """Python's own allocations that live; None: not known."""

    fds: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """How fast something grows: the median of the slopes of all pairs (Theil-Sen), for an hour."""

    per_hour: float
    low: float
    """Where the slope is with a confidence of 95 %: from here (Sen's interval, from Kendall's tau)."""
    high: float
    """To here."""
    grown: float
    """What that makes over the samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a run may do. None: anything."""

    memory_mb_per_hour: float | None = 20.0
    """Growth of a process's memory that is no leak, and..."""

    memory_mb: float = 6.0
    """...this much in all: allocators keep a few megabytes more after a busy minute."""

    more_fds: int | None = 0
    """Open files in the last tenth more than in the first."""

    more_threads: int | None = 0
    """The same of threads."""

    held_share: float | None = 0.02
    """Ticks without a row, of all of them: links are cut and servers killed, and arms go on."""

    answers_share: float | None = 0.8
    """Answers in the last tenth, of those in the first: an answer that never comes is slow for nobody."""

    p99_drift: float | None = 1.5
    """The last tenth's 99th percentile of the round trip over the first's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFigures:
    """What became of one process."""

    rss_mb: tuple[float, float]
    """Medians of the first and the last tenth."""
    floor_mb: tuple[float, float]
    """Least of the first and the last third: a sawtooth comes back to it, a leak does not."""
    memory: Slope | None
    """None: too few samples of one life."""
    blocks: Slope | None
    fds: tuple[float, float]
    threads: tuple[float, float]
    samples: int
    restarted: bool


def slope_of(points: Sequence[tuple[float, float]]) -> Slope | None:
    """Return how fast the values of `(seconds, value)` grow; None for fewer than 8 points.

    A sawtooth goes as far down as up, and an outlier is in few of the pairs: neither makes a slope.
    """
    if len(points) < 8:
        return None
    points = _summed_up(points)
    slopes = sorted(
        (later - value) / (then - at)
        for number, (at, value) in enumerate(points)
        for then, later in points[number + 1 :]
        if then > at
    )
    count, pairs = len(points), len(slopes)
    if not pairs:
        return None
    spread = _Z_95 * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = slopes[max(0, round((pairs - spread) / 2))]
    high = slopes[min(pairs - 1, round((pairs + spread) / 2))]
    middle = median(slopes)
    return Slope(
        per_hour=_HOUR_S * middle,
        low=_HOUR_S * low,
        high=_HOUR_S * high,
        grown=middle * (points[-1][0] - points[0][0]),
    )


def _summed_up(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return medians of stretches of equal length: what is left of neighbours that say the same."""
    each = max(1, math.ceil(len(points) / _MOST_POINTS))
    stretches = [points[begin : begin + each] for begin in range(0, len(points), each)]
    return [
        (median(at for at, _ in stretch), median(value for _, value in stretch))
        for stretch in stretches
    ]


def first_and_last_tenth(values: Sequence[float]) -> tuple[float, float]:
    """Return the medians of the first and of the last tenth, of three values at least."""
    few = max(3, len(values) // 10)
    return float(median(values[:few])), float(median(values[-few:]))


def drift(p99: Sequence[float]) -> float | None:
    """Return how many times as long as at first the slow answers take at last; None: too few are known."""
    if len(p99) < 8:
        return None
    first, last = first_and_last_tenth(p99)
    return last / first if first > 0 else None


def figures_of(
    samples: Sequence[Sample], *, warm_up_s: float, restarted: bool = False
) -> ProcessFigures | None:
    """Return what became of one process after the warm-up; None: it was hardly seen.

    Args:
        samples: In order of time.
        warm_up_s: Samples before that do not count: imports, buffers and caches come then.
        restarted: Whether they are of several lives, whose memory has nothing to do with one another.
    """
    counted = [sample for sample in samples if sample.at_s >= warm_up_s]
    if len(counted) < 3:
        return None
    rss = [(sample.at_s, sample.rss_mb) for sample in counted]
    blocks = [
        (sample.at_s, float(sample.blocks)) for sample in counted if sample.blocks is not None
    ]
    return ProcessFigures(
        rss_mb=first_and_last_tenth([value for _, value in rss]),
        floor_mb=_floors([value for _, value in rss]),
        memory=None if restarted else slope_of(rss),
        blocks=None if restarted else slope_of(blocks),
        fds=first_and_last_tenth([sample.fds for sample in counted]),
        threads=first_and_last_tenth([sample.threads for sample in counted]),
        samples=len(counted),
        restarted=restarted,
    )


def _floors(values: Sequence[float]) -> tuple[float, float]:
    third = max(1, len(values) // 3)
    return min(values[:third]), min(values[-third:])


def verdict(
    processes: Mapping[str, ProcessFigures],
    p99_drift: float | None,
    counts: Mapping[str, int],
    bounds: Bounds,
) -> list[str]:
    """Return what is wrong, a sentence each; nothing: the run was sound.

    Args:
        processes: Name to figures.
        p99_drift: Of all robots' round trips.
        counts: What must not have happened, and how often it has.
        bounds: What is allowed.
    """
    wrong = [f"{name}: {count}, expected none" for name, count in counts.items() if count]
    for name, found in processes.items():
        wrong += _process_verdict(name, found, bounds)
    if bounds.p99_drift is not None and p99_drift is not None and p99_drift > bounds.p99_drift:
        wrong.append(
            f"the 99th percentile of the round trip is {p99_drift:.2f} times the first tenth's, "
            f"expected at most {bounds.p99_drift:g}"
        )
    return wrong


def motion_verdict(
    ticks: int, held: int, answers: tuple[float, float] | None, bounds: Bounds
) -> list[str]:
    """Return what is wrong with how the arms moved, a sentence each.

    Args:
        ticks: Of all robots.
        held: How many of them had no row.
        answers: Between two samples, in the first and in the last tenth; None: it was not long enough.
        bounds: What is allowed.
    """
    wrong = []
    if bounds.held_share is not None and held > bounds.held_share * ticks:
        wrong.append(
            f"{held} of {ticks} ticks were held, expected at most {100 * bounds.held_share:g} %"
        )
    if bounds.answers_share is not None and answers is not None:
        first, last = answers
        if last < bounds.answers_share * first:
            wrong.append(
                f"{last:g} answers between two samples at last, {first:g} at first, expected at least "
                f"{bounds.answers_share:g} times as many"
            )
    return wrong


def _process_verdict(name: str, found: ProcessFigures, bounds: Bounds) -> list[str]:
    wrong = []
    slope, most = found.memory, bounds.memory_mb_per_hour
    # All of it: the likely growth, what it is at the least, what it makes, and what never came back.
    if (
        most is not None
        and slope is not None
        and min(slope.per_hour, slope.low) > most
        and slope.grown > bounds.memory_mb
        and found.floor_mb[1] - found.floor_mb[0] > bounds.memory_mb
    ):
        wrong.append(
            f"{name}: memory grows by {slope.per_hour:.1f} MB an hour ({slope.low:.1f} to {slope.high:.1f}), "
            f"{slope.grown:.1f} MB in this run, expected at most {most:g} an hour"
        )
    for what, (first, last), more in (
        ("open files", found.fds, bounds.more_fds),
        ("threads", found.threads, bounds.more_threads),
    ):
        if more is not None and last - first > more:
            wrong.append(f"{name}: {last:g} {what} at last, {first:g} at first")
    return wrong


def as_dict(found: ProcessFigures) -> dict[str, Any]:
    """Return figures for a file, rounded."""
    return {key: _rounded(value) for key, value in asdict(found).items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_rounded(item) for item in value]
    return value
