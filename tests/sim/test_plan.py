# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from pi05_websocket.sim.arm import GRIPPER, HOME, LOWER, UPPER, Float64Array, forward, solve
from pi05_websocket.sim.plan import HOLDING, Waypoint, rows, waypoints
from pi05_websocket.sim.vision import Sighting

CUBE = Sighting(0.23, 0.02, 0.3, (320.0, 240.0), (0.0, 0.0))


def over_the_cube(height: float, gripper: float) -> Float64Array:
    """Return joints with the jaws around the cube's sides, at a height."""
    joints = solve([0.23, 0.02, height], yaw=0.3, seed=[0, 0, 0, 90, 0, gripper])
    assert joints is not None
    return joints


def heights(path: list[Waypoint]) -> list[float]:
    """Return the fingertips' heights along a path, in millimetres."""
    return [round(float(forward(point.joints).position[2]) * 1000) for point in path]


def grips(path: list[Waypoint]) -> list[float]:
    """Return the gripper's targets along a path."""
    return [round(float(point.joints[GRIPPER])) for point in path]


def test_from_home_the_whole_task_is_planned() -> None:
    """Hover open, reach down, close, lift, show."""
    path = waypoints(HOME, CUBE, cube_in_jaws=False)

    assert heights(path)[:4] == [70, 11, 11, 85]
    assert grips(path) == [55, 55, 0, 0, 0]


def test_open_jaws_above_the_cube_go_down() -> None:
    """What is already done is not planned again."""
    path = waypoints(over_the_cube(0.07, 55.0), CUBE, cube_in_jaws=False)

    assert heights(path)[:3] == [11, 11, 85]


def test_open_jaws_around_the_cube_close() -> None:
    """At grasping height the first thing is to close, in place."""
    joints = over_the_cube(0.015, 55.0)

    path = waypoints(joints, CUBE, cube_in_jaws=False)

    assert path[0].joints[:GRIPPER].tolist() == joints[:GRIPPER].tolist()
    assert grips(path)[0] == 0


def test_stopped_jaws_that_see_the_cube_lift() -> None:
    """A gripper held open by something it sees carries it up, even where the front camera sees nothing."""
    joints = over_the_cube(0.015, np.mean(HOLDING))

    path = waypoints(joints, None, cube_in_jaws=True)

    assert heights(path)[0] == 85
    assert grips(path) == [0, 0]


def test_a_lifted_cube_is_shown() -> None:
    """Above the table the way leads straight to where a cube is shown."""
    assert len(waypoints(over_the_cube(0.08, 13.0), CUBE, cube_in_jaws=True)) == 1


def test_jaws_closed_on_nothing_rise_and_try_again() -> None:
    """After a miss the gripper goes up open before it comes down again."""
    path = waypoints(over_the_cube(0.015, 0.0), CUBE, cube_in_jaws=False)

    assert heights(path)[:3] == [70, 70, 11]
    assert grips(path)[0] == 55


def test_an_unseen_cube_is_looked_for() -> None:
    """Without a cube in sight the gripper goes out of the way, open."""
    path = waypoints(HOME, None, cube_in_jaws=False)

    assert grips(path) == [55]
    assert heights(path) == [123]


def test_a_cube_out_of_reach_is_watched() -> None:
    """A cube the arm cannot reach is no error: it looks."""
    far = Sighting(0.7, 0.0, 0.0, (320.0, 20.0), (0.0, 0.0))

    assert len(waypoints(HOME, far, cube_in_jaws=False)) == 1


def test_lifting_works_where_straight_up_is_unreachable() -> None:
    """At the edge of the reach the shoulder alone raises the hand."""
    joints = np.array([0.0, 80.0, -60.0, 60.0, 0.0, 13.0])
    assert forward(joints).position[2] < 0.045

    path = waypoints(joints, None, cube_in_jaws=True)

    assert path[0].joints[1] == pytest.approx(50.0)


def test_rows_are_smooth_and_end_where_the_path_ends() -> None:
    """No joint moves more than 3 degrees in a row, the gripper 7 percent; the last row stays."""
    goal = np.array([20.0, -60.0, 60.0, 60.0, 10.0, 50.0])

    actions = rows(HOME, [Waypoint(goal, 2)], 50)

    steps = np.abs(np.diff(np.vstack([HOME, actions]), axis=0))
    assert actions.shape == (50, 6)
    assert actions.dtype == np.float32
    assert steps[:, :GRIPPER].max() <= 3.0 + 1e-4
    assert steps[:, GRIPPER].max() <= 7.0 + 1e-4
    assert actions[-1] == pytest.approx(goal, abs=1e-4)


def test_rows_wait_at_a_waypoint() -> None:
    """A dwell repeats the waypoint; a path longer than the chunk is cut."""
    near = HOME + np.array([0.3, 0, 0, 0, 0, 0])

    actions = rows(HOME, [Waypoint(near, 3), Waypoint(HOME + 50.0)], 5)

    assert actions[:4, 0] == pytest.approx([0.3] * 4)
    assert actions[4, 0] > 1.0


def test_rows_stay_inside_the_limits() -> None:
    """Targets beyond a joint's end are clipped."""
    actions = rows(HOME, [Waypoint(UPPER + 30.0)], 200)

    assert (actions <= UPPER.astype(np.float32)).all()
    assert (actions >= LOWER.astype(np.float32)).all()


def test_half_closed_jaws_above_the_cube_open_first() -> None:
    """Jaws that hold nothing and are not open go up over the cube, opening, before they come down."""
    path = waypoints(over_the_cube(0.07, 15.0), CUBE, cube_in_jaws=False)

    assert heights(path)[:2] == [70, 11]
    assert grips(path)[:2] == [55, 55]
