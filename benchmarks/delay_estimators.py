# SPDX-License-Identifier: Apache-2.0
"""The delay estimator beside LeRobot's `LatencyTracker.max()`, replayed over the same traces.

In: round trips in ticks, made up here or measured (`pi05-websocket tune --json FILE` writes such a file). Out:
a table. For each reply the estimate made before it is held against the delay it had:

- miss      share of replies that took longer than estimated: the arm would starve but for the margin
- excess    mean ticks asked too early: work for the server, and rows of a fresher plan never executed
- recovery  replies after a 2 s spike until the estimate is back where it was before; LeRobot's never is

    python benchmarks/delay_estimators.py --trace my_network.json
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import tyro

from pi05_websocket.chunks.delay import DelayEstimator

SPIKE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Compare delay estimators."""

    replies: int = 400
    """Replies in each made-up trace."""

    control_hz: float = 30.0
    """Ticks per second."""

    seed: int = 0
    """Of the made-up traces."""

    trace: tuple[Path, ...] = ()
    """Measured round trips: JSON files with `round_trips_ms`, a list."""

    json: Path | None = None
    """Where to write the figures."""


class Estimator(Protocol):
    """Takes delays, gives the one to plan with."""

    def add(self, ticks: int) -> None:
        """Record one."""

    def ticks(self) -> int:
        """Return the estimate."""


class LeRobotMax:
    """LeRobot's: the tracker itself where it is installed, its rule where not."""

    def __init__(self, control_hz: float) -> None:
        self._hz = control_hz
        try:
            from lerobot.policies.rtc.latency_tracker import LatencyTracker

            self._tracker = LatencyTracker()
        except ImportError:
            self._tracker = None
        self._max = 0.0

    def add(self, ticks: int) -> None:
        """Record one."""
        self._max = max(self._max, ticks / self._hz)
        if self._tracker is not None:
            self._tracker.add(ticks / self._hz)

    def ticks(self) -> int:
        """Return what the rtc engine plans with: `ceil(max * fps)`."""
        latency = self._max if self._tracker is None else self._tracker.max()
        return math.ceil(round((latency or 0.0) * self._hz, 6))


def made_up(settings: Replay) -> dict[str, list[float]]:
    """Return round trips in seconds of networks, each as a seeded random process."""
    rng, n = np.random.default_rng(settings.seed), settings.replies
    steady = 0.15 + rng.normal(0, 0.005, n).clip(-0.02, 0.02)
    cold = np.concatenate([[SPIKE_S], steady[1:]])
    spike = steady.copy()
    spike[n // 2] += SPIKE_S
    wifi = 0.08 + rng.gamma(2.0, 0.015, n)
    loss = wifi + np.where(rng.random(n) < 0.03, 0.22, 0.0)
    bursts = steady + 0.2 * (np.sin(np.arange(n) / 12.0) > 0.9)
    moved = np.where(np.arange(n) < n // 2, steady, steady + 0.15)
    names = ("steady", "cold start", "2 s spike", "wifi", "3 % loss", "bursts", "moved away")
    traces = (steady, cold, spike, wifi, loss, bursts, moved)
    return {name: list(map(float, trace)) for name, trace in zip(names, traces, strict=True)}


def replay(estimator: Estimator, delays: Sequence[int]) -> dict[str, float | None]:
    """Return miss rate, mean excess and the recovery after the first spike."""
    misses, excess, recovery, spiked_at, before = 0, 0, None, None, 0
    usual = float(np.median(delays))
    for i, delay in enumerate(delays):
        estimate = estimator.ticks()
        if i > 1:  # nothing is known before the first, and that one does not count
            misses += delay > estimate
            excess += max(0, estimate - delay)
        if spiked_at is not None and recovery is None and estimate <= before + 1:
            recovery = i - spiked_at - 1
        if spiked_at is None and i > 1 and delay > 8 * max(1.0, usual):
            spiked_at, before = i, estimate
        estimator.add(delay)
    judged = max(1, len(delays) - 2)
    return {
        "miss": misses / judged,
        "excess_ticks": excess / judged,
        "recovery_replies": math.inf if spiked_at is not None and recovery is None else recovery,
    }


def rows(settings: Replay) -> Iterable[tuple[str, dict[str, dict[str, float | None]]]]:
    """Yield each trace's name and the figures of both estimators."""
    traces = made_up(settings)
    for path in settings.trace:
        traces[path.stem] = [ms / 1000.0 for ms in json.loads(path.read_text())["round_trips_ms"]]
    for name, seconds in traces.items():
        delays = [math.ceil(value * settings.control_hz) for value in seconds]
        ours, theirs = DelayEstimator(), LeRobotMax(settings.control_hz)
        yield name, {"ours": replay(ours, delays), "lerobot_max": replay(theirs, delays)}


def main(settings: Replay) -> None:
    """Replay, print, and write the figures if asked."""
    figures = dict(rows(settings))
    print(f"{'':14}{'ours':^30}{'LeRobot max':^30}")
    head = f"{'miss':>8}{'excess':>10}{'recovery':>12}"
    print(f"{'trace':14}{head}{head}")
    for name, both in figures.items():
        line = f"{name:14}"
        for figure in both.values():
            recovery = figure["recovery_replies"]
            shown = (
                "-" if recovery is None else "never" if math.isinf(recovery) else f"{recovery:g}"
            )
            line += f"{figure['miss']:8.1%}{figure['excess_ticks']:10.2f}{shown:>12}"
        print(line)
    if settings.json is not None:
        finite = json.dumps(figures, indent=1).replace("Infinity", '"never"')
        settings.json.write_text(finite + "\n")


if __name__ == "__main__":
    main(tyro.cli(Replay, description=__doc__))
