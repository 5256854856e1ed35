# SPDX-License-Identifier: Apache-2.0
"""What happens in a demo, read from the two traces while they grow and after they are whole.

In: lines of `policy.jsonl` (ticks, exchanges, outages) and `robot.jsonl` (commands, joints, episodes). Out: the
live line's figures, and the summary. `Story` is pure; `Tail` reads files.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["EpisodeOutcome", "Story", "Tail", "TraceLine", "read_trace"]

TraceLine = dict[str, Any]
"""One line of a trace: `kind`, `time_s` on the machine's monotonic clock, and facts."""

_RATE_WINDOW = 45
"""Ticks over which the live tick rate is taken: a second and a half."""


class Tail:
    """Reads the lines that a growing file has gained."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[TraceLine]:
        """Return the lines that became whole since the last call; none while there is no file."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


def read_trace(path: Path) -> list[TraceLine]:
    """Return a whole trace; empty if there is no such file."""
    return Tail(path).read()


@dataclass(frozen=True, slots=True)
class EpisodeOutcome:
    """How an episode ended."""

    episode: int
    success: bool
    duration_s: float
    """To success, or to its end."""

    began_s: float
    ended_s: float
    """Monotonic seconds."""


@dataclass(slots=True)
class Story:
    """The state of a demo after all lines told so far."""

    episode: int | None = None
    """Number of the running or last episode, from 0; None before the arm moves."""

    connected: bool = False
    """Whether the robot has been built."""

    outcomes: list[EpisodeOutcome] = field(default_factory=list)
    ticks: int = 0
    held_ticks: int = 0
    held_by_cause: Counter[str] = field(default_factory=Counter)
    """Ticks without a row, by why there was none."""

    outages: int = 0
    outage: str | None = None
    """Why there are no actions now; None while there are."""

    exchanges: list[TraceLine] = field(default_factory=list)
    tick_times: list[float] = field(default_factory=list)
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=_RATE_WINDOW))
    _began_s: float = 0.0
    _moved_s: float = 0.0
    held_s: float = 0.0
    """Seconds since the last tick with an action."""

    def tell(self, lines: Iterable[TraceLine]) -> None:
        """Take lines of either trace, in the order of each."""
        for line in lines:
            told = getattr(self, f"_{line['kind']}", None)
            if told is not None:
                told(line)

    def _tick(self, line: TraceLine) -> None:
        held = line["source"] != "chunk"
        if not held or not self.ticks:
            self._moved_s = line["time_s"]
        self.ticks += 1
        self.held_ticks += held
        if held:
            self.held_by_cause[line.get("cause") or "unknown"] += 1
        self.held_s = line["time_s"] - self._moved_s
        self.tick_times.append(line["time_s"])
        self._recent.append(line["time_s"])

    def _exchange(self, line: TraceLine) -> None:
        self.exchanges.append(line)

    def _outage(self, line: TraceLine) -> None:
        self.outages += 1
        self.outage = line["cause"]

    def _recovered(self, line: TraceLine) -> None:
        self.outage = None

    def _cube(self, line: TraceLine) -> None:
        self.connected = True

    def _began(self, line: TraceLine) -> None:
        self.episode = line["episode"]
        self._began_s = line["time_s"]

    def _ended(self, line: TraceLine) -> None:
        self.outcomes.append(
            EpisodeOutcome(
                line["episode"],
                line["success"],
                line["duration_s"],
                self._began_s,
                line["time_s"],
            )
        )

    @property
    def successes(self) -> int:
        """Episodes that succeeded."""
        return sum(outcome.success for outcome in self.outcomes)

    @property
    def tick_rate(self) -> float | None:
        """Ticks per second of late; None at first, while the loop makes up for its start."""
        return _rate(list(self._recent)) if len(self._recent) == _RATE_WINDOW else None

    def figures(self, episodes: int) -> dict[str, Any]:
        """Return the summary of the first `episodes` episodes and of everything that was exchanged."""
        counted = self.outcomes[:episodes]
        trips = [line["round_trip_ms"] for line in self.exchanges]
        servers = [
            line["server_ms"] for line in self.exchanges if line.get("server_ms") is not None
        ]
        delays = [line["delay_ticks"] for line in self.exchanges if line["delay_ticks"] is not None]
        rate = _rate(self.tick_times)
        return {
            "episodes": len(counted),
            "successes": sum(outcome.success for outcome in counted),
            "ticks": self.ticks,
            "held_ticks": self.held_ticks,
            "held_by_cause": dict(sorted(self.held_by_cause.items())),
            "round_trip_ms": _percentiles(trips),
            "control_hz": None if rate is None else round(rate, 2),
            "server_ms": _percentiles(servers),
            "delay_ticks": _percentiles(delays),
            "exchanges": len(self.exchanges),
            "outages": self.outages,
            "per_episode": [
                {
                    "episode": outcome.episode,
                    "success": outcome.success,
                    "duration_s": outcome.duration_s,
                }
                for outcome in counted
            ],
        }


def _rate(times: list[float]) -> float | None:
    if len(times) < 2 or times[-1] <= times[0]:
        return None
    return (len(times) - 1) / (times[-1] - times[0])


def _percentiles(values: list[float]) -> dict[str, float | None]:
    if not values:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2)}
