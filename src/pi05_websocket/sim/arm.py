# SPDX-License-Identifier: Apache-2.0
"""The SO-101 as numbers: joint names, limits, units, where the jaws are, and joints that bring them somewhere.

In: joints in LeRobot's units (degrees; gripper 0 closed to 100 open). Out: poses in metres in the base frame
(x forward, y left, z up, origin on the table under the base), or joints. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "GRIPPER",
    "HOME",
    "JOINTS",
    "LOWER",
    "UPPER",
    "Float64Array",
    "ToolPose",
    "forward",
    "solve",
    "to_degrees",
    "to_radians",
]

Float64Array = npt.NDArray[np.float64]

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
"""Motor names in LeRobot's order."""

GRIPPER = 5
"""Index of the gripper in `JOINTS`."""

_GRIPPER_RANGE = (-0.17453, 1.7453292)
"""Jaw angle in radians at 0 and at 100 percent."""

_LOWER_RAD = np.array([-1.91986, -1.7453293, -1.69, -1.658063, -2.7438473, _GRIPPER_RANGE[0]])
_UPPER_RAD = np.array([1.91986, 1.7453293, 1.69, 1.658063, 2.7438473, _GRIPPER_RANGE[1]])

_ARM = 5
_NEWTON_STEPS = 30
_TOLERANCE = 1e-5
"""Residual, in metres and in (metre-weighted) sines, at which the solver stops."""
_DAMPING = 1e-6
_STEP_LIMIT = 0.35
"""Largest joint change of one solver step, radians: keeps it on its branch."""
_ANGLE_WEIGHT = 0.1
"""Metres that one radian of direction error counts."""


def to_degrees(radians: npt.ArrayLike) -> Float64Array:
    """Convert simulator joints `(..., 6)` in radians to LeRobot's units."""
    joints = np.rad2deg(np.asarray(radians, dtype=np.float64))
    jaw = np.asarray(radians, dtype=np.float64)[..., GRIPPER]
    low, high = _GRIPPER_RANGE
    joints[..., GRIPPER] = (jaw - low) / (high - low) * 100.0
    return joints


def to_radians(joints: npt.ArrayLike) -> Float64Array:
    """Convert joints `(..., 6)` in LeRobot's units to radians. Inverse of `to_degrees`."""
    values = np.asarray(joints, dtype=np.float64)
    radians = np.deg2rad(values)
    low, high = _GRIPPER_RANGE
    radians[..., GRIPPER] = low + values[..., GRIPPER] / 100.0 * (high - low)
    return radians


LOWER = to_degrees(_LOWER_RAD)
"""Lower joint limits, `(6,)`, LeRobot's units."""

UPPER = to_degrees(_UPPER_RAD)
"""Upper joint limits, `(6,)`, LeRobot's units."""

HOME = np.array([0.0, -90.0, 90.0, 37.8, 0.0, 0.0])
"""The folded rest pose, `(6,)`, LeRobot's units."""


def _rotation(w: float, x: float, y: float, z: float) -> Float64Array:
    """Return the rotation matrix of a quaternion; it is normalised first."""
    w, x, y, z = np.array([w, x, y, z]) / np.linalg.norm([w, x, y, z])
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _frame(position: tuple[float, float, float], quaternion: tuple[float, ...]) -> Float64Array:
    frame = np.eye(4)
    frame[:3, :3] = _rotation(*quaternion)
    frame[:3, 3] = position
    return frame


# Where each joint sits in the link before it; every joint turns about its own z axis.
# Source: google-deepmind/mujoco_menagerie robotstudio_so101/so101.xml, as shipped by so101-nexus 0.10.0.
_LINKS = (
    _frame((0.0388353, 0.0, 0.0624), (0.0, 0.0, -1.0, 0.0)),
    _frame((-0.0303992, -0.0182778, -0.0542), (1.0, -1.0, -1.0, -1.0)),
    _frame((-0.11257, -0.028, 0.0), (1.0, 0.0, 0.0, 1.0)),
    _frame((-0.1349, 0.0052, 0.0), (1.0, 0.0, 0.0, -1.0)),
    _frame((0.0, -0.0611, 0.0181), (0.0172091, -0.0172091, 0.706897, 0.706897)),
)
_TOOL = np.array([0.012, -0.000218, -0.098127, 1.0])
"""The point between the fingertips, in the gripper's frame."""


@dataclass(frozen=True, slots=True)
class ToolPose:
    """Where the fingertips are and how the gripper is turned, base frame."""

    position: Float64Array
    """`(3,)` metres: the point between the fingertips."""

    approach: Float64Array
    """`(3,)` unit vector from the wrist to the fingertips."""

    jaw: Float64Array
    """`(3,)` unit vector from the fixed jaw to the moving one."""


def forward(joints: npt.ArrayLike) -> ToolPose:
    """Return the pose of the tool for joints `(6,)` in LeRobot's units."""
    return _forward(to_radians(joints))


def _forward(radians: Float64Array) -> ToolPose:
    frame = np.eye(4)
    for link, angle in zip(_LINKS, radians, strict=False):  # the sixth angle moves only the jaw
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        frame = frame @ link @ turn
    return ToolPose((frame @ _TOOL)[:3], -frame[:3, 2], frame[:3, 0])


def _residual(radians: Float64Array, target: Float64Array, lean: float, yaw: float) -> Float64Array:
    """Return what is left to the target: three lengths, and two angles weighted to metres."""
    pose = _forward(radians)
    outward = np.array([target[0], target[1], 0.0]) / np.hypot(target[0], target[1])
    side = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    tilt = np.arcsin(np.clip(pose.approach @ outward, -1.0, 1.0)) - lean
    twist = np.arctan2(pose.jaw @ side, pose.jaw @ [np.cos(yaw), np.sin(yaw), 0.0])
    return np.append(pose.position - target, [_ANGLE_WEIGHT * tilt, _ANGLE_WEIGHT * twist])


def solve(
    target: npt.ArrayLike, *, yaw: float, lean: float = 0.0, seed: npt.ArrayLike
) -> Float64Array | None:
    """Find joints that bring the tool to `target` with the fingers down; None where the arm cannot.

    Args:
        target: `(3,)` metres, base frame.
        yaw: Direction of the jaws' opening axis on the table, radians.
        lean: Outward tilt of the fingers against the vertical, radians.
        seed: Joints `(6,)` to start from; the gripper's value is passed through.

    Returns:
        Joints `(6,)` in LeRobot's units, inside their limits.
    """
    goal = np.asarray(target, dtype=np.float64)
    radians = np.clip(to_radians(seed), _LOWER_RAD, _UPPER_RAD)
    for _ in range(_NEWTON_STEPS):
        residual = _residual(radians, goal, lean, yaw)
        if np.abs(residual).max() < _TOLERANCE:
            return to_degrees(radians)
        jacobian = np.empty((5, _ARM))
        for joint in range(_ARM):
            nudged = radians.copy()
            nudged[joint] += 1e-6
            jacobian[:, joint] = (_residual(nudged, goal, lean, yaw) - residual) / 1e-6
        step = np.linalg.solve(
            jacobian.T @ jacobian + _DAMPING * np.eye(_ARM), -jacobian.T @ residual
        )
        step *= min(1.0, _STEP_LIMIT / max(np.abs(step).max(), 1e-12))
        radians[:_ARM] = np.clip(radians[:_ARM] + step, _LOWER_RAD[:_ARM], _UPPER_RAD[:_ARM])
    return None
