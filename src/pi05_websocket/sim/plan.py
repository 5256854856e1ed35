# SPDX-License-Identifier: Apache-2.0
"""What to do next, from where the joints are and where the cube seems to be; and that as rows of joint targets.

Stateless: the phase of the task is read from the joints each time, so a chunk may be cut, late or lost. Pure.

    look ── cube seen ──► hover ──► reach down ──► close ──► lift ──► show
     ▲                      ▲   over the cube   low      jaws stopped by something they see
     └── cube not seen      └── jaws closed on nothing
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pi05_websocket.data import Float32Array
from pi05_websocket.sim.arm import GRIPPER, LOWER, UPPER, Float64Array, ToolPose, forward, solve
from pi05_websocket.sim.vision import Sighting

__all__ = ["HOLDING", "Waypoint", "duration", "rows", "waypoints"]

HOLDING = (6.0, 18.0)
"""Between these the jaws are stopped by the cube's 25 mm, percent."""
_OPEN = 55.0
_CLOSED = 0.0
"""Gripper targets, percent."""

_HOVER_Z = 0.07
_GRASP_Z = 0.011
_LIFT_Z = 0.085
_CLEAR_Z = 0.045
"""Heights of the fingertips, metres. Above `_CLEAR_Z` they pass over the cube."""

_LOW = 0.010
"""So close above `_GRASP_Z` the jaws may close, metres."""
_OFF_TARGET = 0.012
_MISALIGNED = np.deg2rad(20.0)
"""How far off the cube the open jaws may be and still close around it: metres, radians."""

_SHOW = np.array([0.0, -35.0, 38.0, 60.0, 0.0, _CLOSED])
"""Where a cube is carried to once it is in the air; the roll stays as it is."""
_LOOK = np.array([0.0, -90.0, 60.0, 70.0, 0.0, _OPEN])
"""Where the gripper hides nothing from the front camera."""
_SEED = np.array([0.0, 0.0, 0.0, 90.0, 0.0, _OPEN])
"""Where the solver starts: fingers down in the middle of the workspace."""

_CLOSE_ROWS = 8
"""Rows the jaws are given to squeeze before the arm lifts."""

_CLOSE_AHEAD = 6
"""Rows from reaching the cube until the jaws touch it: half of what they need to close."""

_MAX_STEP = 3.0
_MIN_STEP = 0.4
_EASE = 0.22
"""Largest and smallest change of a joint in one row, degrees, and the share of the remaining way in between."""
_MAX_ROWS = 200
"""No plan is followed farther than this."""
_GRIPPER_STEP = 7.0
"""Largest change of the gripper in one row, percent."""


@dataclass(frozen=True, slots=True)
class Waypoint:
    """Joints to reach, and how many rows to stay there."""

    joints: Float64Array
    """`(6,)`, LeRobot's units."""

    dwell: int = 0
    """Rows."""


def waypoints(
    joints: Float64Array, cube: Sighting | None, *, cube_in_jaws: bool, drift: float = 0.0
) -> list[Waypoint]:
    """Return the rest of the task from here on.

    Args:
        joints: Measured joints `(6,)`.
        cube: Where the cube seems to lie; None when it is not to be seen.
        cube_in_jaws: Whether the wrist camera sees it between the jaws.
        drift: How far it travels towards +y in one row, metres.
    """
    tool = forward(joints)
    if cube_in_jaws and HOLDING[0] < joints[GRIPPER] < HOLDING[1]:
        return _lift(joints, tool)
    if cube is None:
        return [Waypoint(_LOOK)]
    yaw = _jaw_yaw_for(cube.yaw, tool)
    off = float(np.hypot(tool.position[0] - cube.x, tool.position[1] - cube.y))
    over = off < _OFF_TARGET and abs(_turn(yaw, _jaw_yaw(tool))) < _MISALIGNED
    missed = joints[GRIPPER] < HOLDING[0] and tool.position[2] < _CLEAR_Z
    if over and not missed:
        if tool.position[2] < _GRASP_Z + _LOW:
            return _close(joints, tool)
        if tool.position[2] < _HOVER_Z + 0.015 and joints[GRIPPER] > HOLDING[1]:
            grasp = _meet(cube, _GRASP_Z, yaw, joints, [], drift)
            return [Waypoint(_LOOK)] if grasp is None else [Waypoint(grasp, 2), *_closing(grasp)]
    rise = _rise(joints, tool) if tool.position[2] < _CLEAR_Z else []
    hover = _meet(cube, _HOVER_Z, yaw, joints, rise, drift)
    if hover is None:
        return [Waypoint(_LOOK)]  # out of reach
    way = [*rise, Waypoint(hover)]
    grasp = _meet(cube, _GRASP_Z, yaw, joints, way, drift)
    if grasp is None:
        return [Waypoint(_LOOK)]
    return [*way, Waypoint(grasp, 2), *_closing(grasp)]


def _meet(
    cube: Sighting,
    height: float,
    yaw: float,
    joints: Float64Array,
    way: list[Waypoint],
    drift: float,
) -> Float64Array | None:
    """Return joints over where the cube will be when the arm gets there after `way`; None out of reach.

    When it gets there depends on where that is: two corrections are enough, a row is a third of a millimetre.
    """
    there = _over(cube, height, yaw, joints)
    for _ in range(2 if drift else 0):
        if there is None:
            return None
        steps = duration(joints, [*way, Waypoint(there)])
        closing = _CLOSE_AHEAD if height == _GRASP_Z else 0
        ahead = replace(cube, y=cube.y + drift * (steps + closing))
        there = _over(ahead, height, yaw, joints)
    return there


