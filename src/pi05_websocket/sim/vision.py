# SPDX-License-Identifier: Apache-2.0
"""Where the red cube is, from the front camera's image alone. Pure.

Red pixels -> those of the lit top face -> points on the plane 25 mm above the table -> the rectangle of least
area around them. A part that the gripper hides is filled in from the cube's known size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pi05_websocket.data import UInt8Array
from pi05_websocket.sim.arm import Float64Array
from pi05_websocket.sim.camera import Camera
from pi05_websocket.sim.tasks import CUBE_SIZE

__all__ = ["Sighting", "find_cube"]

_MIN_PIXELS = 25
"""Fewer red pixels than this are no cube; a whole top face has 250 to 550."""
_TOP_BRIGHTNESS = 200
"""The top face is lit from above and saturates; the sides stay below 130."""
_YAWS = np.deg2rad(np.arange(0.0, 90.0, 1.0))


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one image says about the cube, if it lies on the table."""

    x: float
    """Centre, metres, base frame."""

    y: float
    """Centre, metres, base frame."""

    yaw: float
    """Direction of one pair of faces, radians, 0 to pi/2."""

    pixel: tuple[float, float]
    """Middle of all red pixels, (column, row): true wherever the cube is, on the table or not."""

    hidden: tuple[float, float]
    """How much of the cube's edge is out of sight along yaw and across it, metres; zeros when all is seen."""


def find_cube(
    image: UInt8Array, camera: Camera, *, near: npt.ArrayLike | None = None
) -> Sighting | None:
    """Return where the cube is; None when it is not to be seen.

    Args:
        image: `(height, width, 3)` uint8 RGB.
        camera: What took it.
        near: `(2,)` x and y in metres. What is hidden is assumed on this side.
    """
    red = (image[..., 0] > 70) & (image[..., 1] < 50) & (image[..., 2] < 50)
    rows, columns = np.nonzero(red)
    if len(rows) < _MIN_PIXELS:
        return None
    middle = (float(columns.mean()) + 0.5, float(rows.mean()) + 0.5)
    top = image[rows, columns, 0] > _TOP_BRIGHTNESS
    if top.sum() < _MIN_PIXELS:
        # Only sides in sight: a point a centimetre or two off is enough to go and look again.
        x, y = camera.to_plane(middle, CUBE_SIZE / 2)
        return Sighting(float(x), float(y), 0.0, middle, (CUBE_SIZE, CUBE_SIZE))
    pixels = np.stack([columns[top], rows[top]], axis=1) + 0.5
    points = camera.to_plane(pixels, CUBE_SIZE)
    yaw = _least_area_yaw(points)
    axes = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    along = points @ axes.T
    # Pixels are sampled at their middles: half of one is missing at each end.
    margin = camera.distance / camera.focal / 2
    low, high = along.min(axis=0) - margin, along.max(axis=0) + margin
    hidden = np.maximum(0.0, CUBE_SIZE - (high - low))
    centre = (low + high) / 2
    if near is not None:
        wish = axes @ np.asarray(near, dtype=np.float64)
        centre = np.clip(wish, centre - hidden / 2, centre + hidden / 2)
    x, y = centre @ axes
    return Sighting(float(x), float(y), yaw, middle, (float(hidden[0]), float(hidden[1])))


def _least_area_yaw(points: Float64Array) -> float:
    """Return the direction in which the smallest rectangle around points `(n, 2)` lies, 0 to pi/2."""
    directions = np.stack([np.cos(_YAWS), np.sin(_YAWS)])
    across = np.stack([-np.sin(_YAWS), np.cos(_YAWS)])
    area = np.ptp(points @ directions, axis=0) * np.ptp(points @ across, axis=0)
    return float(_YAWS[int(area.argmin())])
