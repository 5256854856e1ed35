# SPDX-License-Identifier: Apache-2.0
"""What the demo needs beyond the library, and the line that installs what is missing."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

from pi05_websocket.errors import ConfigError
from pi05_websocket.extras import how_to_install

__all__ = ["check_installed", "console_script"]

_EXTRAS = {"lerobot": "lerobot", "so101_nexus": "sim", "av": "sim", "matplotlib": "sim"}
"""Module -> the extra that brings it."""

_DRIVER = {"scservo_sdk": "so101", "deepdiff": "so101"}
"""The same for LeRobot's own driver of the SO-101."""


def check_installed(*, driver: bool = False) -> None:
    """Say at once what is missing.

    Args:
        driver: Whether LeRobot's own driver of the SO-101 is needed too.

    Raises:
        ConfigError: An extra is not installed.
        SimulatorUnavailable: There is no OpenGL to render with.
    """
    needed = {**_EXTRAS, **(_DRIVER if driver else {})}
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        extras = ",".join(sorted({needed[name] for name in missing}))
        raise ConfigError(
            f"the demo needs {', '.join(missing)}. Install: "
            f"{how_to_install(extras)} (Python 3.12 or newer)"
        )
    from pi05_websocket.sim.gl import load_mujoco

    load_mujoco()


def console_script(name: str) -> str:
    """Return the path of a console script of this environment.

    Raises:
        ConfigError: If it is not there.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ConfigError(f"the command {name} is not installed in {beside.parent}")
    return found
