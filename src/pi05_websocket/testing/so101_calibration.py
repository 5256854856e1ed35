# SPDX-License-Identifier: Apache-2.0
"""How the emulated SO-101 is assembled and calibrated: encoder ticks, degrees, and LeRobot's calibration file.

In: joints in LeRobot's units, or encoder ticks. Out: the other, and the file that LeRobot reads at its start.
Where a shaft's encoder says zero is an accident of assembly, as in every arm; the homing offset is its cure.
Source: LeRobot's `SOFollower.calibrate`: mid-pose at tick 2047, a whole turn as the range of the wrist's roll.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pi05_websocket.sim.arm import GRIPPER, HOME, JOINTS, LOWER, UPPER, Float64Array
from pi05_websocket.testing.feetech_servo import Servo
from pi05_websocket.testing.feetech_shaft import TICKS, MotorShaft, Shaft

__all__ = [
    "JointCalibration",
    "arm_calibration",
    "calibrated_servos",
    "to_encoder",
    "to_joints",
    "write_calibration",
]

_TICKS_PER_DEGREE = TICKS / 360.0
_MIDDLE = 2047
_ROLL = 4

_OFFSETS = (-312, 871, -1204, 455, 1689, -27)
"""Encoder minus register, ticks, by joint: as six horns happened to be put on."""

_JAW_DEGREES = 110.0
"""Between a closed gripper, 0 percent, and an open one."""


@dataclass(frozen=True, slots=True)
class JointCalibration:
    """One joint, in the fields of LeRobot's file."""

    id: int
    drive_mode: int
    homing_offset: int
    """Encoder minus register, ticks."""
    range_min: int
    range_max: int
    """Ends of the motion in registers, ticks."""


def arm_calibration() -> dict[str, JointCalibration]:
    """Return the emulated arm's calibration, joint name to calibration, in LeRobot's order."""
    calibration = {}
    for joint, name in enumerate(JOINTS):
        degrees = _JAW_DEGREES / 2 if joint == GRIPPER else UPPER[joint]
        reach = round(degrees * _TICKS_PER_DEGREE)
        low, high = (0, TICKS - 1) if joint == _ROLL else (_MIDDLE - reach, _MIDDLE + reach)
        calibration[name] = JointCalibration(joint + 1, 0, _OFFSETS[joint], low, high)
    return calibration


def write_calibration(path: Path) -> None:
    """Write the emulated arm's calibration file; LeRobot looks for `<calibration_dir>/<id>.json`."""
    content = {name: asdict(joint) for name, joint in arm_calibration().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    os.replace(draft, path)


def _mechanics() -> tuple[Float64Array, Float64Array]:
    """Return the encoder at 0 of LeRobot's unit, and ticks for one unit, `(6,)` each."""
    zero = np.array(_OFFSETS, np.float64) + _MIDDLE
    zero[_ROLL] += 0.5  # the middle of a whole turn
    scale = np.full(len(JOINTS), _TICKS_PER_DEGREE)
    scale[GRIPPER] = _JAW_DEGREES / 100.0 * _TICKS_PER_DEGREE
    zero[GRIPPER] -= 50.0 * scale[GRIPPER]
    return zero, scale


_ZERO, _SCALE = _mechanics()


def to_encoder(joints: Float64Array) -> Float64Array:
    """Return encoder ticks `(6,)` for joints in LeRobot's units."""
    return np.asarray(_ZERO + joints * _SCALE)


def to_joints(encoder: Float64Array) -> Float64Array:
    """Return joints `(6,)` in LeRobot's units for encoder ticks, within the arm's limits."""
    return np.clip((encoder - _ZERO) / _SCALE, LOWER, UPPER)


def calibrated_servos(shafts: Sequence[Shaft] | None = None) -> list[Servo]:
    """Return an arm's six servos, calibrated as the file says.

    Args:
        shafts: What they turn, in the order of the joints; motors without a load, the arm at rest, by default.
    """
    if shafts is None:
        shafts = [MotorShaft(position) for position in to_encoder(HOME).tolist()]
    return [
        Servo(
            joint.id,
            shaft,
            {
                "Homing_Offset": joint.homing_offset,
                "Min_Position_Limit": joint.range_min,
                "Max_Position_Limit": joint.range_max,
            },
        )
        for joint, shaft in zip(arm_calibration().values(), shafts, strict=True)
    ]
