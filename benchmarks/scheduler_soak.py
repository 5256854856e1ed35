# SPDX-License-Identifier: Apache-2.0
"""Ten million ticks of the chunk scheduler over a network that loses, repeats, reorders and stalls.

Every row says which episode, request and row it is, so each executed action is held against what it had to be.
Counted: stale (an older episode or chunk than before), duplicate (one row at two ticks), out of order (a row
not later than the one before), wrong tick (not the row its tick asks for, held ticks left out). All must be 0.

    python benchmarks/scheduler_soak.py --steps 10000000
"""

from __future__ import annotations

import heapq
import itertools
import random
import sys
import time
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import tyro

from pi05_websocket.chunks.config import SchedulerConfig
from pi05_websocket.chunks.scheduler import ChunkScheduler, MergeOutcome, Request
from pi05_websocket.chunks.seam import SeamConfig
from pi05_websocket.data import Action, ActionChunk

EPISODE, SEQ, ROW = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """Run the scheduler for very long and count what must not happen."""

    steps: int = 10_000_000
    """Ticks in all."""

    seed: int = 0
    """Of the network and of the loop."""

    seam: Literal["replace", "blend"] = "replace"
    """With `blend` only the order is checked: blended rows do not carry their numbers any more."""


@dataclass(slots=True)
class Counts:
    """What happened, and what must not have."""

    executed: int = 0
    held: int = 0
    requests: int = 0
    outcomes: dict[MergeOutcome, int] = field(default_factory=dict)
    stale: int = 0
    duplicate: int = 0
    out_of_order: int = 0
    wrong_tick: int = 0

    @property
    def wrong(self) -> int:
        """All that must be 0."""
        return self.stale + self.duplicate + self.out_of_order + self.wrong_tick


class Run:
    """One scheduler with settings of its own, and the network in front of it."""

    def __init__(self, settings: Soak, seed: int, counts: Counts) -> None:
        self._random = random.Random(seed)
        self._counts = counts
        self._checks_rows = settings.seam == "replace"
        self._scheduler = ChunkScheduler(
            SchedulerConfig(
                action_horizon=self._random.choice([None, 1, 4, 10, 25]),
                min_execution_ticks=self._random.choice([0, 4, 8]),
                margin_ticks=self._random.choice([None, 0, 1, 5]),
                max_age_ticks=self._random.choice([None, 30, 90]),
                max_skip_ticks=self._random.choice([0, 3]),
                seam=SeamConfig(kind=settings.seam),
            )
        )
        self._rows = self._random.choice([8, 10, 25, 50])
        self._delay = self._random.choice([0, 2, 6, 12, 30])
        self._under_way: list[tuple[int, int, Request]] = []
        self._number = itertools.count()
        self._tick = 0
        self._last: Action | None = None
        self._asked: dict[int, tuple[int, int]] = {}
        self._scheduler.start_episode()

    def run(self, steps: int) -> None:
        """Execute so many ticks."""
        chance = self._random.random
        for _ in range(steps):
            self._deliver()
            if self._scheduler.request_due(self._tick) or chance() < 0.002:  # now and then hedged
                request = self._scheduler.request(self._tick)
                self._asked[request.seq] = (self._tick, self._scheduler.held_ticks)
                self._send(request)
            self._check(self._scheduler.action_at(self._tick))
            dice = chance()
            if dice < 0.0005:
                self._scheduler.start_episode()
                self._last = None
            elif dice < 0.001:
                self._scheduler.preempt()
            elif dice < 0.002:
                self._tick += self._random.choice([1, 2, 40])  # the loop stalls
            self._tick += dice >= 0.005  # else the loop is too fast: the same tick again

    def _send(self, request: Request) -> None:
        self._counts.requests += 1
        copies = 0 if self._random.random() < 0.01 else 2 if self._random.random() < 0.02 else 1
        if not copies:
            self._scheduler.request_ended(request.seq)
        for _ in range(copies):
            stall = 60 if self._random.random() < 0.02 else 0
            arrival = self._tick + self._random.randint(self._delay // 2, self._delay + 2) + stall
            heapq.heappush(self._under_way, (arrival, next(self._number), request))

    def _deliver(self) -> None:
        while self._under_way and self._under_way[0][0] <= self._tick:
            _, _, request = heapq.heappop(self._under_way)
            actions = np.empty((self._rows, 3), np.float32)
            actions[:, EPISODE], actions[:, SEQ] = request.episode, request.seq
            actions[:, ROW] = np.arange(self._rows)
            chunk = ActionChunk(
                actions=actions, first_tick=request.tick, episode=request.episode, seq=request.seq
            )
            outcome = self._scheduler.merge(chunk, request, self._tick)
            self._counts.outcomes[outcome] = self._counts.outcomes.get(outcome, 0) + 1

    def _check(self, action: Action | None) -> None:
        counts, last = self._counts, self._last
        if action is None:
            counts.held += 1
            return
        counts.executed += 1
        if (
            last is None or action.tick != last.tick
        ):  # the same tick again gives the same row, rightly
            if last is not None and action.seq < last.seq:
                counts.stale += 1
            if last is not None and action.seq == last.seq:
                counts.duplicate += action.row == last.row
                counts.out_of_order += action.row < last.row
        if self._checks_rows:
            said = tuple(int(value) for value in action.values)
            counts.stale += said[EPISODE] != self._scheduler.episode
            counts.wrong_tick += said[1:] != (action.seq, action.row)
        asked_tick, held_before = self._asked[action.seq]
        held = self._scheduler.held_ticks - held_before
        counts.wrong_tick += action.row != action.tick - asked_tick - held
        self._last = action


def main(settings: Soak) -> int:
    """Soak, print the counts, return 1 if anything ran wrong."""
    counts, began, each = Counts(), time.monotonic(), 100_000
    for number, done in enumerate(range(0, settings.steps, each)):
        Run(settings, 1000 * settings.seed + number, counts).run(min(each, settings.steps - done))
        print(f"\r{done + each:,} ticks, {counts.wrong} wrong", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    outcomes = ", ".join(f"{key.name.lower()} {n:,}" for key, n in counts.outcomes.items())
    print(
        f"{settings.steps:,} ticks, seam {settings.seam}: {counts.executed:,} actions executed, "
        f"{counts.held:,} held, {counts.requests:,} requests; replies: {outcomes}\n"
        f"stale {counts.stale}, duplicate {counts.duplicate}, out of order {counts.out_of_order}, "
        f"at the wrong tick {counts.wrong_tick}; {time.monotonic() - began:.0f} s"
    )
    return 1 if counts.wrong else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Soak, description=__doc__)))
