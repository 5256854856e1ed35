# SPDX-License-Identifier: Apache-2.0
"""Images here are drawn by projecting a cube's faces, without a simulator."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pi05_websocket.data import UInt8Array
from pi05_websocket.sim.camera import FRONT_CAMERA
from pi05_websocket.sim.tasks import CUBE_SIZE
from pi05_websocket.sim.vision import find_cube

TOP, SIDE, TABLE = (255, 0, 0), (110, 0, 0), (50, 60, 70)


def corners(x: float, y: float, yaw: float, z: float) -> np.ndarray:
    """Return the pixels of the four corners of the cube's top or bottom face."""
    half = CUBE_SIZE / 2
    square = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    points = square @ turn.T + [x, y]
    return FRONT_CAMERA.project(np.column_stack([points, np.full(4, z)]))


def draw(x: float, y: float, yaw: float) -> UInt8Array:
    """Return an image of the cube on the table."""
    image = np.full((480, 640, 3), TABLE, dtype=np.uint8)
    top, bottom = corners(x, y, yaw, CUBE_SIZE), corners(x, y, yaw, 0.0)
    hull = cv2.convexHull(np.vstack([top, bottom]).astype(np.int32))
    cv2.fillPoly(image, [hull], SIDE)
    cv2.fillPoly(image, [top.astype(np.int32)], TOP)
    return image


@pytest.mark.parametrize(
    ("x", "y", "yaw"), [(0.23, 0.0, 0.3), (0.17, 0.05, 1.2), (0.29, -0.04, 0.8)]
)
def test_finds_a_cube_in_the_open(x: float, y: float, yaw: float) -> None:
    """Position within 1.5 mm and direction within 4 degrees, from one image."""
    seen = find_cube(draw(x, y, yaw), FRONT_CAMERA)

    assert seen is not None
    assert [seen.x, seen.y] == pytest.approx([x, y], abs=0.0015)
    assert abs(np.sin(2 * (seen.yaw - yaw))) == pytest.approx(0.0, abs=np.sin(np.deg2rad(8)))
    assert max(seen.hidden) < 0.002


def test_no_red_is_no_cube() -> None:
    """An empty table is None."""
    assert find_cube(np.full((480, 640, 3), TABLE, dtype=np.uint8), FRONT_CAMERA) is None


def test_hidden_part_is_assumed_near_the_hint() -> None:
    """Half a cube is completed on the side of the hint, from its known size."""
    image = draw(0.23, 0.0, 0.0)
    column = int(FRONT_CAMERA.project([0.23, 0.0, CUBE_SIZE])[0])
    image[:, column:] = TABLE  # what is right in the image is hidden

    seen = find_cube(image, FRONT_CAMERA, near=[0.23, 0.0])

    assert seen is not None
    assert [seen.x, seen.y] == pytest.approx([0.23, 0.0], abs=0.006)
    assert max(seen.hidden) > 0.003


def test_only_sides_in_sight_give_a_rough_place() -> None:
    """Without the lit top face the place is still good to two centimetres, and marked as hidden."""
    image = draw(0.23, 0.02, 0.4)
    image[image[..., 0] == TOP[0]] = TABLE

    seen = find_cube(image, FRONT_CAMERA)

    assert seen is not None
    assert [seen.x, seen.y] == pytest.approx([0.23, 0.02], abs=0.02)
    assert seen.hidden == (CUBE_SIZE, CUBE_SIZE)
