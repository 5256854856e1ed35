# SPDX-License-Identifier: Apache-2.0
"""No command beyond a joint's range, speed or reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pi05_websocket.errors import ConfigError
from pi05_websocket.robot.limits import (
    Limits,
    LimitsConfig,
    angles_from_calibration,
    ranges_from_calibration,
)

HZ = 10.0
LAST = np.array([0.0, 0.0, 50.0], np.float32)
WANTED = np.array([20.0, -3.0, 90.0], np.float32)


def apply(kind: str, config: dict[str, Any], **changed: Any) -> tuple[list[float], tuple[str, ...]]:
    """Ask for WANTED after LAST at ten ticks a second."""
    limits = Limits(LimitsConfig(**config), kind, HZ)  # type: ignore[arg-type]
    facts = {"last": LAST, "measured": LAST, **changed}
    values, named = limits.apply(WANTED, **facts)
    return values.tolist(), named


@pytest.mark.parametrize(
    ("kind", "config", "changed", "values", "named"),
    [
        ("absolute", {}, {}, [20, -3, 90], ()),
        ("absolute", {"low": (-1.0,)}, {}, [20, -1, 90], ("joint_limits",)),
        ("absolute", {"high": (5.0, 5.0, 100.0)}, {}, [5, -3, 90], ("joint_limits",)),
        ("absolute", {"max_step": (10.0,)}, {}, [10, -3, 60], ("max_step",)),
        # nobody knows how far it would be: no farther than before
        ("absolute", {"max_step": (10.0,)}, {"measured": None}, [0, 0, 50], ("max_step",)),
        ("absolute", {"max_velocity": (50.0,)}, {}, [5, -3, 55], ("max_velocity",)),
        # a loop that was late by a tick may go twice as far
        ("absolute", {"max_velocity": (50.0,)}, {"ticks": 2}, [10, -3, 60], ("max_velocity",)),
        # before the first command from where the arm is
        ("absolute", {"max_velocity": (50.0,)}, {"last": None}, [5, -3, 55], ("max_velocity",)),
        ("absolute", {"max_velocity": (50.0,)}, {"last": None, "measured": None}, [20, -3, 90], ()),
        # an arm outside of its range comes back no faster than allowed
        (
            "absolute",
            {"high": (-30.0, 100.0, 100.0), "max_velocity": (50.0,)},
            {},
            [-5, -3, 55],
            ("joint_limits", "max_velocity"),
        ),
        # the last value, the gripper, is a target
        ("delta", {"max_velocity": (50.0,)}, {}, [5, -3, 90], ("max_velocity",)),
        ("velocity", {"max_velocity": (10.0,)}, {}, [10, -3, 90], ("max_velocity",)),
        (
            "torque",
            {"max_velocity": (1.0,), "max_step": (1.0,), "low": (0.0,)},
            {},
            [20, -3, 90],
            (),
        ),
    ],
)
def test_limits_by_kind(
    kind: str, config: dict[str, Any], changed: dict[str, Any], values: list[float], named: Any
):
    """Each limit is applied where it means something, and says that it was."""
    assert apply(kind, config, **changed) == (values, named)


@pytest.mark.parametrize(
    "config",
    [
        {"max_velocity": (0.0,)},
        {"max_velocity": ()},
        {"max_step": (1.0, -1.0)},
        {"low": (1.0,), "high": (1.0,)},
        {"low": (float("nan"),)},
        {"high": ()},
        {"low": (0.0, 0.0), "high": (1.0, 1.0, 1.0)},
    ],
)
def test_impossible_limits_are_refused(config: dict[str, Any]):
    """Before anything moves."""
    with pytest.raises(ConfigError):
        LimitsConfig(**config)


def test_limits_say_what_they_are():
    """In logs and debuggers."""
    limits = Limits(LimitsConfig(max_step=(5.0,)), "absolute", HZ)

    assert "max_step=(5.0,)" in repr(limits)


def test_limits_in_other_units():
    """For numbers that are scaled, shifted and turned round: an upper end becomes a lower one."""
    limits = LimitsConfig(low=(-10.0,), high=(20.0, 30.0), max_velocity=(4.0,), max_step=(1.0, 2.0))

    made = limits.converted(np.array([2.0, -1.0]), np.array([0.0, 100.0]))

    assert (made.low, made.high) == ((-20.0, 70.0), (40.0, 110.0))
    assert made.max_velocity == (8.0, 4.0)
    assert made.max_step == (2.0, 2.0)


@pytest.mark.parametrize(
    ("config", "low", "high"),
    [
        ({}, None, None),
        ({"high": (5.0,)}, (-np.inf, -5.0), (5.0, np.inf)),
        ({"low": (5.0,)}, (5.0, -np.inf), (np.inf, -5.0)),
    ],
)
def test_no_limit_stays_none(config: dict[str, Any], low: Any, high: Any):
    """Where a joint is turned round, the open end is on the other side."""
    made = LimitsConfig(**config).converted(np.array([1.0, -1.0]), np.zeros(2))

    assert (made.low, made.high) == (low, high)


def test_angles_of_a_calibration_file():
    """The gripper's too."""
    read = {"gripper": {"range_min": 1000, "range_max": 3000}}

    found = angles_from_calibration(read, ["gripper.pos"])

    assert found == {"gripper": pytest.approx((-1000 * 360 / 4095, 1000 * 360 / 4095))}
    with pytest.raises(ConfigError, match="no motor 'elbow'; it has gripper"):
        angles_from_calibration(read, ["elbow"])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "none of ours: only the robot's own"),
        ({"max_step": (5.0, 5.0), "max_velocity": (60.0,)}, "max_velocity 60; max_step 5"),
        ({"low": (-1.0, -2.0), "high": (1.0, 2.5)}, "pan -1..1, lift -2..2.5"),
        ({"high": (1.0,)}, "joint 0 -inf..1"),
    ],
)
def test_limits_in_words(config: dict[str, Any], words: str):
    """For the summary a person reads before anything moves."""
    assert LimitsConfig(**config).words(["pan.pos", "lift.pos"]) == words


