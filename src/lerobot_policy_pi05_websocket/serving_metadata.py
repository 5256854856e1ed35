# SPDX-License-Identifier: Apache-2.0
"""What a served checkpoint says about itself: in the server's metadata, plain maps, lists, texts and numbers.

In: the policy's config and what its files say of its origin. Out: a map. Runs where the policy is made.
What no file says is left out: LeRobot stores no units, and names and rate only with the data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lerobot.configs import PreTrainedConfig
from lerobot.processor import RelativeActionsProcessorStep
from lerobot.utils.constants import ACTION

from lerobot_policy_pi05_websocket.serving_keys import ObservationKeys
from lerobot_policy_pi05_websocket.serving_model import action_horizon

__all__ = ["Origin", "described"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What the files around a checkpoint say of it; None where they do not."""

    weights: str | None = None
    """Fingerprint of its weights."""

    state_names: tuple[str, ...] | None = None
    """Of the state's values, in their order."""

    action_names: tuple[str, ...] | None = None
    """Of an action's values, in their order."""

    control_hz: float | None = None
    """Ticks per second of the data set it was trained with."""


def described(
    config: PreTrainedConfig, keys: ObservationKeys, preprocessor: Any, origin: Origin
) -> dict[str, Any]:
    """Return sizes, names and rate of a policy: what a robot must agree with."""
    width = int(config.output_features[ACTION].shape[0])
    said = {
        "policy": str(config.type),
        "action_dim": width,
        "action_horizon": action_horizon(config),
        "action_names": _fitting(_action_names(config, preprocessor) or origin.action_names, width),
        "observation_keys": list(keys.keys),
        "observation_shapes": {key: list(shape) for key, shape in keys.shapes.items()},
        "state_names": _fitting(origin.state_names, keys.state_width),
        "cameras": list(keys.image_sizes),
        "image_sizes": keys.image_sizes,
        "n_obs_steps": int(getattr(config, "n_obs_steps", 1) or 1),
        "control_hz": origin.control_hz,
    }
    return {name: value for name, value in said.items() if value is not None}


def _action_names(config: PreTrainedConfig, preprocessor: Any) -> tuple[str, ...] | None:
    """Return the names the checkpoint itself holds: π₀ and π₀.₅ need them for relative actions."""
    steps = [s for s in preprocessor.steps if isinstance(s, RelativeActionsProcessorStep)]
    candidates = [getattr(config, "action_feature_names", None), *(s.action_names for s in steps)]
    return next((tuple(map(str, names)) for names in candidates if names), None)


def _fitting(names: tuple[str, ...] | None, width: int | None) -> list[str] | None:
    """Return the names, or None where there is not one for each value: then they are of something else."""
    return list(names) if names is not None and len(names) == width else None
