# SPDX-License-Identifier: Apache-2.0
"""How the emulated arm is put together: ticks, joints, and the calibration file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.sim.arm import GRIPPER, HOME, JOINTS, LOWER, UPPER
from pi05_websocket.testing.so101_calibration import (
    arm_calibration,
    calibrated_servos,
    to_encoder,
    to_joints,
    write_calibration,
)

shares = st.lists(st.floats(0, 1), min_size=6, max_size=6)


@given(shares=shares)
def test_joints_round_trip(shares: list[float]) -> None:
    """Every pose the arm can take comes back from its encoders."""
    joints = LOWER + np.array(shares) * (UPPER - LOWER)
    assert to_joints(to_encoder(joints)) == pytest.approx(joints, abs=1e-9)


def test_beyond_the_limits_is_the_limit() -> None:
    """A goal no joint can reach is its end."""
    far = to_encoder(np.full(6, 1000.0))
    assert to_joints(far) == pytest.approx(UPPER)


def test_file_is_lerobots(tmp_path: Path) -> None:
    """Joint by joint in LeRobot's order, whole numbers, nothing else left in the folder."""
    path = tmp_path / "deep" / "emulated.json"
    write_calibration(path)
    content = json.loads(path.read_text())
    assert tuple(content) == JOINTS
    assert content["shoulder_pan"] == {
        "id": 1, "drive_mode": 0, "homing_offset": -312, "range_min": 795, "range_max": 3299,
    }  # fmt: skip
    assert content["wrist_roll"]["range_max"] == 4095
    assert [one.name for one in path.parent.iterdir()] == ["emulated.json"]


def test_middle_of_the_range_is_zero() -> None:
    """As LeRobot computes degrees; the gripper's ends are its ends."""
    zeros = np.zeros(6)
    for index, (name, joint) in enumerate(arm_calibration().items()):
        encoder = to_encoder(zeros)[index] - joint.homing_offset
        if index == GRIPPER:
            assert encoder == pytest.approx(joint.range_min, abs=1), name
        else:
            assert encoder == (joint.range_min + joint.range_max) / 2, name


def test_servos_begin_at_rest() -> None:
    """Shafts where the arm lies folded, registers as the file says."""
    servos = calibrated_servos()
    assert [servo.shaft.position for servo in servos] == pytest.approx(to_encoder(HOME).tolist())
    assert [servo.memory["Homing_Offset"] for servo in servos] == [
        joint.homing_offset for joint in arm_calibration().values()
    ]
