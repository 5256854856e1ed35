# SPDX-License-Identifier: Apache-2.0
"""Robots, upstreams that freeze, die and come back, and the balancer between them, on a clock of its own.

Each upstream works on one request at a time, as a stock server. Nothing here waits or draws at random.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field

import pytest

from pi05_websocket.gateway.balancing import Balancer, BalanceSettings


@dataclass
class Upstream:
    """A server that takes so long for each; frozen or dead between two times."""

    seconds: float
    frozen: tuple[float, float] = (0.0, 0.0)
    dead: tuple[float, float] = (0.0, 0.0)
    first_s: float = 0.0
    """More for the first since it was started again: it compiles."""

    generation: int = 0
    """Counts its processes."""
    up: bool = True
    busy: bool = False
    compiled: bool = False

    def takes(self, now: float) -> float:
        """Return how long a request that is sent now will take."""
        compiles = self.generation > 0 and not self.compiled
        done = now + self.seconds + (self.first_s if compiles else 0.0)
        begin, end = self.frozen
        return (
            done if done <= begin or now >= end else max(end, done + end - max(now, begin))
        ) - now


@dataclass
class Robot:
    """Asks as soon as it has its answer."""

    name: int
    asked_at: float = 0.0
    attempt: int = 0
    """Counts what is sent for it, so that what it gave up on is known."""
    sent_at: float = 0.0
    told: int = 0
    """The attempt whose upstream has been noted as one that does not answer."""
    tries: int = 0
    failed_by: set[int] = field(default_factory=set)


class Simulation:
    """The gateway's rules, with a heap in the place of an event loop."""

    def __init__(self, robots: int, *upstreams: Upstream) -> None:
        self.waits: list[float] = []
        self.failed = 0
        self.retries = 0
        self.copies = 0
        self.balancer = Balancer(len(upstreams), BalanceSettings())
        self._upstreams = upstreams
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, str, tuple[object, ...]]] = []
        self._line = [Robot(name) for name in range(robots)]
        for number, upstream in enumerate(upstreams):
            self.balancer.came(number)
            if upstream.dead != (0.0, 0.0):
                self._at(upstream.dead[0], "dies", number)
                self._at(upstream.dead[1], "comes", number)

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self._dispatch(0.0)
        while self._events and self._events[0][0] <= seconds:
            now, _, what, facts = heapq.heappop(self._events)
            getattr(self, f"_{what}")(now, *facts)
            self._dispatch(now)

    def _at(self, when: float, what: str, *facts: object) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), what, facts))

    def _usable(self) -> list[int]:
        return [number for number, upstream in enumerate(self._upstreams) if upstream.up]

    def _free(self) -> list[int]:
        return [number for number in self._usable() if not self._upstreams[number].busy]

    def _dispatch(self, now: float) -> None:
        while self._line:
            robot = self._line[0]
            number = self.balancer.choose(self._usable(), self._free(), now, robot.failed_by)
            if number is None:
                return
            self._line.pop(0)
            self.balancer.asked(number)
            robot.attempt += 1
            robot.sent_at = now
            self._send(now, number, robot)
            self._at(
                now + self.balancer.patience_s(number, now), "looks", number, robot, robot.attempt
            )
            trial = self.balancer.trial(self._usable(), self._free(), now)
            if trial is not None:
                self.copies += 1
                self.balancer.tried(trial)
                self._at(
                    now + self.balancer.longest_s(trial),
                    "ends_trial",
                    trial,
                    self._upstreams[trial].generation,
                )
                self._send(now, trial, None)

    def _send(self, now: float, number: int, robot: Robot | None) -> None:
        upstream = self._upstreams[number]
        upstream.busy = True
        attempt = 0 if robot is None else robot.attempt
        self._at(
            now + upstream.takes(now), "replies", number, upstream.generation, robot, attempt, now
        )

    def _replies(
        self,
        now: float,
        number: int,
        generation: int,
        robot: Robot | None,
        attempt: int,
        sent: float,
    ) -> None:
        upstream = self._upstreams[number]
        if generation != upstream.generation or not upstream.up:
            return
        upstream.busy, upstream.compiled = False, True
        if robot is not None and robot.attempt != attempt:
            self.balancer.late(number, now, now - sent)
        elif robot is not None or self.balancer.standings[number].probing:
            self.balancer.answered(number, now, now - sent)
            if robot is not None:
                self._answered(now, number, robot)

    def _answered(self, now: float, number: int, robot: Robot) -> None:
        self.balancer.ended(number)
        self.waits.append(now - robot.asked_at)
        robot.attempt += 1  # nobody looks at it any more
        self._line.append(Robot(robot.name, now))

    def _looks(self, now: float, number: int, robot: Robot, attempt: int) -> None:
        if robot.attempt != attempt:
            return
        if self.balancer.has_alternative(self._usable(), number):
            self._ask_again(now, number, robot)
        else:
            self._at(now + 0.25, "looks", number, robot, attempt)
            if robot.told != attempt and now - robot.sent_at > self.balancer.longest_s(number):
                robot.told = attempt
                self.balancer.failed(number, now)

    def _ask_again(self, now: float, number: int, robot: Robot) -> None:
        self.balancer.ended(number)
        self.balancer.failed(number, now)
        robot.attempt += 1
        if robot.tries or not self.balancer.budget.spend():
            self.failed += 1
            self._line.append(Robot(robot.name, now))
            return
        robot.tries += 1
        robot.failed_by.add(number)
        self.retries += 1
        self._line.insert(0, robot)

    def _ends_trial(self, now: float, number: int, generation: int) -> None:
        if (
            self.balancer.standings[number].probing
            and self._upstreams[number].generation == generation
        ):
            self.balancer.failed(number, now)

    def _dies(self, now: float, number: int) -> None:
        upstream = self._upstreams[number]
        lost = [
            facts[2]
            for _, _, what, facts in self._events
            if what == "replies" and facts[:2] == (number, upstream.generation)
            if isinstance(facts[2], Robot) and facts[2].attempt == facts[3]
        ]
        upstream.up, upstream.busy, upstream.compiled = False, False, False
        upstream.generation += 1
        for robot in lost:
            self._ask_again(now, number, robot)

    def _comes(self, now: float, number: int) -> None:
        self._upstreams[number].up = True
        self.balancer.came(number)


