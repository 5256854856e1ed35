# SPDX-License-Identifier: Apache-2.0
"""Units and signs: there and back, and numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.errors import ConfigError, ObservationError
from pi05_websocket.presets import PRESETS, SO101_JOINTS
from pi05_websocket.units import UNIT_SYSTEMS, JointUnits, UnitMap, unit_map

REACH = (-110.0, 110.0)
RANGES = dict.fromkeys(SO101_JOINTS, REACH)
UNITS = ("degrees", "radians", "normalized", "percent", "fraction")


def one(**facts: Any) -> UnitMap:
    """Return a map of one joint."""
    return UnitMap([JointUnits(**{"name": "elbow", "range_degrees": REACH, **facts})])


@pytest.mark.parametrize(
    ("robot", "policy", "there", "here"),
    [
        ("degrees", "degrees", 12.5, 12.5),
        ("degrees", "radians", 180.0, math.pi),
        ("radians", "degrees", math.pi / 2, 90.0),
        ("degrees", "normalized", 55.0, 50.0),  # half of the way to 110
        ("normalized", "degrees", -100.0, -110.0),
        ("percent", "fraction", 25.0, 0.25),
        ("percent", "normalized", 25.0, -50.0),
        ("fraction", "radians", 0.5, 0.0),  # the middle of the range
        ("percent", "degrees", 100.0, 110.0),
    ],
)
def test_numbers_by_hand(robot: str, policy: str, there: float, here: float):
    """A joint that reaches from -110 to 110 degrees."""
    made = one(robot=robot, policy=policy).to_policy(np.array([there], np.float32))

    assert made.dtype == np.float32
    assert made[0] == pytest.approx(here, abs=1e-5)


def test_signs_and_offsets_come_last():
    """In the policy's unit: a joint counted the other way round, from another zero."""
    turned = one(robot="degrees", policy="radians", sign=-1, offset=math.pi)

    assert turned.to_policy(np.array([90.0], np.float32))[0] == pytest.approx(math.pi / 2)
    assert turned.to_robot(np.array([math.pi], np.float32))[0] == pytest.approx(0.0, abs=1e-5)


def test_an_uneven_range():
    """LeIsaac's elbow reaches from -100 to 90 degrees: its -100..100 has its zero at -5."""
    elbow = one(robot="radians", policy="normalized", range_degrees=(-100.0, 90.0))

    found = elbow.to_policy(np.radians(np.array([[-100.0], [-5.0], [90.0]])))

    assert found[:, 0] == pytest.approx([-100, 0, 100], abs=1e-4)


@given(
    robot=st.sampled_from(UNITS),
    policy=st.sampled_from(UNITS),
    sign=st.sampled_from([1, -1]),
    offset=st.floats(-200, 200),
    low=st.floats(-180, -1),
    high=st.floats(1, 180),
    fractions=st.lists(st.floats(-0.2, 1.2), min_size=1, max_size=4),
)
def test_there_and_back(
    robot: str,
    policy: str,
    sign: int,
    offset: float,
    low: float,
    high: float,
    fractions: list[float],
):
    """Whatever the units, a target comes back as what was measured, within a thousandth of the range."""
    facts = {"sign": sign, "offset": offset, "range_degrees": (low, high)}
    made = one(robot=robot, policy=policy, **facts)
    in_robot = one(robot="fraction", policy=robot, range_degrees=(low, high))
    values = in_robot.to_policy(np.array(fractions, np.float32)[:, None])

    back = made.to_robot(made.to_policy(values))

    span = abs(float(np.ptp(in_robot.to_policy(np.array([[0.0], [1.0]], np.float32)))))
    assert np.abs(back - values).max() <= 1e-3 * span
    assert back.shape == values.shape


def test_the_same_units_touch_nothing():
    """Then there is nothing to convert, not even a rounding."""
    assert unit_map(SO101_JOINTS, robot="lerobot", policy="lerobot").identity
    assert repr(one(robot="radians", policy="radians")) == "<UnitMap as it is>"


def test_a_whole_arm_by_names():
    """Systems, single joints, signs and offsets, with LeRobot's joint names or without `.pos`."""
    arm = unit_map(
        [f"{joint}.pos" for joint in SO101_JOINTS],
        robot="lerobot",
        policy="radians",
        policy_units={"gripper": "fraction"},
        signs={"wrist_roll": -1},
        offsets={"elbow_flex.pos": 1.0},
        ranges_degrees=RANGES,
    )

    found = arm.to_policy(np.array([180, 90, 0, -90, 90, 50], np.float32))

    half = math.pi / 2
    assert found == pytest.approx([math.pi, half, 1.0, -half, -half, 0.5], abs=1e-5)
    assert repr(arm) == "<UnitMap 6 joints>"
    lines = arm.table().splitlines()
    assert lines[0].split() == ["joint", "robot", "policy", "policy", "="]
    assert lines[1].startswith("shoulder_pan   degrees     radians     0.0174533 * robot +0")
    assert lines[-1].startswith("gripper        percent     fraction    0.01 * robot +0")


def test_a_joint_that_stays_says_so():
    """In the table."""
    arm = unit_map(["a", "b"], robot="degrees", policy="degrees", signs={"a": -1})

    assert arm.table().splitlines()[2].split() == ["b", "degrees", "degrees", "robot"]


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"robot": "turns"}, "unknown units 'turns': expected lerobot"),
        ({"robot_units": {"knee": "degrees"}}, r"no joint \['knee'\]; there are a, b"),
        ({"policy_units": {"a": "turns"}}, "joint 'a': unknown unit 'turns'"),
        ({"signs": {"a": 2}}, "joint 'a': sign=2: expected 1 or -1"),
        ({"offsets": {"a": float("nan")}}, "joint 'a': offset=nan"),
        ({"policy": "normalized"}, "degrees and normalized need the joint's range in degrees"),
        ({"ranges_degrees": {"a": (10.0, -10.0)}}, "expected low < high"),
    ],
)
def test_what_cannot_be_converted_is_refused(facts: dict[str, Any], told: str):
    """By its joint's name."""
    with pytest.raises(ConfigError, match=told):
        unit_map(["a", "b"], **{"robot": "degrees", "policy": "radians", **facts})


def test_units_of_nothing_are_refused():
    """A key map that knows no joints cannot say which number is which."""
    with pytest.raises(ConfigError, match="joint_names"):
        unit_map([], robot="degrees", policy="radians")


def test_another_number_of_joints_is_refused():
    """Both ways, whatever the number of rows."""
    arm = unit_map(["a", "b"], robot="degrees", policy="radians")

    with pytest.raises(ObservationError, match="2 joints, whose units are set: a, b"):
        arm.to_policy(np.zeros(3, np.float32))
    with pytest.raises(ObservationError, match="actions"):
        arm.to_robot(np.zeros((4, 1), np.float32))


def test_presets_name_systems_that_exist():
    """So that what is said of a preset can be converted."""
    named = {
        key_map.name: key_map.unit_system for key_map in PRESETS.values() if key_map.unit_system
    }

    assert named == {"so100_phospho": "radians", "so101_leisaac": "lerobot_normalized"}
    assert set(named.values()) <= set(UNIT_SYSTEMS)
