# SPDX-License-Identifier: Apache-2.0
"""A simulated SO-101 that lives on a clock: between two commands its physics go on, holding the last target.

So latency costs what it costs in reality. In: joint targets in LeRobot's units. Out: joints and two camera
images, nothing privileged. Any thread may call it; commands and observations are serialised.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pi05_websocket.clock import SYSTEM_CLOCK, Clock
from pi05_websocket.errors import ConfigError, Pi05WebsocketError
from pi05_websocket.sim.arm import HOME, JOINTS, LOWER, UPPER, Float64Array
from pi05_websocket.sim.camera import FRONT_CAMERA, REALSENSE, WRIST
from pi05_websocket.sim.cameras import CameraOnDemand, Cameras, CameraThread, Images
from pi05_websocket.sim.episodes import EpisodeEvent, EpisodeKeeper, EpisodeRules
from pi05_websocket.sim.rendering import WRIST_SIZE, Look
from pi05_websocket.sim.scene import STEP_S, Scene
from pi05_websocket.sim.tasks import TASKS, Task, nudge, spawn

__all__ = ["CAMERA_SHAPES", "IllegalAction", "SimConfig", "SimSO101", "checked_action"]

CAMERA_SHAPES = {
    WRIST: (WRIST_SIZE, WRIST_SIZE, 3),
    REALSENSE: (FRONT_CAMERA.height, FRONT_CAMERA.width, 3),
}
"""Camera name to `(height, width, 3)`; uint8 RGB."""

_MOTION = 2.0
"""A target farther than this from the joints, in degrees or percent, is a motion and not a hold."""

EventSink = Callable[[EpisodeEvent], None]


class IllegalAction(Pi05WebsocketError, ValueError):
    """An action no servo could execute: not finite, wrong joints, or a joint missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimConfig:
    """What is simulated."""

    task: Task = TASKS["cube"]
    """What is to be done."""

    seed: int = 0
    """Decides where the cubes lie; the same seed gives the same episodes."""

    rules: EpisodeRules = EpisodeRules()  # noqa: RUF009  (frozen, no state)
    """When episodes end and begin."""

    render: Literal["thread", "demand"] = "thread"
    """`thread`: cameras run at 30 Hz beside the control loop, for the wall clock.
    `demand`: each observation renders its own moment, for a virtual clock."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}: expected 0 or more")


def checked_action(values: npt.ArrayLike) -> Float64Array:
    """Return joint targets `(6,)` clipped to the joints' limits, as the servos would.

    Raises:
        IllegalAction: If there are not six of them, or one is not finite.
    """
    targets = np.asarray(values, dtype=np.float64)
    if targets.shape != (len(JOINTS),):
        raise IllegalAction(f"expected six joint targets {JOINTS}, got shape {targets.shape}")
    wrong = [name for name, value in zip(JOINTS, targets, strict=True) if not np.isfinite(value)]
    if wrong:
        raise IllegalAction(f"expected finite joint targets, got {targets.tolist()}: see {wrong}")
    return np.clip(targets, LOWER, UPPER)


class SimSO101:
    """One simulated arm with its two cameras, its cube and its episodes. A context manager.

    Args:
        config: What is simulated.
        clock: What the physics follow. With a virtual clock use `render="demand"`.
        on_event: Told of every episode event, in the thread that stepped the physics; must be quick.
        on_frames: Given every pair of frames, in the thread that rendered it.

    Raises:
        SimulatorUnavailable: If the simulator or OpenGL is missing; says what to install.
    """

    def __init__(
        self,
        config: SimConfig | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
        on_event: EventSink | None = None,
        on_frames: Callable[[Images], None] | None = None,
    ) -> None:
        self.config = config or SimConfig()
        self._clock = clock
        self._on_event = on_event
        self._on_frames = on_frames
        self._lock = threading.RLock()
        self._scene = Scene(belt_speed=self.config.task.belt_speed)
        self._seed = self.config.seed
        self._keeper = self._new_keeper()
        self._epoch_s = 0.0
        self.reset()
        self._cameras = self._open_cameras()

    def __repr__(self) -> str:
        return f"<SimSO101 {self.config.task.name} seed={self._seed} {self._keeper!r}>"

    def __enter__(self) -> SimSO101:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open_cameras(self) -> Cameras:
        kind: Any = CameraThread if self.config.render == "thread" else CameraOnDemand
        cameras: Cameras = kind(self._scene.model, self._snapshot, self._on_frames)
        return cameras

    def reset(self, seed: int | None = None) -> None:
        """Put the arm home, at once, and lay out episode 0. For tests and benchmarks: a real arm cannot."""
        with self._lock:
            self._seed = self._seed if seed is None else seed
            self._keeper = self._new_keeper()
            self._scene.reset(HOME, spawn(self._seed, 0))
            self._epoch_s = self._clock.now()

    def _new_keeper(self) -> EpisodeKeeper:
        seed = self._seed
        nudged = self.config.task.nudged
        return EpisodeKeeper(
            self.config.rules, (lambda episode: nudge(seed, episode)[0]) if nudged else None
        )

    def get_observation(self) -> dict[str, Any]:
        """Return LeRobot's flat form: six `<joint>.pos` floats, and an image under each camera's name."""
        images = self._cameras.read()
        return {**self.get_joints(), **images}

    def get_joints(self) -> dict[str, float]:
        """Return the six joint values of an observation, without images."""
        with self._lock:
            self._advance()
            joints = self._scene.joints
        return {f"{name}.pos": float(value) for name, value in zip(JOINTS, joints, strict=True)}

    def send_action(self, values: npt.ArrayLike) -> Float64Array:
        """Take joint targets `(6,)` from now on; return them as clipped to the joints' limits.

        Raises:
            IllegalAction: If they are not six finite numbers. The last target stays.
        """
        targets = checked_action(values)
        with self._lock:
            self._advance()
            moves = bool(np.abs(targets - self._scene.joints).max() > _MOTION)
            self._scene.set_target(targets)
            self._tell(self._keeper.commanded(self._clock.now(), moves=moves))
        return targets

    def begin_next_episode(self) -> None:
        """Lay out the next cube now, whatever the rule says; the arm stays where it is."""
        with self._lock:
            self._advance()
            self._tell(self._keeper.begin_next(self._clock.now()))

    @property
    def episode(self) -> int:
        """Number of the current episode, from 0."""
        return self._keeper.episode

    @property
    def succeeded(self) -> bool:
        """Whether the current episode has succeeded, as of the last call."""
        return self._keeper.succeeded

    @property
    def cube_position(self) -> Float64Array:
        """Where the cube really is, `(3,)` metres. For tests: no observation contains it."""
        with self._lock:
            return self._scene.cube_position

    def close(self) -> None:
        """Stop the cameras and free the simulator. Idempotent."""
        self._cameras.close()
        with self._lock:
            self._scene.close()

    def _snapshot(self) -> Look:
        with self._lock:
            self._advance()
            return self._scene.look()

    def _advance(self) -> None:
        """Step the physics up to the clock's present."""
        # The small share makes a step due that rounding puts a hair into the future.
        due = int((self._clock.now() - self._epoch_s) / STEP_S + 1e-6)
        while self._scene.steps < due:
            lifted = self._scene.step()
            moment = self._epoch_s + self._scene.steps * STEP_S
            self._tell(self._keeper.observed(moment, lifted=lifted))

    def _tell(self, events: list[EpisodeEvent]) -> None:
        for event in events:
            if event.kind == "next":
                self._scene.place_cube(spawn(self._seed, event.episode))
            elif event.kind == "moved":
                self._scene.place_cube(nudge(self._seed, event.episode)[1])
            if self._on_event is not None:
                self._on_event(event)