def _closing(grasp: Float64Array) -> list[Waypoint]:
    return _close(grasp, forward(grasp))


def _close(joints: Float64Array, tool: ToolPose) -> list[Waypoint]:
    closed = _with_gripper(joints, _CLOSED)
    return [Waypoint(closed, _CLOSE_ROWS), *_lift(joints, tool)]


def _lift(joints: Float64Array, tool: ToolPose) -> list[Waypoint]:
    show = _SHOW.copy()
    show[4] = joints[4]
    if tool.position[2] >= _CLEAR_Z:
        return [Waypoint(show)]
    return [Waypoint(_with_gripper(_straight_up(joints, tool, _LIFT_Z), _CLOSED)), Waypoint(show)]


def _rise(joints: Float64Array, tool: ToolPose) -> list[Waypoint]:
    return [Waypoint(_with_gripper(_straight_up(joints, tool, _HOVER_Z), _OPEN))]


def _straight_up(joints: Float64Array, tool: ToolPose, height: float) -> Float64Array:
    target = np.append(tool.position[:2], height)
    lean = float(np.arcsin(np.clip(tool.approach @ _outward(*tool.position[:2]), -1, 1)))
    up = solve(target, yaw=_jaw_yaw(tool), lean=lean, seed=joints)
    if up is None:
        up = joints.copy()
        up[1] = max(LOWER[1], up[1] - 30.0)  # the shoulder alone raises the hand too
    return up


def _over(cube: Sighting, height: float, yaw: float, joints: Float64Array) -> Float64Array | None:
    """Return joints that bring the open jaws over the cube; None out of reach.

    The farther out, the more the fingers lean outward: straight down the arm is too short.
    """
    target = np.array([cube.x, cube.y, height])
    lean = float(np.clip((np.hypot(cube.x, cube.y) - 0.24) * 300.0, 0.0, 45.0))
    seed = _SEED.copy()
    seed[0], seed[4] = np.rad2deg(np.arctan2(cube.y, cube.x)), joints[4]
    for extra in (0.0, 12.0, 24.0, -12.0):
        found = solve(target, yaw=yaw, lean=np.deg2rad(lean + extra), seed=seed)
        if found is not None:
            return found
    return None


def _outward(x: float, y: float) -> Float64Array:
    return np.array([x, y, 0.0]) / max(np.hypot(x, y), 1e-6)


def _jaw_yaw(tool: ToolPose) -> float:
    return float(np.arctan2(tool.jaw[1], tool.jaw[0]))


def _turn(a: float, b: float) -> float:
    """Return the angle from `b` to `a`, -pi to pi."""
    return float((a - b + np.pi) % (2 * np.pi) - np.pi)


def _jaw_yaw_for(yaw: float, tool: ToolPose) -> float:
    """Return which way to turn the jaws for a cube that looks the same after every quarter turn.

    With the fingers down the jaws point outward when the wrist is not rolled. Near where they are now wins, so
    that an estimate that flickers changes nothing; far from the wrist's limits wins a little.
    """
    straight = float(np.arctan2(tool.position[1], tool.position[0]))
    now = _jaw_yaw(tool)
    quarters = [yaw + quarter * np.pi / 2 for quarter in range(4)]
    return min(quarters, key=lambda way: abs(_turn(way, now)) + 0.4 * abs(_turn(way, straight)))


def _with_gripper(joints: Float64Array, percent: float) -> Float64Array:
    changed = joints.copy()
    changed[GRIPPER] = percent
    return changed


def rows(joints: Float64Array, path: list[Waypoint], count: int) -> Float32Array:
    """Return `count` rows of joint targets along a path, one for each tick of 1/30 s; the last one stays.

    Each leg is straight in joint space, at full speed at first and slower towards its end.

    Args:
        joints: Where the arm is, `(6,)`.
        path: At least one waypoint.
        count: Rows to return.

    Returns:
        `(count, 6)` float32, inside the joints' limits.
    """
    position = joints.copy()
    out: list[Float64Array] = []
    for waypoint in path:
        while len(out) < count and not np.allclose(position, waypoint.joints, atol=1e-6):
            position = _advance(position, waypoint.joints)
            out.append(position)
        out.extend([waypoint.joints] * min(waypoint.dwell, count - len(out)))
    out.extend([position] * (count - len(out)))
    return np.clip(np.stack(out), LOWER, UPPER).astype(np.float32)


def duration(joints: Float64Array, path: list[Waypoint]) -> int:
    """Return how many rows a path takes, its dwelling included."""
    position, count = joints, 0
    for waypoint in path:
        while count < _MAX_ROWS and not np.allclose(position, waypoint.joints, atol=1e-6):
            position = _advance(position, waypoint.joints)
            count += 1
        count += waypoint.dwell
    return count


def _advance(position: Float64Array, goal: Float64Array) -> Float64Array:
    left = goal - position
    arm, jaw = np.abs(left[:GRIPPER]).max(), abs(left[GRIPPER])
    share = 1.0
    if arm > _MIN_STEP:
        share = min(_MAX_STEP, max(_MIN_STEP, _EASE * arm)) / arm
    step = left * share
    step[GRIPPER] = left[GRIPPER] * min(1.0, _GRIPPER_STEP / max(jaw, 1e-9))
    return position + step
