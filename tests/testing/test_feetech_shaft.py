# SPDX-License-Identifier: Apache-2.0
"""How a shaft turns: within its speed and acceleration, to its goal and not beyond."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.testing.feetech_shaft import LIMP, Drive, MotorShaft


def test_without_torque_it_stays() -> None:
    """Time alone moves nothing."""
    shaft = MotorShaft(100.0)
    shaft.advance(10.0)
    assert (shaft.position, shaft.velocity) == (100.0, 0.0)
    assert repr(shaft) == "<MotorShaft 100.0 limp>"


@given(
    start=st.floats(0, 4095),
    target=st.floats(0, 4095),
    speed=st.floats(50, 3050),
    acceleration=st.floats(100, 25400),
    step=st.floats(0.001, 0.1),
)
def test_it_arrives_within_its_limits(
    start: float, target: float, speed: float, acceleration: float, step: float
) -> None:
    """Never faster than its speed, never beyond its goal, and there in the end."""
    shaft = MotorShaft(start)
    shaft.drive(Drive("position", target, speed, acceleration))
    now = 0.0
    low, high = sorted((start, target))
    for _ in range(50):
        before = shaft.position
        now += step
        shaft.advance(now)
        assert low - 1e-6 <= shaft.position <= high + 1e-6
        assert abs(shaft.position - before) <= speed * step * (1 + 1e-6)
    shaft.advance(now + abs(target - start) / speed + 2 * (speed / acceleration) + 20.0)
    assert shaft.position == pytest.approx(target, abs=0.01)


def test_it_takes_time_to_get_fast() -> None:
    """After a tenth of a second at 1000 ticks/s²: 100 ticks/s, and 5 ticks done."""
    shaft = MotorShaft(0.0)
    shaft.drive(Drive("position", 1000.0, 3000.0, 1000.0))
    shaft.advance(0.1)
    assert shaft.velocity == pytest.approx(100.0, rel=0.05)
    assert shaft.position == pytest.approx(5.0, rel=0.1)


def test_it_brakes_before_it_turns_back() -> None:
    """A goal behind it: it goes on for a while, then comes."""
    shaft = MotorShaft(0.0)
    shaft.drive(Drive("position", 4000.0, 1000.0, 2000.0))
    shaft.advance(1.0)
    assert shaft.velocity == pytest.approx(1000.0)
    turning = shaft.position

    shaft.drive(Drive("position", 0.0, 1000.0, 2000.0))
    shaft.advance(1.1)
    assert shaft.position > turning
    shaft.advance(10.0)
    assert shaft.position == 0.0
    assert shaft.velocity == 0.0


@pytest.mark.parametrize(("wanted", "reached"), [(500.0, 500.0), (-5000.0, -1000.0)])
def test_velocity(wanted: float, reached: float) -> None:
    """It turns on and on, at most at its speed."""
    shaft = MotorShaft(0.0)
    shaft.drive(Drive("velocity", wanted, 1000.0, 10_000.0))
    shaft.advance(1.0)
    first = shaft.position
    shaft.advance(2.0)
    assert shaft.velocity == reached
    assert shaft.position - first == pytest.approx(reached)


def test_time_does_not_run_back() -> None:
    """An older moment changes nothing; torque that goes stops it at once."""
    shaft = MotorShaft(0.0)
    shaft.drive(Drive("velocity", 100.0, 1000.0, 1e6))
    shaft.advance(1.0)
    before = shaft.position
    shaft.advance(0.5)
    assert shaft.position == before
    shaft.drive(LIMP)
    shaft.advance(5.0)
    assert (shaft.position, shaft.velocity) == (before, 0.0)
