# SPDX-License-Identifier: Apache-2.0
"""A policy that picks up the red cube from what an OpenPI observation contains, and nothing else.

In: both images, six joints, the prompt. Out: 50 rows of joint targets at 30 Hz. Stateless, so one object serves
many robots. What the prompt says of a belt's speed goes into the plan: each row is right for its own tick, not
for the moment of the image. It knows this camera and a red 25 mm cube: it proves the plumbing, not a model's
skill.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from pi05_websocket.data import Observation, UInt8Array
from pi05_websocket.errors import ObservationError
from pi05_websocket.images import resize_stretch
from pi05_websocket.sim.arm import JOINTS, Float64Array, forward
from pi05_websocket.sim.camera import FRONT_CAMERA, REALSENSE, WRIST
from pi05_websocket.sim.plan import rows, waypoints
from pi05_websocket.sim.tasks import belt_speed_in
from pi05_websocket.sim.vision import find_cube

__all__ = ["ACTION_HORIZON", "CONTROL_HZ", "ExpertPolicy"]

ACTION_HORIZON = 50
"""Rows in a chunk, as pi0.5 has."""

CONTROL_HZ = 30
"""The rows' rate."""

_WRIST_KEY = f"observation/images/{WRIST}"
_FRONT_KEY = f"observation/images/{REALSENSE}"
_FULL, _PADDED = (480, 640, 3), (224, 224, 3)
"""The front image as the preset sends it, and after `pad 224x224`, for a link that is far."""


class ExpertPolicy:
    """Solves the tasks `cube`, `belt` and `moved`; see the module.

    A cube it does not see is no error: it moves the gripper out of the front camera's view and looks again.
    """

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {
            "policy": "so101-expert",
            "action_horizon": ACTION_HORIZON,
            "action_dim": len(JOINTS),
            "control_hz": CONTROL_HZ,
        }

    def __repr__(self) -> str:
        return f"<ExpertPolicy action_horizon={ACTION_HORIZON}>"

    def infer(self, observation: Observation, /) -> dict[str, Any]:
        """Return `{"actions": (50, 6) float32, "policy_timing": {"infer_ms": ...}}`.

        Raises:
            ObservationError: If a key is missing or has another shape or dtype than the so101 preset gives it;
                the front image may also be padded to 224x224.
        """
        started = time.monotonic()
        joints = _joints(observation)
        wrist = _image(observation, _WRIST_KEY, (224, 224, 3))
        front = _as_taken(_image(observation, _FRONT_KEY, _FULL, _PADDED))
        if not isinstance(observation.get("prompt"), str):
            raise ObservationError("prompt", "a string", _kind(observation, "prompt"))
        tool = forward(joints)
        cube = find_cube(front, FRONT_CAMERA, near=tool.position[:2])
        path = waypoints(
            joints,
            cube,
            cube_in_jaws=_cube_in_jaws(wrist),
            drift=belt_speed_in(observation["prompt"]) / CONTROL_HZ,
        )
        actions = rows(joints, path, ACTION_HORIZON)
        return {
            "actions": actions,
            "policy_timing": {"infer_ms": (time.monotonic() - started) * 1000.0},
        }

    def reset(self) -> None:
        """Do nothing: there is no state to forget."""


def _kind(observation: Observation, key: str) -> str:
    return type(observation[key]).__name__ if key in observation else "nothing"


def _joints(observation: Observation) -> Float64Array:
    key = "observation/state"
    state = observation.get(key)
    if not isinstance(state, np.ndarray) or state.shape != (len(JOINTS),):
        got = f"shape {state.shape}" if isinstance(state, np.ndarray) else _kind(observation, key)
        raise ObservationError(key, "an array of shape (6,)", got)
    if state.dtype.kind != "f" or not np.isfinite(state).all():
        raise ObservationError(key, "finite floats", f"{state.dtype} {state.tolist()}")
    return state.astype(np.float64)


def _image(observation: Observation, key: str, *shapes: tuple[int, ...]) -> UInt8Array:
    image = observation.get(key)
    expected = " or ".join(map(str, shapes))
    if not isinstance(image, np.ndarray):
        raise ObservationError(key, f"a uint8 array of shape {expected}", _kind(observation, key))
    if image.shape not in shapes or image.dtype != np.uint8:
        raise ObservationError(key, f"uint8 {expected}", f"{image.dtype} {image.shape}")
    return image


def _as_taken(front: UInt8Array) -> UInt8Array:
    """Return a padded front image at its own size.

    Between coarse pixels the cube's edges come back: its yaw is off by 1 degree in the median instead of 3.
    """
    if front.shape == _FULL:
        return front
    rows, columns, _ = _FULL
    height = rows * _PADDED[1] // columns
    black = (_PADDED[0] - height) // 2
    return resize_stretch(front[black : black + height], rows, columns)


def _cube_in_jaws(wrist: UInt8Array) -> bool:
    """Say whether the wrist camera sees the cube as near as the fingertips are.

    Between the jaws it covers 15 to 25 % of the image, from hovering height 7 %.
    """
    red = (wrist[..., 0] > 70) & (wrist[..., 1] < 50) & (wrist[..., 2] < 50)
    return bool(red.mean() > 0.12)