def test_as_many_limits_as_joints():
    """One for all or one for each; anything else is a mistake."""
    LimitsConfig(low=(0.0,), high=(1.0,) * 6).check(6)

    with pytest.raises(ConfigError, match="high has 5 values, an action 6"):
        LimitsConfig(high=(1.0,) * 5).check(6)


finite = st.floats(-1e4, 1e4, width=32)


@given(
    values=arrays(np.float32, 3, elements=finite),
    last=arrays(np.float32, 3, elements=finite),
    measured=arrays(np.float32, 3, elements=finite),
    speed=st.floats(0.1, 1000.0),
    ticks=st.integers(1, 4),
)
def test_speed_is_kept_whatever_is_wanted(
    values: np.ndarray, last: np.ndarray, measured: np.ndarray, speed: float, ticks: int
):
    """No joint goes further than its speed allows, but to stay near the arm; and never to a NaN."""
    ranges = LimitsConfig(max_velocity=(speed,), max_step=(7.0,), low=(-100.0,), high=(100.0,))

    out, _ = Limits(ranges, "absolute", HZ).apply(values, last=last, measured=measured, ticks=ticks)

    slow = np.abs(out - last) <= speed / HZ * ticks * (1 + 1e-5) + 1e-2
    at_its_reach = np.abs(np.abs(out - measured) - 7.0) < 1e-2
    assert np.isfinite(out).all()
    assert (slow | at_its_reach).all()
    assert (np.abs(out - measured) <= 7.0 * (1 + 1e-5) + 1e-2).all()


def test_what_is_held_gives_way_to_a_push():
    """No farther from the arm than it may be; without such a limit it presses on."""
    held, pushed = np.array([10.0], np.float32), np.array([30.0], np.float32)

    soft = Limits(LimitsConfig(max_step=(5.0,)), "absolute", HZ)
    stiff = Limits(LimitsConfig(), "absolute", HZ)

    assert soft.hold(held, pushed) == (np.array([25.0]), ("max_step",))
    assert stiff.hold(held, pushed) == (held, ())
    assert (soft.needs_pose, stiff.needs_pose) == (True, False)


CALIBRATION = {
    "shoulder_pan": {"id": 1, "range_min": 1000, "range_max": 3000},
    "gripper": {"id": 6, "range_min": 2000, "range_max": 3400},
}


def test_ranges_of_a_calibration_file():
    """Degrees count from the middle of the range; a gripper goes from 0 to 100."""
    ranges = ranges_from_calibration(CALIBRATION, ["shoulder_pan.pos", "gripper"])

    assert ranges[0] == pytest.approx((-87.9, 87.9), abs=0.05)
    assert ranges[1] == (0.0, 100.0)


def test_ranges_of_an_older_lerobot():
    """Before 0.4.4 the range was -100 to 100."""
    ranges = ranges_from_calibration(CALIBRATION, ["shoulder_pan"], degrees=False)

    assert ranges == ((-100.0, 100.0),)


@pytest.mark.parametrize(
    ("calibration", "text"),
    [
        ({}, "no motor 'gripper'"),
        ({"gripper": {}}, "no range"),
        ({"gripper": {"range_min": 5, "range_max": 5}}, "empty range"),
    ],
)
def test_useless_calibrations_are_refused(calibration: dict[str, Any], text: str):
    """With the joint's name."""
    with pytest.raises(ConfigError, match=text):
        ranges_from_calibration(calibration, ["gripper.pos"])
