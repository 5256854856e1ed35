# SPDX-License-Identifier: Apache-2.0
"""Motion begins where the arm is, and never faster than allowed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pi05_websocket.chunks.resume import Approach, ResumeConfig
from pi05_websocket.errors import ConfigError

ROWS = np.arange(20, dtype=np.float32)[:, None] * np.array([1.0, 2.0], np.float32)
"""One unit a tick for the first joint, two for the second."""


def begin(config: ResumeConfig, pose: list[float], *, row: int = 0) -> tuple[Approach, float]:
    """Begin at a measured pose."""
    approach = Approach(config)
    measured = np.array(pose, np.float32)
    return approach, approach.begin(ROWS, row, commanded=None, measured=measured)


def test_a_plan_that_begins_here_is_executed_as_it_is():
    """As far off as it moves in a tick is near enough."""
    approach, jump = begin(ResumeConfig(), [1.0, -2.0])

    assert jump == 0
    assert not approach.active
    assert approach.follow(ROWS[0]) is not None
    assert np.array_equal(approach.follow(ROWS[0]), ROWS[0])


def test_a_plan_that_begins_elsewhere_is_approached():
    """At the plan's own speed and a tenth more, or what it takes to be there within a second."""
    approach, jump = begin(ResumeConfig(max_ticks=30), [-60.0, 0.0])

    assert jump == 60
    assert approach.ticks(ROWS[0]) == 30
    commands = [approach.follow(ROWS[min(i, 19)]) for i in range(60)]
    steps = np.diff([[-60.0, 0.0], *[c.tolist() for c in commands]], axis=0)
    assert np.abs(steps[:, 0]).max() == pytest.approx(2.0)
    assert np.abs(steps[:, 1]).max() == pytest.approx(2.0)
    assert not approach.active
    assert approach.ticks(ROWS[19]) == 0
    assert commands[-1].tolist() == ROWS[19].tolist()


def test_a_joint_that_the_plan_keeps_takes_no_time():
    """It is where it is to be, and its own speed is none."""
    rows = np.array([[0.0, 7.0], [1.0, 7.0], [2.0, 7.0]], np.float32)
    approach = Approach(ResumeConfig(max_ticks=10))
    pose = np.array([20.0, 7.0], np.float32)

    approach.begin(rows, 0, commanded=None, measured=pose)

    assert approach.ticks(rows[0]) == 10
    assert approach.follow(rows[0]).tolist() == [18.0, 7.0]


def test_given_bounds_are_kept():
    """Settings in degrees and degrees per tick replace the plan's own."""
    near, jump = begin(ResumeConfig(max_jump=(70.0,)), [-60.0, 0.0])
    far, off = begin(ResumeConfig(max_jump=(5.0, 5.0), max_velocity=(0.5, 0.5)), [-6.0, 0.0])

    assert (near.active, jump) == (False, 0)
    assert (far.active, off) == (True, 6)
    assert far.follow(ROWS[0]).tolist() == [-5.5, 0.0]


def test_bounds_in_other_units():
    """For numbers that are scaled, joint by joint; what is the chunk's own stays so."""
    config = ResumeConfig(max_jump=(2.0,), max_ticks=7)

    assert config.scaled(np.array([3.0, -0.5])) == ResumeConfig(max_jump=(6.0, 1.0), max_ticks=7)


@pytest.mark.parametrize(
    ("commanded", "measured", "first"),
    [
        ([30.0, 0.0], None, [28.0, 0.0]),
        # it hangs below its target: from the target
        ([30.0, 0.0], [27.0, 0.0], [28.0, 0.0]),
        # it was pushed away: from where it is
        ([30.0, 0.0], [60.0, 0.0], [58.0, 0.0]),
    ],
)
def test_begins_where_the_arm_is(
    commanded: list[float], measured: list[float] | None, first: list[float]
):
    """The held target, unless the arm is somewhere else."""
    approach = Approach(ResumeConfig(max_velocity=(2.0,)))

    approach.begin(
        ROWS,
        0,
        commanded=np.array(commanded, np.float32),
        measured=None if measured is None else np.array(measured, np.float32),
    )

    assert approach.follow(ROWS[0]).tolist() == first


def test_nothing_to_compare_with():
    """Without a pose the plan is all there is."""
    approach = Approach(ResumeConfig())

    assert approach.begin(ROWS, 3, commanded=None, measured=None) == 0
    assert not approach.active


@given(
    pose=arrays(np.float32, 2, elements=st.floats(-180, 180, width=32)),
    rows=arrays(np.float32, (12, 2), elements=st.floats(-180, 180, width=32)),
    row=st.integers(0, 11),
)
def test_never_faster_than_allowed(pose: np.ndarray, rows: np.ndarray, row: int):
    """Whatever plan, whatever pose: each step is within the bound, and it arrives."""
    approach = Approach(ResumeConfig(max_jump=(1.0,), max_velocity=(2.0,)))
    approach.begin(rows, row, commanded=None, measured=pose)
    at, was_active = pose, approach.active
    for _ in range(400):
        command = approach.follow(rows[row])
        if was_active:
            assert (np.abs(command - at) <= 2.0 + 1e-3).all()
        at = command

    assert not approach.active
    assert np.array_equal(at, rows[row])


@pytest.mark.parametrize(
    "bad", [{"max_ticks": 0}, {"max_jump": (0.0,)}, {"max_velocity": (-1.0,)}, {"max_jump": ()}]
)
def test_impossible_bounds_are_refused(bad: dict[str, object]):
    """Settings are checked when they are made."""
    with pytest.raises(ConfigError):
        ResumeConfig(**bad)  # type: ignore[arg-type]


def test_a_plan_of_one_row_has_no_speed():
    """It is approached within the time there is for that."""
    approach = Approach(ResumeConfig(max_ticks=10))
    row = np.array([[20.0]], np.float32)

    approach.begin(row, 0, commanded=None, measured=np.zeros(1, np.float32))

    assert approach.follow(row[0]).tolist() == [2.0]
