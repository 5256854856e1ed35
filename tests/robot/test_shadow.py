# SPDX-License-Identifier: Apache-2.0
"""A person's motion beside what a policy would have done."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pi05_websocket.robot.shadow import Shadow

Trajectory = Callable[[np.ndarray], np.ndarray]


def followed(policy: Trajectory, ticks: int = 100) -> Shadow:
    """Return a shadow of a person who swings one joint by 20 degrees and keeps the other."""
    shadow = Shadow(["pan", "gripper"])
    for i in range(ticks):
        pan = np.array([20 * np.sin(i / 10)])
        shadow.add(np.array([pan[0], 5.0], np.float32), np.array([policy(pan)[0], 5.0], np.float32))
    return shadow


@pytest.mark.parametrize(
    ("policy", "hint"),
    [
        (lambda pan: pan + 0.5, ""),
        (lambda pan: -pan, "the other way: sign?"),
        (lambda pan: np.radians(pan), "0.0175 times the motion: unit?"),
        (lambda pan: 57.3 * pan, "57.3 times the motion: unit?"),
        (lambda pan: pan * 0 + 3.0, ""),  # it stands still: nothing can be said
    ],
)
def test_what_it_looks_like(policy: Trajectory, hint: str):
    """Sign and unit show in the motion, not in a single pose."""
    pan, gripper = followed(policy).joints()

    assert pan.hint == hint
    assert (gripper.agreement, gripper.hint) == (None, "")


def test_figures():
    """Distance, bias, agreement."""
    pan, _ = followed(lambda pan: pan + 0.5).joints()

    assert pan.off == pytest.approx(0.5, abs=1e-5)
    assert pan.bias == pytest.approx(0.5, abs=1e-5)
    assert pan.agreement == pytest.approx(1.0)
    assert pan.scale == pytest.approx(1.0)


def test_the_table_is_for_people():
    """A line for each joint, hints where something looks wrong, how much was compared."""
    shadow = followed(lambda pan: -pan)
    shadow.add(np.zeros(2, np.float32), None)

    lines = shadow.table().splitlines()

    assert lines[0].split() == ["joint", "off", "bias", "same", "way"]
    assert lines[1].endswith("-1.00  <- the other way: sign?")
    assert lines[2].split() == ["gripper", "0.00", "+0.00", "-"]
    assert lines[3] == "100 of 101 ticks compared"
    assert repr(shadow) == "<Shadow 100 of 101 ticks>"


def test_too_little_says_so():
    """A second is needed at least."""
    shadow = followed(lambda pan: pan, ticks=5)

    assert shadow.joints() == []
    assert shadow.table() == "5 ticks with a plan: too few to compare (at least 30)"


def test_joints_without_names_have_numbers():
    """Where the key map knows none."""
    shadow = Shadow()
    for i in range(40):
        shadow.add(np.array([float(i)], np.float32), np.array([float(i)], np.float32))

    assert [joint.name for joint in shadow.joints()] == ["joint 0"]


def test_other_joints_are_refused():
    """A leader with another number of joints is another arm."""
    with pytest.raises(ValueError, match="against the policy's"):
        Shadow().add(np.zeros(5, np.float32), np.zeros(6, np.float32))
