# SPDX-License-Identifier: Apache-2.0
"""MuJoCo and the simulator package, loaded so that they render without a display. Shell."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from pi05_websocket.errors import Pi05WebsocketError
from pi05_websocket.extras import how_to_install

__all__ = ["SimulatorUnavailable", "load_mujoco", "load_nexus"]

_APT = "apt-get install -y --no-install-recommends libegl1 libopengl0 libgl1-mesa-dri"


class SimulatorUnavailable(Pi05WebsocketError):
    """The simulator cannot run on this machine; the message says what to install."""


def load_mujoco() -> Any:
    """Import MuJoCo with headless rendering; a `MUJOCO_GL` that is already set is obeyed.

    Raises:
        SimulatorUnavailable: If MuJoCo or the OpenGL library it was told to use is missing.
    """
    if sys.platform.startswith("linux"):
        # MuJoCo reads it while it is imported, and its own default needs a display.
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        return importlib.import_module("mujoco")
    except ModuleNotFoundError as exc:
        raise SimulatorUnavailable(_missing_extra(exc)) from exc
    except Exception as exc:  # the GL bindings raise whatever the dynamic linker left them
        raise gl_missing(exc) from exc


def gl_missing(cause: BaseException) -> SimulatorUnavailable:
    """Say that headless OpenGL is missing and what to install."""
    backend = os.environ.get("MUJOCO_GL", "unset")
    return SimulatorUnavailable(
        f"headless OpenGL (MUJOCO_GL={backend}) does not work here: {cause}. Install it with: {_APT}"
        " (and leave MUJOCO_GL unset)"
    )


def load_nexus() -> Any:
    """Import so101-nexus with its MuJoCo environments registered.

    Raises:
        SimulatorUnavailable: If it, MuJoCo or OpenGL is missing.
    """
    load_mujoco()
    try:
        importlib.import_module("so101_nexus.mujoco")
        return importlib.import_module("so101_nexus")
    except ModuleNotFoundError as exc:
        raise SimulatorUnavailable(_missing_extra(exc)) from exc


def _missing_extra(cause: ModuleNotFoundError) -> str:
    return (
        f"the simulator needs the package {cause.name!r}. Install the extra: "
        f"{how_to_install('sim')} (Python 3.12 or newer)"
    )
