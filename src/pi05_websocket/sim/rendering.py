# SPDX-License-Identifier: Apache-2.0
"""The two cameras: joint positions of a scene in, RGB images out.

Shell around OpenGL. An object belongs to the thread that made it. Shadows, reflections and multisampling are
off: with them a pair of images takes a second on a machine without a GPU, without them 11 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pi05_websocket.data import UInt8Array
from pi05_websocket.sim.arm import Float64Array
from pi05_websocket.sim.camera import FRONT_CAMERA, REALSENSE, WRIST
from pi05_websocket.sim.gl import gl_missing, load_mujoco

__all__ = ["WRIST_SIZE", "CameraRig", "Look"]

WRIST_SIZE = 224
"""Edge of the wrist camera's image, pixels."""

_MAX_GEOMS = 400

_MAT = (0.22, 0.0, 0.20, 0.24)
_BELT = (0.23, 0.0, 0.18, 0.60)
"""Centre x, y and size x, y of what the cube lies on, metres. For the eye only: nothing collides with it."""

_STRIPE_PITCH = 0.04
_MAT_COLOUR = (0.16, 0.20, 0.26, 1.0)
_BELT_COLOUR = (0.12, 0.13, 0.14, 1.0)
_STRIPE_COLOUR = (0.24, 0.26, 0.28, 1.0)
_LINE_COLOUR = (0.55, 0.62, 0.70, 1.0)


@dataclass(frozen=True, slots=True)
class Look:
    """What is to be seen at one moment."""

    qpos: Float64Array
    """The simulator's generalised positions."""

    belt_travel: float | None
    """How far the belt has moved, metres; None where there is no belt."""


class CameraRig:
    """Renders `wrist2` and `realsense` from snapshots of a scene.

    Raises:
        SimulatorUnavailable: If there is no working OpenGL.
    """

    def __init__(self, model: Any) -> None:
        self._mujoco = mujoco = load_mujoco()
        self._model = model
        # Positions of its own, so that rendering never reads what physics is writing.
        self._pose = mujoco.MjData(model)
        model.vis.global_.fovy = FRONT_CAMERA.fovy
        try:
            self._gl = mujoco.GLContext(FRONT_CAMERA.width, FRONT_CAMERA.height)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except Exception as exc:  # EGL and OSMesa bindings have no common error
            raise gl_missing(exc) from exc
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, _MAX_GEOMS)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = 0
        self._options = mujoco.MjvOption()
        self._cameras = {
            WRIST: (self._wrist_camera(), WRIST_SIZE, WRIST_SIZE),
            REALSENSE: (self._front_camera(), FRONT_CAMERA.width, FRONT_CAMERA.height),
        }
        # Compiles the shaders; and Mesa's very first frame differs from its repetitions by a grey level or two.
        self.render(Look(np.array(model.qpos0), None))

    def _wrist_camera(self) -> Any:
        camera = self._mujoco.MjvCamera()
        camera.type = self._mujoco.mjtCamera.mjCAMERA_FIXED
        camera.fixedcamid = self._model.camera("wrist_cam").id
        return camera

    def _front_camera(self) -> Any:
        camera = self._mujoco.MjvCamera()
        camera.type = self._mujoco.mjtCamera.mjCAMERA_FREE
        camera.lookat[:] = FRONT_CAMERA.look_at
        camera.distance = FRONT_CAMERA.distance
        camera.azimuth, camera.elevation = FRONT_CAMERA.azimuth, FRONT_CAMERA.elevation
        return camera

    def render(self, look: Look) -> dict[str, UInt8Array]:
        """Return one `(height, width, 3)` RGB image for each camera, new arrays every time."""
        self._gl.make_current()
        self._pose.qpos[:] = look.qpos
        self._mujoco.mj_kinematics(self._model, self._pose)
        self._mujoco.mj_camlight(self._model, self._pose)
        return {
            name: self._image(camera, width, height, look.belt_travel)
            for name, (camera, width, height) in self._cameras.items()
        }

    def _image(self, camera: Any, width: int, height: int, belt_travel: float | None) -> UInt8Array:
        mujoco = self._mujoco
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            self._model, self._pose, self._options, None, camera, everything, self._scene
        )
        self._lay_surface(belt_travel)
        viewport = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(viewport, self._scene, self._context)
        image = np.empty((height, width, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(image, None, viewport, self._context)
        return np.ascontiguousarray(image[::-1])  # OpenGL's first row is the lowest

    def _lay_surface(self, belt_travel: float | None) -> None:
        if belt_travel is None:
            x, y, width, length = _MAT
            self._slab((x, y), (width + 0.006, length + 0.006), 0.0003, _LINE_COLOUR)
            self._slab((x, y), (width, length), 0.0006, _MAT_COLOUR)
            return
        x, y, width, length = _BELT
        self._slab((x, y), (width, length), 0.0003, _BELT_COLOUR)
        first = y - length / 2 + belt_travel % _STRIPE_PITCH
        for stripe in np.arange(first, y + length / 2, _STRIPE_PITCH):
            self._slab((x, float(stripe)), (width, 0.006), 0.0006, _STRIPE_COLOUR)

    def _slab(
        self,
        centre: tuple[float, float],
        size: tuple[float, float],
        top: float,
        colour: tuple[float, float, float, float],
    ) -> None:
        """Add a flat box to what is drawn, its top side `top` metres above the table."""
        geom = self._scene.geoms[self._scene.ngeom]
        self._mujoco.mjv_initGeom(
            geom,
            self._mujoco.mjtGeom.mjGEOM_BOX,
            np.array([size[0] / 2, size[1] / 2, top / 2]),
            np.array([*centre, top / 2]),
            np.eye(3).ravel(),
            np.array(colour, dtype=np.float32),
        )
        geom.specular = 0.0
        self._scene.ngeom += 1

    def close(self) -> None:
        """Free the OpenGL context, in the thread that made it."""
        self._context.free()
        self._gl.free()
