# SPDX-License-Identifier: Apache-2.0
"""Which requests are asked for next: single decisions, and robots that ask on a clock of their own."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest
from arrivals import Robot, simulate
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.server.batching import BatchSettings, Plan, batches_ahead, plan_batch
from pi05_websocket.server.sessions import PRIORITIES, Waiting

SIXTEEN = BatchSettings(max_batch=16)


def cost(size: int) -> float:
    """A policy that batches well: 20 ms, and 2 ms for each."""
    return 0.020 + 0.002 * size


def unbatchable(size: int) -> float:
    """A policy that gains nothing from a batch."""
    return 0.020 * size


def expect(_group: Hashable, size: int) -> float:
    """The first one's, known beforehand."""
    return cost(size)


def request(
    name: str,
    *,
    arrived: float = 0.0,
    due: float | None = None,
    deadline: float | None = None,
    priority: str = "normal",
    group: str = "g",
    since: float | None = None,
) -> Waiting[str, str]:
    """One that waits and is decoded."""
    made: Waiting[str, str] = Waiting(
        item=name,
        session=name,
        arrived=arrived,
        ready=True,
        due=due,
        deadline=deadline,
        priority=PRIORITIES[priority],
        group=group,
    )
    made.since = arrived if since is None else since
    return made


def planned(
    *waiting: Waiting[str, str], now: float = 0.0, settings: BatchSettings = SIXTEEN
) -> tuple[str, str, float | None]:
    """Names in the batch, names that are late, until when to wait."""
    plan = plan_batch(waiting, now, expect, settings)
    return (
        " ".join(w.item for w in plan.batch),
        " ".join(w.item for w in plan.late),
        plan.wait_until,
    )


# ------------------------------------------------------------------------------------------ one decision


@pytest.mark.parametrize(
    ("waiting", "batch", "late"),
    [
        ([], "", ""),
        ([request("a")], "a", ""),
        ([request("a", due=0.5), request("b", due=0.1)], "b a", ""),
        # An idle policy takes 22 ms.
        ([request("a", deadline=0.021), request("b")], "b", "a"),
        ([request("a", deadline=0.022)], "a", ""),
        # Two take 24 ms: b would be late, and a can wait.
        ([request("a", due=0.5), request("b", due=0.023)], "b", ""),
        ([request("a", due=0.5), request("b", deadline=0.023)], "b", ""),
        # Who does not say when stands still, and goes before one that has rows left.
        ([request("a", due=0.3), request("b", arrived=0.0)], "b a", ""),
        # Who is out of rows goes first, and nobody can be late for it any more.
        ([request("a", due=0.3), request("b", due=-1.0)], "b a", ""),
        ([request("a", priority="low"), request("b"), request("c", priority="high")], "c b a", ""),
        ([request("a"), request("b", group="rtc"), request("c")], "a c", ""),
    ],
)
def test_who_is_asked_for(waiting: list[Any], batch: str, late: str) -> None:
    """By class, then by deadline; together only what is in time together."""
    assert planned(*waiting) == (batch, late, None)


def test_no_more_than_the_policy_takes() -> None:
    """The others wait for the next batch."""
    three = [request(name, arrived=at) for name, at in (("c", 2.0), ("a", 0.0), ("b", 1.0))]
    assert planned(*three, now=2.0, settings=BatchSettings(max_batch=2)) == ("a b", "", None)


def test_a_policy_that_gains_nothing_from_a_batch_is_asked_one_by_one() -> None:
    """As many are answered a second, and the first sooner."""
    waiting = [request(name) for name in "abc"]
    plan = plan_batch(waiting, 0.0, lambda _, size: unbatchable(size) ** 1.1, SIXTEEN)
    assert [w.item for w in plan.batch] == ["a"]


def test_before_anything_is_known_all_are_asked_for() -> None:
    """A size that was never tried is expected to cost nothing."""
    plan = plan_batch([request(name) for name in "abc"], 0.0, lambda *_: 0.0, SIXTEEN)
    assert len(plan.batch) == 3


def test_a_policy_that_is_idle_because_all_are_late_is_asked_to_see() -> None:
    """It may have compiled when it was measured. The one with most time is asked for, once a second."""
    waiting = [request("a", deadline=0.5), request("b", deadline=0.7), request("c", deadline=0.6)]

    def plan(idle_s: float, *more: Any) -> tuple[str, str]:
        found = plan_batch([*waiting, *more], 0.0, lambda *_: 60.0, SIXTEEN, idle_s=idle_s)
        return " ".join(w.item for w in found.batch), " ".join(w.item for w in found.late)

    assert plan(0.9) == ("", "a b c")
    assert plan(1.0) == ("b", "a c")
    assert plan(1.0, request("d")) == ("d", "a b c")
    assert plan_batch([], 0.0, lambda *_: 60.0, SIXTEEN, idle_s=9.0) == Plan()


