# SPDX-License-Identifier: Apache-2.0
"""LeRobot's calibration file of an arm, as JSON from disk. What it means is in `limits`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pi05_websocket.errors import ConfigError

__all__ = ["read_calibration"]


def read_calibration(path: str | Path) -> Mapping[str, Mapping[str, Any]]:
    """Return motor name to `range_min`, `range_max` and more.

    Raises:
        ConfigError: The file cannot be read, or is something else.
    """
    try:
        read = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ConfigError(f"calibration_file={str(path)!r} cannot be read: {exc}") from exc
    if not isinstance(read, dict) or not all(isinstance(entry, dict) for entry in read.values()):
        raise ConfigError(f"calibration_file={str(path)!r}: expected motors with ranges in it")
    return read