def test_two_that_are_well_share_the_work() -> None:
    """All of their capacity is used, and nobody is asked twice."""
    simulation = Simulation(8, Upstream(0.020), Upstream(0.020))
    simulation.run(10.0)
    assert len(simulation.waits) == pytest.approx(1000, rel=0.02)
    assert (simulation.retries, simulation.failed) == (0, 0)


def test_work_is_shared_by_speed() -> None:
    """One that is three times as slow answers what it can, and holds nobody up for long."""
    simulation = Simulation(8, Upstream(0.020), Upstream(0.060))
    simulation.run(10.0)
    assert len(simulation.waits) == pytest.approx(667, rel=0.05)
    assert simulation.retries == 0


def test_a_frozen_one_costs_one_request_a_second() -> None:
    """Ten seconds frozen: one robot waits for the timeout, the others go on, and it is used again after it."""
    frozen = Upstream(0.020, frozen=(3.0, 13.0))
    simulation = Simulation(8, frozen, Upstream(0.020))
    simulation.run(20.0)
    assert simulation.failed == 0
    assert simulation.retries == 1
    assert max(simulation.waits) == pytest.approx(1.04, abs=0.15)
    assert sorted(simulation.waits)[-2] < 0.5
    assert len(simulation.waits) == pytest.approx(50 * (20 + 10), rel=0.05)


def test_a_dead_one_costs_nothing_but_its_capacity() -> None:
    """What was under way is asked for again at once; when it is back it compiles while nobody waits for it."""
    dying = Upstream(0.020, dead=(3.0, 6.0), first_s=5.0)
    simulation = Simulation(8, dying, Upstream(0.020))
    simulation.run(20.0)
    assert (simulation.failed, simulation.retries) == (0, 1)
    assert max(simulation.waits) < 0.3
    assert simulation.copies == 1
    assert len(simulation.waits) == pytest.approx(50 * (20 + 20 - 8), rel=0.05)


def test_the_only_one_is_waited_for() -> None:
    """Nobody is sent away because the only server takes its time."""
    simulation = Simulation(4, Upstream(0.020, frozen=(3.0, 9.0)))
    simulation.run(20.0)
    assert (simulation.failed, simulation.retries) == (0, 0)
    assert len(simulation.waits) == pytest.approx(50 * 14, rel=0.03)


def test_slow_inferences_are_no_failures() -> None:
    """A policy that takes 1.5 s is not asked twice for everything because the setting says 1 s."""
    simulation = Simulation(4, Upstream(1.5), Upstream(1.5))
    simulation.run(120.0)
    assert simulation.failed == 0
    assert simulation.retries <= 4
    assert len(simulation.waits) == pytest.approx(160, rel=0.1)


@pytest.mark.parametrize("seconds", [0.005, 0.02, 0.1])
@pytest.mark.parametrize("begin", [1.0, 2.013, 3.7])
@pytest.mark.parametrize(
    ("dies", "comes", "nobody_s"), [(8, 10, 0), (3.5, 5, 0.5), (2, 6, 2), (-1, 2, 2)]
)
def test_somebody_always_answers(
    seconds: float, begin: float, dies: float, comes: float, nobody_s: float
) -> None:
    """One frozen for 4 s, the other dead, at the same time too: all is answered.

    It takes no more than the time in which there is nobody, a timeout, and a bit.
    """
    simulation = Simulation(
        6,
        Upstream(seconds, frozen=(begin, begin + 4)),
        Upstream(seconds, dead=(begin + dies, begin + comes)),
    )
    simulation.run(20.0)
    assert simulation.failed == 0
    assert nobody_s < max(simulation.waits) < nobody_s + 1.0 + 10 * seconds
    assert simulation.retries <= 2