def test_who_has_waited_long_goes_up_a_class() -> None:
    """Two seconds a class: evaluation goes on while robots are busy, only later."""
    low, high = request("low", priority="low"), request("high", arrived=3.9, priority="high")
    one = BatchSettings(max_batch=1)
    assert planned(low, high, now=3.9, settings=one)[0] == "high"
    assert planned(low, high, now=4.1, settings=one)[0] == "low"


def test_under_overload_goes_first_who_has_waited_the_largest_share() -> None:
    """Not who is nearest to being lost: that one would be lost a little later."""
    one = BatchSettings(max_batch=1)
    near = request("near", arrived=1.0, due=1.035)
    far = request("far", arrived=0.0, due=1.040)
    assert planned(near, far, now=1.01, settings=one)[0] == "far"
    stock = request("stock", arrived=0.0)
    assert planned(near, far, stock, now=1.01, settings=one)[0] == "stock"


@pytest.mark.parametrize(
    ("waiting", "now", "expected"),
    [
        ([request("a")], 0.0, ("", "", 0.010)),
        ([request("a")], 0.010, ("a", "", None)),
        # With one more the batch takes 24 ms, and that is all that a can afford.
        ([request("a", due=0.030)], 0.0, ("", "", 0.006)),
        ([request("a", deadline=0.023)], 0.0, ("a", "", None)),
        ([request(name) for name in "abcd"], 0.0, ("a b c d", "", None)),
        # Waiting brings nothing where the batch cannot grow.
        ([request("a", due=0.5), request("b", due=0.023)], 0.0, ("b", "", None)),
    ],
)
def test_a_window_waits_for_others_as_far_as_a_deadline_affords(
    waiting: list[Any], now: float, expected: tuple[str, str, float | None]
) -> None:
    """Only where the settings say so, and only while the batch has room."""
    settings = BatchSettings(max_batch=4, window_s=0.010)
    batch, late, until = planned(*waiting, now=now, settings=settings)
    assert (batch, late) == expected[:2]
    assert until == (None if expected[2] is None else pytest.approx(expected[2]))


@pytest.mark.parametrize(
    ("waiting", "seconds"), [(0, 0.0), (1, 0.022), (16, 0.052), (17, 0.074), (40, 0.140)]
)
def test_how_long_a_queue_is_in_seconds(waiting: int, seconds: float) -> None:
    """Whole batches, and what is left over."""
    assert batches_ahead(waiting, expect, "g", SIXTEEN) == pytest.approx(seconds)


_REQUESTS = st.lists(
    st.builds(
        request,
        st.just("x"),
        arrived=st.floats(0.0, 5.0),
        due=st.none() | st.floats(4.0, 6.0),
        deadline=st.none() | st.floats(5.0, 6.0),
        priority=st.sampled_from(list(PRIORITIES)),
        group=st.sampled_from("gh"),
    ),
    max_size=40,
)


@given(_REQUESTS, st.integers(1, 20), st.sampled_from([0.0, 0.01]))
def test_every_plan_is_sound(
    waiting: list[Waiting[str, str]], max_batch: int, window_s: float
) -> None:
    """Each request is in one place; one group; in time, all of it; and the policy is never idle for nothing."""
    settings = BatchSettings(max_batch=max_batch, window_s=window_s)
    now = 5.0
    plan = plan_batch(waiting, now, expect, settings)
    assert len({id(w) for w in [*plan.batch, *plan.late]}) == len(plan.batch) + len(plan.late)
    assert len(plan.batch) <= max_batch
    assert len({w.group for w in plan.batch}) <= 1
    end = now + cost(len(plan.batch))
    assert all(w.deadline is None or w.deadline >= end for w in plan.batch)
    could = [w for w in plan.batch if w.due is not None and w.due >= now + cost(1)]
    assert all(w.due is None or w.due >= end for w in could)
    assert all(w.deadline is not None and w.deadline < now + cost(1) for w in plan.late)
    left = len(waiting) - len(plan.late)
    assert bool(plan.batch) == (left > 0 and plan.wait_until is None)
    if plan.wait_until is not None:
        assert now < plan.wait_until <= min(w.arrived for w in waiting) + window_s or window_s > 0


