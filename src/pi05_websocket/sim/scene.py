# SPDX-License-Identifier: Apache-2.0
"""The physics: an arm, a table, a cube, perhaps a belt. Steps of 10 ms, driven by whoever holds it.

Knows no clock and no thread. In: joint targets in LeRobot's units. Out: joints, and whether the cube is lifted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pi05_websocket.sim.arm import HOME, Float64Array, to_degrees, to_radians
from pi05_websocket.sim.decimate import decimate
from pi05_websocket.sim.gl import load_mujoco, load_nexus
from pi05_websocket.sim.rendering import Look
from pi05_websocket.sim.tasks import CUBE_SIZE, CubePose

__all__ = ["STEP_S", "Scene"]

STEP_S = 0.01
"""Length of one step, seconds: the resolution at which latency counts."""

_PHYSICS_STEP_S = 0.005
_CELL = 0.0025
"""Metres; what this costs and gains is in `decimate`."""

_CUBE_JOINT = "pick_slot_0_joint"
_BELT_END = 0.24
"""The belt carries nothing beyond this y, metres."""

_ARM_COLOUR = (0.93, 0.90, 0.84, 1.0)
_TABLE_COLOUR = (0.40, 0.43, 0.47, 1.0)


class Scene:
    """One arm and one cube.

    Args:
        belt_speed: Metres per second towards +y, for a cube that lies on the table ungrasped.

    Raises:
        SimulatorUnavailable: If the simulator or OpenGL is missing.
    """

    def __init__(self, *, belt_speed: float = 0.0) -> None:
        self._mujoco = load_mujoco()
        self._env = _make_env()
        self._env.reset(seed=0, options={"init_qpos": to_radians(HOME)})
        self.model = self._env.model
        self._data = self._env.data
        self._paint()
        decimate(self.model, _CELL)
        joint = self.model.joint(_CUBE_JOINT)
        self._cube = slice(int(joint.qposadr[0]), int(joint.qposadr[0]) + 7)
        self._cube_speed = slice(int(joint.dofadr[0]), int(joint.dofadr[0]) + 6)
        self._belt_speed = belt_speed
        self._target = to_radians(HOME).astype(np.float32)
        self._grasped = False
        self.steps = 0
        """Steps taken so far; `steps * STEP_S` is the scene's time."""

    def __repr__(self) -> str:
        return f"<Scene steps={self.steps} grasped={self._grasped}>"

    def _paint(self) -> None:
        for material in range(self.model.nmat):
            name = self.model.material(material).name
            if "_so101_" in name:
                self.model.mat_rgba[material] = _ARM_COLOUR
        self.model.geom_rgba[self.model.geom("floor").id] = _TABLE_COLOUR

    def reset(self, joints: Float64Array, cube: CubePose) -> None:
        """Begin anew: the arm at rest with its place as its target, so that nothing jumps; time zero."""
        radians = to_radians(joints)
        self._mujoco.mj_resetData(self.model, self._data)
        self._data.qpos[:6] = radians
        self._data.ctrl[:6] = radians
        self._target = radians.astype(np.float32)
        self.steps = 0
        self.place_cube(cube)

    def place_cube(self, pose: CubePose) -> None:
        """Lay the cube on the table at rest; the arm stays as it is."""
        half = pose.yaw / 2
        self._data.qpos[self._cube] = [
            pose.x, pose.y, CUBE_SIZE / 2, np.cos(half), 0.0, 0.0, np.sin(half),
        ]  # fmt: skip
        self._data.qvel[self._cube_speed] = 0.0
        self._grasped = False
        self._mujoco.mj_forward(self.model, self._data)

    def set_target(self, joints: Float64Array) -> None:
        """Take joints `(6,)` in LeRobot's units as the servos' target until the next call."""
        self._target = to_radians(joints).astype(np.float32)

    def step(self) -> bool:
        """Advance by `STEP_S`; return whether the cube is pinched and lifted, the simulator's own predicate."""
        self._carry()
        *_, report = self._env.step(self._target)
        self._grasped = bool(report["is_grasped"])
        self.steps += 1
        return bool(report["success"])

    def _carry(self) -> None:
        # The belt is kinematic: friction cannot be given a speed without another body under the cube.
        y, z = self._data.qpos[self._cube][1:3]
        if self._belt_speed and not self._grasped and z < CUBE_SIZE and y < _BELT_END:
            self._data.qpos[self._cube.start + 1] += self._belt_speed * STEP_S

    @property
    def joints(self) -> Float64Array:
        """Measured joints `(6,)` in LeRobot's units."""
        return to_degrees(self._data.qpos[:6])

    @property
    def cube_position(self) -> Float64Array:
        """Where the cube really is, `(3,)` metres. For tests and traces: no observation contains it."""
        return np.array(self._data.qpos[self._cube][:3])

    def look(self) -> Look:
        """Return a snapshot for the cameras."""
        travel = self.steps * STEP_S * self._belt_speed if self._belt_speed else None
        return Look(np.array(self._data.qpos), travel)

    def close(self) -> None:
        """Release the simulator."""
        self._env.close()


def _make_env() -> Any:
    nexus = load_nexus()
    import gymnasium
    from so101_nexus.config import PhysicsConfig, RenderConfig

    config = nexus.PickConfig(
        objects=[nexus.CubeObject(half_size=CUBE_SIZE / 2, color="red")],
        observations=[nexus.JointPositions()],
        terminate_on_success=False,
        # Read when the model's rendering context is made; shadows are off per image too (`rendering`).
        render=RenderConfig(
            quality=nexus.RenderingQuality(msaa_samples=0, shadows=False, shadow_map_size=1)
        ),
        # The package's own CPU preset, but for the shorter control period.
        physics=PhysicsConfig(
            timestep_s=_PHYSICS_STEP_S,
            control_period_s=STEP_S,
            integrator="implicitfast",
            noslip_iterations=3,
            tolerance=1e-8,
        ),
    )
    made = gymnasium.make("MuJoCoPickLift-v1", config=config, disable_env_checker=True)
    return made.unwrapped  # its wrappers only count steps and check call order
