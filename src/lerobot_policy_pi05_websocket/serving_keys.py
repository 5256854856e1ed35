# SPDX-License-Identifier: Apache-2.0
"""What a robot sends, as the batch a LeRobot policy wants.

In: an observation in OpenPI's manner (flat keys, uint8 images, a prompt). Out: a row for a batch, on the CPU,
its images still bytes. Runs on the policy thread.

The rule: LeRobot's dots are slashes. `observation.images.front` is looked for under `observation/images/front`,
then under its own name, unless the settings say under which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lerobot.configs import FeatureType, PreTrainedConfig
from lerobot.utils.constants import OBS_STATE
from torch import Tensor

from pi05_websocket.errors import ConfigError, ObservationError
from pi05_websocket.wire.decoding import path_text

__all__ = ["WITH_QUEUES", "ObservationKeys"]

PROMPT = "prompt"
WITH_QUEUES = ("multi_task_dit", "tdmpc", "vqbet")
"""Types that answer from queues of their own, which they fill with what they see first."""

_RESIZE_BY_THEMSELVES = ("pi0", "pi05", "smolvla")
_MOST_NAMED = 12
"""Keys in an error; robots have up to ten cameras."""

_PLACEHOLDER = "empty_camera"
"""Cameras of the pretraining that this policy does not have; it fills them in itself."""


class ObservationKeys:
    """Which observation entry is which input of one policy.

    Args:
        config: The policy's; its `input_features` say what it needs.
        renamed: Input feature to observation key, where the rule does not hold.

    Raises:
        ConfigError: A feature is renamed that the policy does not have.
    """

    def __init__(self, config: PreTrainedConfig, renamed: Mapping[str, str] | None = None) -> None:
        self._features = {
            name: feature
            for name, feature in config.input_features.items()
            if _PLACEHOLDER not in name
        }
        unknown = set(renamed or {}) - set(self._features)
        if unknown:
            known = ", ".join(self._features)
            raise ConfigError(
                f"the policy has no input {', '.join(sorted(unknown))}; it has {known}"
            )
        self._keys = {
            name: (renamed or {}).get(name, name.replace(".", "/")) for name in self._features
        }
        self._any_size = config.type in _RESIZE_BY_THEMSELVES
        repeats = config.type not in WITH_QUEUES
        self._steps = (getattr(config, "n_obs_steps", 1) or 1) if repeats else 1

    def __repr__(self) -> str:
        return f"<ObservationKeys {', '.join(self._keys.values())}>"

    @property
    def keys(self) -> tuple[str, ...]:
        """The observation entries the policy needs, besides the prompt."""
        return tuple(self._keys.values())

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Observation entry to its shape, in the policy's order; images `(rows, columns, 3)`."""
        return {
            self._keys[name]: (*feature.shape[1:], feature.shape[0])
            if feature.type is FeatureType.VISUAL
            else tuple(feature.shape)
            for name, feature in self._features.items()
        }

    @property
    def state_width(self) -> int | None:
        """How many values the policy's state has; None: it sees none."""
        feature = self._features.get(OBS_STATE)
        return None if feature is None else int(feature.shape[0])

    @property
    def image_sizes(self) -> dict[str, list[int]]:
        """Observation entry to `[rows, columns]` of the images the policy was trained with."""
        return {
            self._keys[name]: [int(side) for side in feature.shape[1:]]
            for name, feature in self._features.items()
            if feature.type is FeatureType.VISUAL
        }

    def example(self) -> dict[str, Any]:
        """Return an observation as the policy was trained with: black images, zeros, some prompt."""
        images = self.image_sizes
        shown = {
            key: np.zeros(shape, np.uint8 if key in images else np.float32)
            for key, shape in self.shapes.items()
        }
        return {**shown, PROMPT: "pick up the cube"}

    def sizes_of(self, observation: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the sizes of the images of one observation: images of two sizes make no batch.

        What is missing or no image has the size None; `batch` says what is wrong with it.
        """
        found = (
            observation.get(key, observation.get(name))
            for name, key in self._keys.items()
            if self._features[name].type is FeatureType.VISUAL
        )
        return tuple(value.shape if isinstance(value, np.ndarray) else None for value in found)

    def batch(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Return `(1, ...)` tensors by LeRobot's names, and `task`; images uint8 `(1, ..., rows, columns, 3)`.

        A policy that looks at several steps sees this one repeated. It was trained with steps one tick apart;
        a robot's last request is half a chunk old, so that remembering it would show a motion that was not.

        Raises:
            ObservationError: An entry is missing or is not what the policy was trained with.
        """
        batch: dict[str, Any] = {}
        for name, feature in self._features.items():
            key, value = self._find(name, observation)
            if feature.type is FeatureType.VISUAL:
                tensor = _image(key, value, None if self._any_size else tuple(feature.shape))
            else:
                tensor = _vector(key, value, feature.shape[0])
            if self._steps > 1:
                tensor = tensor.expand(self._steps, *tensor.shape)
            batch[name] = tensor[None]
        batch["task"] = [_prompt(observation)]
        return batch

    def _find(self, name: str, observation: Mapping[str, Any]) -> tuple[str, Any]:
        key = self._keys[name]
        for candidate in (key, name):
            if candidate in observation:
                return candidate, observation[candidate]
        raise ObservationError(
            key,
            f"the policy's input {name}",
            f"the keys {_named(observation)}",
            f"Let the robot's key map send it, or serve with ?{name}=ITS_KEY",
        )


def _image(key: str, value: Any, shape: tuple[int, ...] | None) -> Tensor:
    """Return `(H, W, 3)` uint8; `shape` is what it must be, channels first, None: any size."""
    is_image = isinstance(value, np.ndarray) and value.dtype == np.uint8
    if not is_image or value.ndim != 3 or value.shape[2] != 3:
        raise ObservationError(key, "a uint8 image (height, width, 3)", _described(value))
    if shape is not None and value.shape[:2] != shape[1:]:
        raise ObservationError(
            key,
            f"an image of {shape[1]} x {shape[2]} pixels, as in the data set",
            f"{value.shape[0]} x {value.shape[1]}",
            "Set the camera's height and width in the robot's key map",
        )
    # A copy: what was received may be read-only, and torch wants to own what it may write.
    return torch.from_numpy(value.copy())


def _vector(key: str, value: Any, size: int) -> Tensor:
    """Return `(size,)` float32."""
    is_vector = isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and value.ndim == 1
    if not is_vector or len(value) != size:
        raise ObservationError(key, f"{size} numbers", _described(value))
    if not np.isfinite(value).all():
        raise ObservationError(key, "finite numbers", "NaN or infinity")
    return torch.from_numpy(value.astype(np.float32))


def _prompt(observation: Mapping[str, Any]) -> str:
    prompt = observation.get(PROMPT, "")
    if not isinstance(prompt, str):
        raise ObservationError(PROMPT, "text", _described(prompt))
    return prompt


def _named(observation: Mapping[str, Any]) -> str:
    """Return the names of what was sent; whoever sends chooses how long and how many they are."""
    keys = sorted(map(str, observation))
    more = f" and {len(keys) - _MOST_NAMED} more" if len(keys) > _MOST_NAMED else ""
    return ", ".join(path_text([key]) for key in keys[:_MOST_NAMED]) + more or "none"


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return type(value).__name__
