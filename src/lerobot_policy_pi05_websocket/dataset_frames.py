# SPDX-License-Identifier: Apache-2.0
"""Frames of a LeRobot data set as a policy sees them: for whoever asks a policy about what was recorded.

In: a data set's folder and a key map. Out: observations in policy names. Reads frames one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lerobot.datasets import LeRobotDataset

from lerobot_policy_pi05_websocket.observations import split_batch
from pi05_websocket.data import Observation
from pi05_websocket.errors import ConfigError
from pi05_websocket.keymap import KeyMap

__all__ = ["observations"]


def observations(folder: Path, key_map: KeyMap, most: int) -> Iterator[Observation]:
    """Yield frames, spread evenly over the data set.

    Args:
        folder: Of the data set: the one that holds `meta`.
        key_map: Its cameras and joints to the policy's keys.
        most: How many.

    Raises:
        ConfigError: It is no data set of the LeRobot that is installed.
        ObservationError: It does not fit the key map.
    """
    try:
        dataset = LeRobotDataset(folder.name, root=folder)
    except Exception as exc:  # LeRobot, pyarrow and the hub's client raise what they like
        raise ConfigError(f"{folder}: LeRobot cannot read this data set: {exc}") from exc
    for number in range(0, len(dataset), max(1, len(dataset) // most))[:most]:
        frame = dataset[number]
        batch = {
            key: value[None] if hasattr(value, "ndim") else value for key, value in frame.items()
        }
        (seen,) = split_batch(batch, str(frame.get("task", "")))
        yield key_map.observation(seen.images, seen.state, seen.task)
