# SPDX-License-Identifier: Apache-2.0
"""What is commanded when there is no valid action."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pi05_websocket.chunks.hold import HoldConfig, HoldMachine, fallback_action
from pi05_websocket.errors import ConfigError, NoValidAction

LAST = np.array([1, 2, 3], np.float32)
MEASURED = np.array([7, 8, 9], np.float32)


def fall_back(fallback: str, **changed: Any) -> np.ndarray:
    """Call it with an absolute three-joint arm unless changed."""
    arguments = {
        "action_kind": "absolute",
        "last_commanded": LAST,
        "measured": MEASURED,
        "action_dim": 3,
        "cause": "the link is down",
    }
    return fallback_action(fallback, **{**arguments, **changed})


@pytest.mark.parametrize(
    ("fallback", "changed", "expected"),
    [
        ("hold", {}, [1, 2, 3]),
        ("hold", {"last_commanded": None}, [7, 8, 9]),
        ("zero", {}, [0, 0, 0]),
        ("zero", {"last_commanded": None, "measured": None}, [0, 0, 0]),
        ("hold", {"action_kind": "delta"}, [0, 0, 3]),  # repeating a delta would move on
        # zero would open a gripper that holds something
        ("hold", {"action_kind": "velocity", "last_commanded": None}, [0, 0, 9]),
        # libero's state is no action: a server that compiles for minutes must not end the run
        ("hold", {"action_kind": "delta", "last_commanded": None, "measured": None}, [0, 0, 0]),
        ("zero", {"action_dim": None}, [0, 0, 0]),
        ("zero", {"action_dim": None, "last_commanded": None}, [0, 0, 0]),
    ],
)
def test_fallback_by_kind(fallback: str, changed: dict[str, Any], expected: list[float]):
    """Hold keeps a pose, zero is zero only where chosen, speeds and differences become zero."""
    assert fall_back(fallback, **changed).tolist() == expected


@pytest.mark.parametrize(
    ("fallback", "changed"),
    [
        ("raise", {}),
        ("hold", {"last_commanded": None, "measured": None}),
        ("hold", {"last_commanded": None, "measured": MEASURED[:2]}),
        ("hold", {"last_commanded": None, "measured": np.array([1, np.nan, 3])}),
        ("zero", {"action_dim": None, "last_commanded": None, "measured": None}),
    ],
)
def test_refuses_to_invent_a_pose(fallback: str, changed: dict[str, Any]):
    """Where there is nothing to hold, or the user wants an error, there is one that names the cause."""
    with pytest.raises(NoValidAction, match="the link is down"):
        fall_back(fallback, **changed)


def test_held_target_is_a_copy():
    """Nobody can change the remembered target through what was returned."""
    fall_back("hold")[0] = 99

    assert LAST.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "ramp", "expected"),
    [
        ("delta", 0.75, [0.75, 1.5, 3]),
        ("velocity", 0.5, [0.5, 1, 3]),
        ("torque", 0.0, [0, 0, 3]),
        ("absolute", 0.5, [1, 2, 3]),
    ],
)
def test_speeds_ramp_down_and_poses_stay(kind: str, ramp: float, expected: list[float]):
    """What moves an arm goes to zero in steps; a target, and the gripper, stay."""
    assert fall_back("hold", action_kind=kind, ramp=ramp).tolist() == expected


def run(machine: HoldMachine, pattern: str) -> list[str]:
    """Play ticks: `#` has a row, `.` has none, `R` is a person who resumes before the tick without a row."""
    states = []
    for tick, mark in enumerate(pattern):
        if mark == "#":
            machine.row()
        else:
            if mark == "R":
                machine.resume()
            machine.starved(tick)
        states.append(machine.state.name[0] + ("!" if machine.latched else ""))
    return states


@pytest.mark.parametrize(
    ("config", "pattern", "states"),
    [
        # nothing latches before the first row: a model may compile for minutes
        ({}, "......#", "W W W W W W R"),
        ({}, "#..#", "R C C R"),
        ({}, "#....#", "R C C S S R"),
        ({}, "#......", "R C C S S S! S!"),
        # a person: as at the beginning of an episode
        ({}, "#.....R...........#", "R C C S S S! W W W W W W W W W W W W R"),
        ({"coast_ticks": None}, "#......", "R C C C C S! S!"),
        ({"auto_resume_ticks": None}, "#......#", "R C C S S S S R"),
        ({"auto_resume_ticks": 0}, "#.R..#", "R S! W W W R"),
        ({"coast_ticks": 0}, "#..", "R S S"),
    ],
)
def test_states(config: dict[str, Any], pattern: str, states: str):
    """RUN, COAST after the first tick without a row, STOP after two, latched after four."""
    machine = HoldMachine(HoldConfig(**{"coast_ticks": 2, "auto_resume_ticks": 4, **config}))

    assert run(machine, pattern) == states.split()


def test_says_when_the_state_changes():
    """So that each change is logged once."""
    machine = HoldMachine(HoldConfig(coast_ticks=2, auto_resume_ticks=3))
    machine.row()

    assert [machine.starved(tick) for tick in range(1, 7)] == [
        True,
        False,
        True,
        True,
        False,
        False,
    ]
    assert machine.held_ticks(6) == 5


def test_a_new_episode_ends_a_latched_stop():
    """Whoever resets an episode is a person, or acts for one."""
    machine = HoldMachine(HoldConfig(auto_resume_ticks=0))
    machine.row()
    machine.starved(1)

    machine.start_episode()

    assert repr(machine) == "<HoldMachine WAIT>"
    assert not machine.resume()


def test_a_person_stops_an_arm_that_already_holds():
    """The pause is as long as it is; only who ends it has changed."""
    machine = HoldMachine(HoldConfig())
    machine.row()
    machine.starved(3)

    machine.stop(5)

    assert repr(machine) == "<HoldMachine STOP latched>"
    assert machine.held_ticks(6) == 3


def test_no_row_in_a_latched_stop():
    """Executing one is a mistake in this program, not an accident of the network."""
    machine = HoldMachine(HoldConfig(auto_resume_ticks=0))
    machine.row()
    machine.starved(1)

    with pytest.raises(AssertionError):
        machine.row()
    assert repr(machine) == "<HoldMachine STOP latched>"


@pytest.mark.parametrize(
    "bad", [{"pose": "zero"}, {"ramp_ticks": 0}, {"coast_ticks": -1}, {"auto_resume_ticks": -1}]
)
def test_impossible_settings_are_refused(bad: dict[str, Any]):
    """Settings are checked when they are made."""
    with pytest.raises(ConfigError):
        HoldConfig(**bad)
