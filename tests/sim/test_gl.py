# SPDX-License-Identifier: Apache-2.0
"""What the simulator says on a machine that lacks something."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pi05_websocket.sim.gl import SimulatorUnavailable, load_mujoco, load_nexus


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without MuJoCo the message says which extra to install."""
    monkeypatch.setitem(sys.modules, "mujoco", None)

    with pytest.raises(SimulatorUnavailable, match=r"'mujoco'.*\[sim\]"):
        load_mujoco()


def test_missing_opengl_names_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """When MuJoCo's OpenGL bindings fail at import, the message is one apt line."""
    # What the real bindings do without libEGL.
    (tmp_path / "mujoco.py").write_text("raise AttributeError('eglQueryString')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)

    with pytest.raises(SimulatorUnavailable, match=r"eglQueryString.*apt-get install.*libegl1"):
        load_mujoco()


@pytest.mark.sim
def test_missing_simulator_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without so101-nexus the message says which extra to install."""
    monkeypatch.setitem(sys.modules, "so101_nexus.mujoco", None)

    with pytest.raises(SimulatorUnavailable, match=r"\[sim\]"):
        load_nexus()


@pytest.mark.sim
def test_rendering_without_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting of MUJOCO_GL is obeyed, none becomes egl on Linux."""
    monkeypatch.setenv("MUJOCO_GL", "egl")

    assert load_mujoco().__name__ == "mujoco"
