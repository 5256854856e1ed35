# SPDX-License-Identifier: Apache-2.0
"""What LeRobot hands a policy, taken apart: images by camera name, joint vector, task.

In: a LeRobot batch (tensors, with a batch dimension) or `robot.get_observation()` as it comes.
Out: one `RobotObservation` for each environment, in numpy. No other file looks into a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pi05_websocket.data import Float32Array
from pi05_websocket.errors import ObservationError

__all__ = ["RobotObservation", "is_raw", "joint_order", "split_batch", "split_raw"]

STATE = "observation.state"
IMAGE = "observation.image"
"""The one camera of single-camera environments; its camera name is `image`."""
IMAGES = "observation.images."
JOINT_SUFFIX = ".pos"


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotObservation:
    """One arm's observation before key mapping."""

    images: Mapping[str, npt.NDArray[Any]]
    """Camera name to `(H, W, 3)` or `(3, H, W)`, uint8 or float in [0, 1]."""

    state: Float32Array
    """`(state_dim,)` joint positions in the robot's order and units."""

    task: str


def is_raw(batch: Mapping[str, Any]) -> bool:
    """Say whether this is `robot.get_observation()` itself: joint floats, no `observation.` keys."""
    return not any(key.startswith("observation.") for key in batch)


def joint_order(raw: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return the keys of the joints in a raw observation, in policy order.

    Args:
        names: Joint names with or without `.pos`; empty: the robot's own order.

    Raises:
        ObservationError: A joint is missing.
    """
    present = [key for key in raw if key.endswith(JOINT_SUFFIX)]
    if not names:
        return present
    wanted = [name if name.endswith(JOINT_SUFFIX) else name + JOINT_SUFFIX for name in names]
    for key in wanted:
        if key not in raw:
            raise ObservationError(
                key,
                "this joint in the robot's observation",
                f"joints {', '.join(present) or 'none'}",
                "Set joint_names to the robot's, in the order the policy was trained with",
            )
    return wanted


def split_raw(raw: Mapping[str, Any], joints: Sequence[str], task: str) -> RobotObservation:
    """Take `robot.get_observation()` apart; `joints` are its joint keys in policy order.

    Raises:
        ObservationError: No joints, or one that is no number.
    """
    if not joints:
        raise ObservationError(
            STATE,
            "joint positions named '<joint>.pos'",
            f"keys {', '.join(map(str, raw)) or 'none'}",
        )
    try:
        state = np.array([float(raw[key]) for key in joints], np.float32)
    except (TypeError, ValueError) as exc:
        raise ObservationError(STATE, "a number for each joint", str(exc)) from exc
    images = {
        key: image
        for key, value in raw.items()
        if (image := _as_array(value)) is not None and image.ndim == 3
    }
    return RobotObservation(images=images, state=state, task=task)


def split_batch(batch: Mapping[str, Any], default_task: str) -> list[RobotObservation]:
    """Take a LeRobot batch apart, one entry for each environment.

    Raises:
        ObservationError: No state, or sizes that do not agree.
    """
    state = _as_array(batch.get(STATE))
    if state is None or state.ndim != 2:
        got = "nothing" if state is None else f"shape {state.shape}"
        raise ObservationError(STATE, "a tensor of shape (batch, state_dim)", got)
    size = len(state)
    images = {
        name: _batched_image(key, batch[key], size)
        for key in batch
        if (name := _camera_name(key)) is not None
    }
    tasks = _tasks(batch.get("task"), size, default_task)
    return [
        RobotObservation(
            images={name: image[i] for name, image in images.items()},
            state=np.ascontiguousarray(state[i], np.float32),
            task=tasks[i],
        )
        for i in range(size)
    ]


def _camera_name(key: str) -> str | None:
    if key == IMAGE:
        return "image"
    return key.removeprefix(IMAGES) if key.startswith(IMAGES) else None


def _batched_image(key: str, value: Any, size: int) -> npt.NDArray[Any]:
    image = _as_array(value)
    if image is None or image.ndim != 4 or len(image) != size:
        got = type(value).__name__ if image is None else f"shape {image.shape}"
        raise ObservationError(key, f"a tensor of shape ({size}, channels, height, width)", got)
    return image


def _as_array(value: Any) -> npt.NDArray[Any] | None:
    """Return tensors and arrays as numpy, without a copy where they are in main memory."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        return tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
    return value if isinstance(value, np.ndarray) else None


def _tasks(task: Any, size: int, default: str) -> list[str]:
    if task is None or isinstance(task, str):
        return [task or default] * size
    tasks = [str(entry) or default for entry in task]
    if len(tasks) != size:
        raise ObservationError("task", f"one text for each of {size} environments", f"{len(tasks)}")
    return tasks
