# SPDX-License-Identifier: Apache-2.0
"""OpenPI data transforms of an SO-101 (or SO-100), for training and for serving. Pure.

In: observations as the robot sends them, data set items after `RepackTransform` alike. Out: what a pi0 or pi0.5
model is given, and back. Belongs into an OpenPI checkout as `src/openpi/policies/so101_policy.py`; needs numpy
only, because OpenPI's `DataTransformFn` is a protocol: anything that can be called with a dictionary.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["JOINTS", "SO101Inputs", "SO101Outputs", "make_so101_example"]

JOINTS = (
    "shoulder_pan",
    "shoulder_lift",
    "elbow_flex",
    "wrist_flex",
    "wrist_roll",
    "gripper",
)
"""Motors 1 to 6, the order of every state and action."""

DELTA_DIMS = (5, -1)
"""For `make_bool_mask`: five joints become relative to the state, the gripper stays absolute."""

BASE_KEYS = (
    "observation/images/realsense",
    "observation/images/front",
    "observation.images.front",
    "image",
    "images.front",
)
"""Where the image of the scene is looked for; the first that is there is taken."""

WRIST_KEYS = (
    "observation/images/wrist2",
    "observation/images/wrist",
    "observation.images.wrist",
    "wrist_image",
    "images.wrist",
)
"""Where the wrist camera's image is looked for."""

STATE_KEYS = ("observation/state", "observation.state", "state")
"""Where the joint positions are looked for."""


@dataclasses.dataclass(frozen=True)
class SO101Inputs:
    """What the robot, or the data set, has -> what the model is given.

    A transform is applied to one item, without a batch axis. It neither writes into its argument nor hands on
    an array of joints that a later transform would write into.
    """

    model_type: Any
    """OpenPI's `ModelType`, or its value as text: "pi0", "pi05", "pi0_fast"."""

    wrist: bool = True
    """Whether the policy has a wrist camera, in training as in serving: without it a wrist image is left
    out, with it a missing one is an error."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return `state` (6,) float32, three images uint8 HWC, their masks; `actions` and `prompt` if given.

        Raises:
            KeyError: If an image or the state is missing; says what was looked for and what there is.
            ValueError: If the state or the actions are not six joints wide, or an image is not a colour image.
        """
        base = _parse_image(_first(data, BASE_KEYS, "the scene's image"))
        # No camera for it: black, and masked, but for FAST, which was trained without masks.
        absent = np.zeros_like(base)
        unmasked = np.True_ if _name(self.model_type) == "pi0_fast" else np.False_
        wrist = (
            _parse_image(_first(data, WRIST_KEYS, "the wrist's image")) if self.wrist else absent
        )
        inputs: dict[str, Any] = {
            "state": _joints(_first(data, STATE_KEYS, "the state"), "state", 1),
            "image": {
                "base_0_rgb": base,
                "left_wrist_0_rgb": wrist,
                "right_wrist_0_rgb": absent,
            },
            "image_mask": {
                "base_0_rgb": np.True_,
                "left_wrist_0_rgb": np.True_ if self.wrist else unmasked,
                "right_wrist_0_rgb": unmasked,
            },
        }
        if "actions" in data:  # training only
            inputs["actions"] = _joints(data["actions"], "actions", 2)
        if "prompt" in data:
            prompt = data["prompt"]
            inputs["prompt"] = prompt.decode() if isinstance(prompt, bytes) else prompt
        return inputs


@dataclasses.dataclass(frozen=True)
class SO101Outputs:
    """What the model answers -> what the robot is sent: the padding to the model's width is cut off."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return `actions`, (..., 6) float32; the state and whatever else there was stays behind."""
        actions = np.asarray(data["actions"])
        return {"actions": actions[..., : len(JOINTS)].astype(np.float32)}


def make_so101_example() -> dict[str, Any]:
    """Return a made-up observation with the keys of the preset `so101`, to try a policy without a robot."""
    pixels = np.random.default_rng(0)
    return {
        "observation/images/wrist2": pixels.integers(0, 256, (224, 224, 3), dtype=np.uint8),
        "observation/images/realsense": pixels.integers(0, 256, (480, 640, 3), dtype=np.uint8),
        "observation/state": np.array([0, -90, 90, 40, 0, 10], np.float32),
        "prompt": "pick up the red cube",
    }


def _first(data: dict[str, Any], keys: tuple[str, ...], what: str) -> Any:
    for key in keys:
        if key in data:
            return data[key]
    raise KeyError(f"{what}: expected one of {list(keys)}, got {sorted(map(str, data))}")


def _name(model_type: Any) -> str:
    return str(getattr(model_type, "value", model_type))


def _joints(values: Any, what: str, axes: int) -> npt.NDArray[np.float32]:
    # A copy: OpenPI's DeltaActions subtracts in place, and data set items are tensors that share memory.
    joints = np.array(values, dtype=np.float32)
    if joints.ndim != axes or joints.shape[-1] != len(JOINTS):
        expected = "(6,)" if axes == 1 else "(rows, 6)"
        raise ValueError(f"{what}: expected shape {expected}, joints {JOINTS}, got {joints.shape}")
    return joints


def _parse_image(image: Any) -> npt.NDArray[np.uint8]:
    """Return an image as uint8 HWC; LeRobot's data sets give float 0..1 CHW, robots uint8 HWC.

    Floats are cut, not rounded, as OpenPI's own transforms do; for k/255 that is k again.
    """
    image = np.asarray(image)
    if np.issubdtype(image.dtype, np.floating):
        image = (255 * image).astype(np.uint8)
    if image.ndim == 3 and image.shape[0] == 3:
        image = image.transpose(1, 2, 0)
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"image: expected (height, width, 3) or (3, height, width), got {image.shape}"
        )
    return image
