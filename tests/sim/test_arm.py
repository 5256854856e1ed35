# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from pi05_websocket.sim.arm import HOME, LOWER, UPPER, forward, solve, to_degrees, to_radians

SEED = np.array([0.0, 0.0, 0.0, 90.0, 0.0, 50.0])


def test_units_round_trip() -> None:
    """Degrees and percent come back from radians unchanged."""
    joints = np.random.default_rng(0).uniform(LOWER, UPPER, size=(20, 6))

    assert to_degrees(to_radians(joints)) == pytest.approx(joints)


def test_gripper_is_a_percentage_of_its_travel() -> None:
    """0 and 100 percent are the jaw's two ends; the other joints are degrees."""
    ends = to_radians([[0, 0, 0, 0, 0, 0], [90, 0, 0, 0, 0, 100]])

    assert ends[:, 5] == pytest.approx([-0.17453, 1.7453292])
    assert ends[1, 0] == pytest.approx(np.pi / 2)


def test_units_leave_their_input_alone() -> None:
    """Conversions return new arrays."""
    joints = HOME.copy()

    to_radians(joints)

    assert joints.tolist() == HOME.tolist()


@pytest.mark.parametrize("yaw", [-0.6, 0.0, 0.7])
@pytest.mark.parametrize("lean", [0.0, 0.2])
def test_solution_reaches_its_target(yaw: float, lean: float) -> None:
    """The joints found put the fingertips on the target, leaning and turned as asked."""
    joints = solve([0.24, 0.03, 0.02], yaw=yaw, lean=lean, seed=SEED)

    assert joints is not None
    tool = forward(joints)
    outward = np.array([0.24, 0.03, 0.0]) / np.hypot(0.24, 0.03)
    assert tool.position == pytest.approx([0.24, 0.03, 0.02], abs=1e-4)
    assert np.arcsin(tool.approach @ outward) == pytest.approx(lean, abs=1e-3)
    assert np.arctan2(tool.jaw[1], tool.jaw[0]) == pytest.approx(yaw, abs=1e-3)
    assert joints[5] == pytest.approx(50.0)


def test_out_of_reach_has_no_solution() -> None:
    """A target a metre away is answered with None."""
    assert solve([1.0, 0.0, 0.02], yaw=0.0, seed=SEED) is None
