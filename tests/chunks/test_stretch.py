# SPDX-License-Identifier: Apache-2.0
"""A plan at a fraction of its speed goes the same way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.chunks.stretch import check_speed, stretched
from pi05_websocket.errors import ConfigError

ROWS = np.array([[10.0, 1.0], [20.0, 1.0], [40.0, 0.0]], np.float32)
START = np.array([0.0, 1.0], np.float32)


def test_full_speed_is_the_chunk_itself():
    """Nothing is touched."""
    assert stretched(ROWS, 1.0, action_kind="absolute", start=START) is ROWS


def test_half_the_speed_is_twice_the_rows():
    """From where the arm was, through every row, to the last one."""
    made = stretched(ROWS, 0.5, action_kind="absolute", start=START)

    assert made[:, 0].tolist() == [5, 10, 15, 20, 30, 40]
    assert made[:, 1].tolist() == [1, 1, 1, 1, 0.5, 0]


def test_without_a_start_it_begins_at_the_first_row():
    """A state that is no pose cannot be interpolated from."""
    made = stretched(ROWS, 0.5, action_kind="absolute", start=None)

    assert made[:, 0].tolist() == [10, 10, 15, 20, 30, 40]


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("delta", [5, 5, 10, 10, 20, 20]),
        ("velocity", [5, 5, 10, 10, 20, 20]),
        ("torque", [10, 10, 20, 20, 40, 40]),
    ],
)
def test_what_is_no_target_is_repeated(kind: str, first: list[float]):
    """Slower where that is slower; the gripper is a target in all of them."""
    made = stretched(ROWS, 0.5, action_kind=kind, start=START)  # type: ignore[arg-type]

    assert made[:, 0].tolist() == first
    assert made[:, 1].tolist() == [1, 1, 1, 1, 0, 0]


@given(speed=st.floats(0.05, 0.999), rows=st.integers(1, 12))
def test_never_faster_and_never_elsewhere(speed: float, rows: int):
    """No step is larger than the speed allows, and it ends where the plan ends."""
    plan = np.cumsum(np.ones((rows, 1), np.float32), axis=0)

    made = stretched(plan, speed, action_kind="absolute", start=np.zeros(1, np.float32))

    steps = np.diff(np.concatenate([[[0.0]], made]), axis=0)
    assert (steps >= -1e-4).all()
    assert (steps <= speed + 1e-4).all()
    assert made[-1, 0] == pytest.approx(rows, abs=1e-4)


@given(speed=st.floats(0.05, 1.0), rows=st.integers(1, 12))
def test_deltas_go_as_far_in_all(speed: float, rows: int):
    """However the rows are cut, their sum is what the policy wanted, and each is the smaller."""
    plan = np.ones((rows, 2), np.float32)

    made = stretched(plan, speed, action_kind="delta", start=None)

    assert made[:, 0].sum() == pytest.approx(rows, abs=1e-3)
    assert made[:, 0].max() <= speed + 1e-4
    assert (made[:, 1] == 1).all()


@pytest.mark.parametrize("speed", [0.0, -1.0, 1.5, float("nan")])
def test_only_slower(speed: float):
    """A policy's motion is never made faster."""
    with pytest.raises(ConfigError, match="speed_scale"):
        check_speed(speed)
