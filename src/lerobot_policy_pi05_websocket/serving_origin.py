# SPDX-License-Identifier: Apache-2.0
"""Where a checkpoint comes from: the training's own record, and the data set, if it is still on this machine.

In: the path of `train_config.json`. Out: names and rate. Reads two small files; asks nobody.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lerobot.utils.constants import ACTION, HF_LEROBOT_HOME, OBS_STATE

from lerobot_policy_pi05_websocket.serving_metadata import Origin

__all__ = ["origin_of"]

logger = logging.getLogger(__name__)


def origin_of(train_config: Path | None, weights: str | None) -> Origin:
    """Return what is known of a checkpoint.

    Args:
        train_config: What LeRobot's trainer writes beside a checkpoint; None: it is not there.
        weights: The fingerprint.
    """
    data_set = {} if train_config is None else _data_set(_read(train_config))
    features = data_set.get("features")
    known = features if isinstance(features, Mapping) else {}
    fps = data_set.get("fps")
    return Origin(
        weights=weights,
        state_names=_names(known.get(OBS_STATE)),
        action_names=_names(known.get(ACTION)),
        control_hz=float(fps) if isinstance(fps, int | float) and fps > 0 else None,
    )


def _data_set(training: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the `info.json` of the data set; `{}` when it is not on this machine."""
    said = training.get("dataset")
    if not isinstance(said, Mapping):
        return {}
    root, name = said.get("root"), said.get("repo_id")
    folders = [Path(root)] if isinstance(root, str) else []
    if isinstance(name, str):
        folders.append(HF_LEROBOT_HOME / name)
    files = [folder / "meta" / "info.json" for folder in folders]
    found = next((file for file in files if file.is_file()), None)
    return {} if found is None else _read(found)


def _names(feature: Any) -> tuple[str, ...] | None:
    """Return the names of one feature: a list, or in older data sets a map of lists."""
    names = feature.get("names") if isinstance(feature, Mapping) else None
    if isinstance(names, Mapping):
        names = [name for part in names.values() if isinstance(part, list) for name in part]
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _read(file: Path) -> Mapping[str, Any]:
    try:
        read = json.loads(file.read_text())
    except (OSError, ValueError) as exc:
        logger.warning("%s: not read, so its names are not announced: %s", file, exc)
        return {}
    return read if isinstance(read, Mapping) else {}
