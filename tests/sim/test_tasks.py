# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest

from pi05_websocket.errors import ConfigError
from pi05_websocket.sim.stats import wilson_interval
from pi05_websocket.sim.tasks import BELT_SPEED, make_task, nudge, spawn


def test_spawn_repeats() -> None:
    """A seed and an episode always give the same pose; others give others."""
    assert spawn(3, 1) == spawn(3, 1)
    assert len({spawn(seed, episode) for seed in range(5) for episode in range(5)}) == 25


def test_spawn_stays_within_seven_centimetres() -> None:
    """Every cube begins within 7 cm of (0.23, 0)."""
    poses = [spawn(seed, 0) for seed in range(200)]

    assert max(math.hypot(pose.x - 0.23, pose.y) for pose in poses) <= 0.07


def test_a_moved_cube_stays_within_reach() -> None:
    """It is moved 3 to 5 cm, within 12 cm of (0.23, 0), before the jaws are there, and repeats."""
    for seed in range(200):
        start, (after_s, there) = spawn(seed, 0), nudge(seed, 0)

        assert 0.03 <= math.hypot(there.x - start.x, there.y - start.y) <= 0.05
        assert math.hypot(there.x - 0.23, there.y) < 0.12
        assert 0.2 <= after_s <= 0.7
        assert nudge(seed, 0) == (after_s, there)


def test_belt_speed_is_a_parameter() -> None:
    """The belt has a default speed and takes another; a cube at rest ignores it."""
    assert make_task("belt").belt_speed == BELT_SPEED
    assert make_task("belt", belt_speed=0.03).belt_speed == 0.03
    assert make_task("cube", belt_speed=0.03).belt_speed == 0.0


@pytest.mark.parametrize(("name", "speed"), [("stack", None), ("belt", -0.1), ("belt", math.nan)])
def test_impossible_tasks_are_refused(name: str, speed: float | None) -> None:
    """An unknown task or speed is a ConfigError."""
    with pytest.raises(ConfigError, match=r"unknown task|belt_speed"):
        make_task(name, belt_speed=speed)


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [(100, 100, (0.9630, 1.0)), (0, 10, (0.0, 0.2775)), (8, 10, (0.4902, 0.9433)), (0, 0, (0, 1))],
)
def test_wilson_interval(successes: int, trials: int, expected: tuple[float, float]) -> None:
    """Agrees with published values."""
    assert wilson_interval(successes, trials) == pytest.approx(expected, abs=5e-4)


def test_wilson_refuses_impossible_counts() -> None:
    """More successes than trials is a mistake of the caller."""
    with pytest.raises(ValueError, match="expected 0 <= successes"):
        wilson_interval(3, 2)
