# SPDX-License-Identifier: Apache-2.0
"""The simulated arm's tasks: what it is told, where the cube begins and how it moves, time. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from pi05_websocket.errors import ConfigError

__all__ = [
    "BELT_SPEED",
    "CUBE_SIZE",
    "TASKS",
    "CubePose",
    "Task",
    "belt_speed_in",
    "make_task",
    "nudge",
    "spawn",
]

CUBE_SIZE = 0.025
"""Edge of the cube, metres."""

BELT_SPEED = 0.01
"""Default speed of the belt, metres per second."""

_BELT_SPEED_WORDS = re.compile(
    r"moves (?P<way>left|right) at (?P<speed>\d{1,2}(?:\.\d{1,4})?) cm/s"
)

_SPAWN_CENTRE = (0.23, 0.0)
_SPAWN_RADIUS = 0.07

_NUDGE_S = (0.2, 0.7)
"""When the cube is moved, seconds after the arm began to move: the jaws come down on it after one."""
_NUDGE_M = (0.03, 0.05)
"""How far: beyond what the jaws would forgive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task. Success is the simulator's own predicate: pinched by both jaws, 5 cm above the table."""

    name: str
    """As in `--robot.task`."""

    prompt: str
    """The instruction that goes into the observation."""

    belt_speed: float = 0.0
    """How fast the cube travels towards +y until it is grasped, metres per second."""

    nudged: bool = False
    """Whether somebody moves the cube once, while the arm is on its way to it."""


def _belt(speed: float) -> Task:
    # One image shows where the belt is, not how fast it runs: the instruction says it.
    prompt = f"Pick up the red cube from the belt, which moves left at {100 * speed:g} cm/s."
    return Task(name="belt", prompt=prompt, belt_speed=speed)


TASKS = {
    "cube": Task(name="cube", prompt="Pick up the red cube."),
    "belt": _belt(BELT_SPEED),
    "moved": Task(name="moved", prompt="Pick up the red cube.", nudged=True),
}


def make_task(name: str, *, belt_speed: float | None = None) -> Task:
    """Return a task by name, the belt's with another speed if one is given.

    Raises:
        ConfigError: If there is no such task, or a speed does not fit it.
    """
    task = TASKS.get(name)
    if task is None:
        raise ConfigError(f"unknown task {name!r}: expected one of {sorted(TASKS)}")
    if belt_speed is None or name != "belt":
        return task
    if not 0.0 <= belt_speed <= 0.2:
        raise ConfigError(f"belt_speed is {belt_speed} m/s: expected 0 to 0.2")
    return _belt(belt_speed)


def belt_speed_in(prompt: str) -> float:
    """Return how fast an instruction says the cube travels towards +y, metres per second; 0 if it does not."""
    said = _BELT_SPEED_WORDS.search(prompt)
    if said is None:
        return 0.0
    return float(said["speed"]) / 100.0 * (1.0 if said["way"] == "left" else -1.0)


@dataclass(frozen=True, slots=True)
class CubePose:
    """Where the cube lies on the table."""

    x: float
    """Metres, forward."""

    y: float
    """Metres, left."""

    yaw: float
    """Radians."""


def spawn(seed: int, episode: int) -> CubePose:
    """Return where the cube of an episode begins: within 7 cm of (0.23, 0), turned anyhow.

    The same seed and episode always give the same pose.
    """
    rng = np.random.default_rng([seed, episode])
    radius, angle, yaw = (
        rng.uniform(0, _SPAWN_RADIUS),
        rng.uniform(0, 2 * np.pi),
        rng.uniform(0, np.pi),
    )
    x, y = _SPAWN_CENTRE
    return CubePose(x + radius * np.cos(angle), y + radius * np.sin(angle), yaw)


def nudge(seed: int, episode: int) -> tuple[float, CubePose]:
    """Return how many seconds after the first motion the cube is moved, and to where. Repeats as `spawn`."""
    start = spawn(seed, episode)
    rng = np.random.default_rng([seed, episode, 1])
    after_s, distance = rng.uniform(*_NUDGE_S), rng.uniform(*_NUDGE_M)
    # Towards the middle, give or take: it stays where the arm reaches it.
    inwards = np.arctan2(_SPAWN_CENTRE[1] - start.y, _SPAWN_CENTRE[0] - start.x)
    angle = inwards + rng.uniform(-np.pi / 2, np.pi / 2)
    x, y = start.x + distance * np.cos(angle), start.y + distance * np.sin(angle)
    return after_s, CubePose(x, y, rng.uniform(0, np.pi))
