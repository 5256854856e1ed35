# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from pi05_websocket.sim.camera import FRONT_CAMERA


def test_looks_at_its_point() -> None:
    """The point it looks at is in the image's middle."""
    assert FRONT_CAMERA.project(FRONT_CAMERA.look_at) == pytest.approx([320.0, 240.0])


def test_plane_undoes_projection() -> None:
    """A point on a plane comes back from the pixel it appears at."""
    points = np.random.default_rng(0).uniform([0.1, -0.2], [0.4, 0.2], size=(30, 2))
    lifted = np.column_stack([points, np.full(30, 0.025)])

    assert FRONT_CAMERA.to_plane(FRONT_CAMERA.project(lifted), 0.025) == pytest.approx(points)


def test_up_is_up() -> None:
    """A higher point appears in a smaller row."""
    low, high = FRONT_CAMERA.project([[0.2, 0.0, 0.0], [0.2, 0.0, 0.1]])

    assert high[1] < low[1]