# ------------------------------------------------------------------------------------------- many robots


@pytest.mark.parametrize(("robots", "least"), [(1, 45.0), (4, 130.0), (16, 215.0), (64, 300.0)])
def test_robots_that_ask_at_once_share_the_policy(robots: int, least: float) -> None:
    """Answers a second: one robot is answered as if alone, sixteen nearly five times as often in all."""
    run = simulate(
        [Robot(name=f"r{i}") for i in range(robots)], cost, seconds=20.0, settings=SIXTEEN
    )
    assert run.answered / run.seconds >= least
    shares = [len(waits) for waits in run.waits.values()]
    assert len(shares) == robots
    assert max(shares) - min(shares) <= 2


def test_costs_are_found_out_on_the_way() -> None:
    """Without a warm-up the same is reached."""
    robots = [Robot(name=f"r{i}") for i in range(16)]
    run = simulate(robots, cost, seconds=20.0, settings=SIXTEEN, known=False)
    assert run.answered / run.seconds >= 210.0


@given(
    st.lists(
        st.builds(
            Robot,
            name=st.just("r"),
            first=st.floats(0.0, 1.0),
            every=st.none() | st.floats(0.05, 2.0),
            affords=st.none() | st.floats(0.0, 3.0),
            useful=st.none() | st.floats(0.05, 3.0),
            priority=st.sampled_from(list(PRIORITIES.values())),
        ),
        min_size=1,
        max_size=24,
    ),
    st.integers(1, 16),
)
def test_nobody_starves(robots: list[Robot], max_batch: int) -> None:
    """Whoever asks is answered within a bound, at the end too; no answer comes after its deadline.

    Left out are those who choose otherwise: who says that its answer is of use for so short a time only, and
    stock clients that ask without waiting for their answers.
    """
    for number, robot in enumerate(robots):
        robot.name = f"r{number}"
    settings = BatchSettings(max_batch=max_batch)
    run = simulate(robots, cost, seconds=12.0, settings=settings)
    assert run.missed == {}
    bound = 4.0 + 2 * cost(max_batch) * len(robots)
    for robot in robots:
        if robot.useful is None and (robot.every is None or robot.affords is not None):
            assert run.in_vain[robot.name] < bound


def test_who_is_refused_again_and_again_goes_up_a_class() -> None:
    """A robot that asks anew each time has waited since its first request in vain."""
    high = Waiting(item="high", session=1, arrived=100.0, ready=True, priority=0, due=100.3)
    low = Waiting(item="low", session=2, arrived=99.9, ready=True, priority=2, due=100.2)
    low.since = 95.0
    plan = plan_batch([high, low], 100.0, lambda _group, _size: 0.02, BatchSettings(max_batch=1))
    assert [waiting.item for waiting in plan.batch] == ["low"]


def test_under_overload_robots_are_served_alike() -> None:
    """Twice as many as can be served: each gets its share, late ones are told, and no batch is wasted."""
    robots = [
        Robot(name=f"r{i}", first=i / 97, every=0.1, affords=0.15, useful=0.15) for i in range(64)
    ]
    run = simulate(robots, cost, seconds=20.0, settings=SIXTEEN)
    shares = [len(run.waits.get(robot.name, [])) for robot in robots]
    assert run.missed == {}
    assert sum(shares) / run.seconds >= 250.0
    assert min(shares) >= 0.5 * max(shares)


def test_a_robot_with_little_time_is_not_kept_by_those_with_more() -> None:
    """Ten that afford a second, one that affords 60 ms: its answers are all in time."""
    robots = [Robot(name=f"r{i}", every=0.2, affords=1.0) for i in range(10)]
    quick = Robot(name="quick", first=0.013, every=0.1, affords=0.1)
    run = simulate([*robots, quick], cost, seconds=20.0, settings=SIXTEEN)
    assert run.held == {}
    assert len(run.waits["quick"]) >= 195


def test_classes() -> None:
    """While there is too much to do, high goes before low; low still gets something."""
    robots = [
        Robot(name=f"{name}{i}", priority=rank)
        for name, rank in PRIORITIES.items()
        for i in range(16)
    ]
    run = simulate(robots, cost, seconds=20.0, settings=SIXTEEN)
    assert run.median_wait("high0") < 0.12
    assert run.median_wait("low0") > run.median_wait("normal0") > run.median_wait("high0")
    assert len(run.waits["low0"]) >= 3
