# SPDX-License-Identifier: Apache-2.0
"""Robots that ask and a policy that takes its time, on a clock of its own: the planner's proving ground.

In: robots and the cost of a batch. Out: what became of every request. Nothing here waits or draws at random.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from pi05_websocket.server.batching import BatchSettings, plan_batch
from pi05_websocket.server.model_time import ModelTimes
from pi05_websocket.server.sessions import NORMAL_PRIORITY, Sessions, Waiting

__all__ = ["Robot", "Run", "simulate"]


@dataclass(kw_only=True)
class Robot:
    """One that asks; times in seconds."""

    name: str
    first: float = 0.0
    every: float | None = None
    """Asks at a fixed rate; None: as soon as it has its answer."""
    affords: float | None = None
    """It has rows for so long after it first asked in vain; None: a stock client, which waits."""
    useful: float | None = None
    """And its answer is of use so long; None: whenever it comes."""
    priority: int = NORMAL_PRIORITY


@dataclass
class Run:
    """What happened."""

    waits: dict[str, list[float]] = field(default_factory=dict)
    """Robot to the seconds from each request to its answer."""
    late: dict[str, int] = field(default_factory=dict)
    superseded: dict[str, int] = field(default_factory=dict)
    missed: dict[str, int] = field(default_factory=dict)
    """Answers that came after their deadline, of no use."""
    held: dict[str, int] = field(default_factory=dict)
    """Answers for which the robot had to hold."""
    in_vain: dict[str, float] = field(default_factory=dict)
    """Robot to the longest time it asked without an answer, in seconds; that goes on at the end, counts."""
    batches: list[int] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def answered(self) -> int:
        """How many requests, of all robots."""
        return sum(map(len, self.waits.values()))

    def median_wait(self, name: str) -> float:
        """Of one robot."""
        return median(self.waits[name])


def simulate(
    robots: Sequence[Robot],
    cost: Callable[[int], float],
    *,
    seconds: float,
    settings: BatchSettings,
    known: bool = True,
) -> Run:
    """Let the robots ask for so long.

    Args:
        robots: Who asks.
        cost: Size of a batch to the seconds it takes.
        seconds: How long.
        settings: The planner's.
        known: Whether the costs are known from the start, as after a warm-up.
    """
    simulation = _Simulation(robots, cost, settings, known)
    while simulation.now < seconds:
        simulation.step(seconds)
    simulation.run.seconds = seconds
    simulation.note_who_waits()
    return simulation.run


class _Simulation:
    def __init__(
        self,
        robots: Sequence[Robot],
        cost: Callable[[int], float],
        settings: BatchSettings,
        known: bool,
    ) -> None:
        self.run = Run()
        self.now = 0.0
        self._robots = robots
        self._cost = cost
        self._settings = settings
        self._times = ModelTimes()
        self._sessions: Sessions[Robot, str] = Sessions()
        self._numbers = itertools.count()
        self._arrivals: list[tuple[float, int, Robot]] = []
        for size in range(1, settings.max_batch + 1 if known else 0):
            self._times.add("g", size, cost(size))
        for robot in robots:
            self._will_ask(robot, robot.first)

    def step(self, end: float) -> None:
        """Do what the planner says, or go on to when something happens."""
        self._arrive()
        plan = plan_batch(self._sessions.heads(), self.now, self._times.expect, self._settings)
        for request in plan.late:
            self._refuse(request)
        if plan.batch:
            self._ask(plan.batch)
        else:
            moments = [self._arrivals[0][0] if self._arrivals else end, plan.wait_until or end]
            self.now = max(min(moments), self.now + 1e-9)

    def note_who_waits(self) -> None:
        """Count the waiting that has not ended."""
        for name in {robot.name for robot in self._robots}:
            for request in self._sessions.line(name):
                self._note_in_vain(request)

    def _note_in_vain(self, request: Waiting[Robot, str]) -> None:
        name = request.item.name
        longest = max(self.run.in_vain.get(name, 0.0), self.now - request.since)
        self.run.in_vain[name] = longest

    def _will_ask(self, robot: Robot, at: float) -> None:
        heapq.heappush(self._arrivals, (at, next(self._numbers), robot))

    def _arrive(self) -> None:
        """Let everybody stand in line who has come until now."""
        while self._arrivals and self._arrivals[0][0] <= self.now:
            at, _, robot = heapq.heappop(self._arrivals)
            if robot.every is not None:
                self._will_ask(robot, at + robot.every)
            request: Waiting[Robot, str] = Waiting(
                item=robot,
                session=robot.name,
                arrived=at,
                priority=robot.priority,
                ready=True,
                group="g",
                deadline=None if robot.useful is None else at + robot.useful,
                reads_refusals=robot.affords is not None,
            )
            self._sessions.push(request)
            if robot.affords is not None:  # its rows run out while it asks in vain
                request.due = max(request.since + robot.affords, at)
            self._sessions.supersede(robot.name)
            for _ in self._sessions.settle([robot.name]):
                _count(self.run.superseded, robot.name)

    def _refuse(self, request: Waiting[Robot, str]) -> None:
        request.answer = "late"
        self._sessions.settle([request.session])
        _count(self.run.late, request.item.name)
        self._answered(request.item)

    def _ask(self, batch: list[Waiting[Robot, str]]) -> None:
        for request in batch:
            self._sessions.take(request)
        took = self._cost(len(batch))
        self._times.add("g", len(batch), took)
        self.now += took
        self._arrive()
        self.run.batches.append(len(batch))
        for request in batch:
            robot = request.item
            self._note_in_vain(request)
            self.run.waits.setdefault(robot.name, []).append(self.now - request.arrived)
            if request.deadline is not None and self.now > request.deadline + 1e-9:
                _count(self.run.missed, robot.name)
            if request.due is not None and self.now > request.due + 1e-9:
                _count(self.run.held, robot.name)
            self._sessions.done(request.session)
            self._answered(robot)

    def _answered(self, robot: Robot) -> None:
        if robot.every is None:
            self._will_ask(robot, self.now)


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
