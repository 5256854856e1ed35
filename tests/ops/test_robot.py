# SPDX-License-Identifier: Apache-2.0
"""One robot's past and the figures of its last seconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from told import answered, opened, refused

from pi05_websocket.ops.robot import Robot, Split, quantile


def a_robot(*times: float, since: float = 0.0, **changes: float) -> Robot:
    """One whose requests were answered at these times."""
    robot = Robot(opened(), since)
    for at in times:
        robot.add(answered(at, **changes))
    return robot


def test_one_that_has_not_asked() -> None:
    """Everything about requests is unknown or nothing."""
    figures = a_robot().figures(3.0)
    assert (figures.connected_s, figures.silent_s, figures.total) == (3.0, 3.0, 0)
    assert (figures.gap_s, figures.split, figures.p50_ms, figures.batch) == (None,) * 4
    assert (figures.due_ms, figures.per_second, figures.bytes_in) == (None, 0.0, 0)
    assert repr(a_robot()) == "<Robot 1 arm requests=0>"


def test_the_round_trip_is_split() -> None:
    """Network both ways, queue, model, and what is left."""
    robot = a_robot(99.0, 99.5, age_ms=20.0, batch=2, due_ms=200.0)
    figures = robot.figures(100.0)
    assert figures.split == Split(network=40.0, queue=10.0, model=50.0, rest=1.0)
    assert figures.split.total == 101.0
    assert (figures.p50_ms, figures.p99_ms, figures.batch) == (101.0, 101.0, 2.0)
    assert (figures.due_ms, figures.missed, figures.gap_s) == (200.0, 0, pytest.approx(0.5))
    assert a_robot(99.0, batch=0).figures(100.0).batch is None  # at a gateway


@pytest.mark.parametrize("age_ms", [None, 0.0])
def test_a_stock_clients_network_is_unknown(age_ms: float | None) -> None:
    """It does not say; and one that has no estimate yet says 0."""
    figures = a_robot(99.0, age_ms=age_ms).figures(100.0)
    assert figures.split is not None
    assert (figures.split.network, figures.split.total) == (None, 61.0)


def test_counts_are_of_the_last_seconds() -> None:
    """What was a minute ago does not count, unless nothing else is known."""
    robot = Robot(opened(), 0.0)
    robot.add(refused("KeyError: 'x'", 10.0, outcome="failed"))
    for i in range(8):
        robot.add(answered(92.0 + i, due_ms=50.0 if i < 2 else 100.0))
    robot.add(refused("busy", 99.5))
    robot.add(refused("superseded", 99.6))
    figures = robot.figures(100.0)
    assert (figures.asked, figures.answered, figures.missed, figures.failed) == (10, 8, 2, 0)
    assert figures.refused == {"busy": 1, "superseded": 1}
    assert figures.total == 11
    assert figures.per_second == 1.0
    assert (robot.figures(200.0).asked, robot.figures(200.0).per_second) == (5, 0.0)


def test_the_rate_of_one_that_has_just_come() -> None:
    """It is divided by the time it is here, not by ten seconds; and never by less than one."""
    assert a_robot(1.0, 2.0, 3.0, 4.0, since=0.0).figures(4.0).per_second == 1.0
    assert a_robot(0.1, 0.2).figures(0.2).per_second == 2.0


def test_a_fast_robots_rate_is_that_of_what_is_remembered() -> None:
    """At 100 requests a second the memory holds three seconds."""
    robot = a_robot(*(i / 100 for i in range(2000)))
    assert robot.figures(20.0).per_second == pytest.approx(100.0, rel=0.01)


def test_errors_are_told_once_each() -> None:
    """The same reason again is counted; what is superseded is no error; five reasons are kept."""
    robot = Robot(opened(), 0.0)
    robot.add(refused("superseded", 1.0))
    for i in range(7):
        robot.add(refused(f"Error{i}: x", 2.0 + i, outcome="failed"))
    robot.add(refused("Error5: x", 20.0, outcome="failed"))
    errors = robot.figures(21.0).errors
    assert [error.words[-8:-3] for error in errors] == ["rror5", "rror6", "rror4", "rror3", "rror2"]
    assert (errors[0].times, errors[0].at) == (2, pytest.approx(20.0))


def test_waiting_begins_when_it_is_seen_and_ends_with_an_answer() -> None:
    """A request that waits is no record yet: the server is asked for it."""
    robot = a_robot(1.0)
    robot.see(1, 5.0)
    robot.see(2, 9.0)
    assert robot.figures(10.0).waiting_s == 5.0
    robot.add(answered(10.0))
    assert robot.figures(11.0).waiting_s is None
    robot.see(1, 12.0)
    robot.see(0, 13.0)
    assert robot.figures(14.0).waiting_s is None


@given(st.lists(st.floats(0, 1000), min_size=1), st.floats(0.01, 0.99))
def test_quantiles_are_values(values: list[float], share: float) -> None:
    """The value at a quantile is one of them, and at least that share is at most it."""
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)


def test_nothing_has_no_quantile() -> None:
    """Not 0."""
    assert quantile([], 0.5) is None


@given(
    st.lists(
        st.tuples(
            st.floats(0, 60),
            st.sampled_from(["answered", "refused", "failed"]),
            st.floats(0, 5000),
            st.none() | st.floats(0, 1000),
        ),
        max_size=60,
    )
)
def test_figures_hold_together(asked: list[tuple[float, str, float, float | None]]) -> None:
    """Whatever a robot did, parts are no more than the whole and nothing is negative."""
    robot = Robot(opened(), 0.0)
    for at, outcome, total_ms, age_ms in sorted(asked, key=lambda one: one[0]):
        make = answered(at, total_ms=total_ms, age_ms=age_ms, due_ms=100.0)
        if outcome != "answered":
            make = refused("busy", at, outcome=outcome, total_ms=total_ms, age_ms=age_ms)
        robot.add(make)
    figures = robot.figures(60.0)
    assert figures.missed <= figures.answered <= figures.asked <= figures.total == len(asked)
    assert figures.answered + figures.failed + sum(figures.refused.values()) == figures.asked
    if figures.split is not None:
        assert min(figures.split.queue, figures.split.model, figures.split.rest) >= 0
    if figures.p50_ms is not None and figures.p99_ms is not None:
        assert figures.p50_ms <= figures.p99_ms
