# SPDX-License-Identifier: Apache-2.0
"""The front camera's calibration: where it stands, and pixels to points on a plane and back. Pure.

The simulator renders from it and the expert sees through it, so both mean the same camera.
Coordinates in metres, base frame (see `arm`); pixels as `(column, row)` from the image's top left corner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pi05_websocket.sim.arm import Float64Array

__all__ = ["FRONT_CAMERA", "REALSENSE", "WRIST", "Camera"]

WRIST = "wrist2"
"""Name of the camera on the gripper, 224×224×3."""

REALSENSE = "realsense"
"""Name of the front camera, 480×640×3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """A pinhole camera that looks at a point."""

    look_at: tuple[float, float, float]
    """The point in the image's middle."""

    distance: float
    """From there, in metres."""

    azimuth: float
    """Direction of view on the table, degrees from x towards y."""

    elevation: float
    """Direction of view against the table, degrees; negative looks down."""

    fovy: float
    """Vertical field of view, degrees."""

    width: int
    """Columns."""

    height: int
    """Rows."""

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return float(self.height / 2 / np.tan(np.deg2rad(self.fovy) / 2))

    @property
    def axes(self) -> Float64Array:
        """Rows: right, down and view direction, unit vectors, `(3, 3)`."""
        azimuth, elevation = np.deg2rad([self.azimuth, self.elevation])
        view = np.array(
            [
                np.cos(elevation) * np.cos(azimuth),
                np.cos(elevation) * np.sin(azimuth),
                np.sin(elevation),
            ]
        )
        right = np.cross(view, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(view, right), view])

    @property
    def position(self) -> Float64Array:
        """The pinhole, `(3,)`."""
        return np.asarray(self.look_at) - self.distance * self.axes[2]

    def project(self, points: npt.ArrayLike) -> Float64Array:
        """Return the pixels `(..., 2)` at which points `(..., 3)` appear."""
        seen = (np.asarray(points, dtype=np.float64) - self.position) @ self.axes.T
        centre = np.array([self.width, self.height]) / 2
        return np.asarray(centre + self.focal * seen[..., :2] / seen[..., 2:])

    def to_plane(self, pixels: npt.ArrayLike, z: float) -> Float64Array:
        """Return the points `(..., 2)` (x, y) at height `z` that pixels `(..., 2)` show."""
        centre = np.array([self.width, self.height]) / 2
        offset = (np.asarray(pixels, dtype=np.float64) - centre) / self.focal
        rays = offset @ self.axes[:2] + self.axes[2]
        scale = (z - self.position[2]) / rays[..., 2:]
        return np.asarray(self.position[:2] + scale * rays[..., :2])


FRONT_CAMERA = Camera(
    look_at=(0.2, 0.0, 0.06),
    distance=0.6,
    azimuth=150.0,
    elevation=-40.0,
    fovy=45.0,
    width=640,
    height=480,
)
"""`realsense`: in front of the arm and to its right, seeing the whole workspace."""
