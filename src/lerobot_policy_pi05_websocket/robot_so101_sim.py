# SPDX-License-Identifier: Apache-2.0
"""`--robot.type=so101_sim`: a simulated SO-101 that LeRobot drives like a real one.

In: actions under LeRobot's joint names (degrees; gripper 0 to 100). Out: six joints, cameras `wrist2` and
`realsense`. Physics follow the wall clock, so latency costs what it costs in reality. Nothing to calibrate.

Episodes: LeRobot tells a robot nothing about them, so `next_episode` says what the next cube waits for.

    done   one second after success, or when time is up: for `--strategy.type=base`.
           The arm goes on from where it is.
    idle   half a second without a command: for `--strategy.type=episodic`, which returns the arm home and then
           only looks on (give it `--dataset.reset_time_s=1` or more).
    never  the first cube is the only one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from lerobot.robots import Robot, RobotConfig
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from pi05_websocket.errors import ConfigError
from pi05_websocket.robot.trace import Trace
from pi05_websocket.sim.arm import JOINTS, LOWER, UPPER
from pi05_websocket.sim.cameras import Images
from pi05_websocket.sim.episodes import EpisodeEvent, EpisodeRules, NextEpisode
from pi05_websocket.sim.live import LiveImage
from pi05_websocket.sim.so101 import CAMERA_SHAPES, IllegalAction, SimConfig, SimSO101
from pi05_websocket.sim.tasks import BELT_SPEED, make_task, spawn

__all__ = ["SO101Sim", "SO101SimConfig"]

logger = logging.getLogger(__name__)

_MOTORS = tuple(f"{joint}.pos" for joint in JOINTS)
_RULES = ("done", "idle", "never")


@RobotConfig.register_subclass("so101_sim")
@dataclass(kw_only=True)
class SO101SimConfig(RobotConfig):  # type: ignore[misc]  # LeRobot is untyped for mypy
    """What to simulate."""

    task: str = "cube"
    """`cube` lies still, `belt` carries it towards +y, `moved` is moved once while the arm is on its way. Say
    what to do with `--task`."""

    seed: int = 0
    """Decides where the cubes lie."""

    belt_speed: float = BELT_SPEED
    """Metres per second, for `belt`."""

    next_episode: str = "done"
    """What the next cube waits for: done, idle or never."""

    time_limit_s: float = 10.0
    """Seconds of motion after which an episode has failed."""

    record_dir: str | None = None
    """Folder for `realsense.mp4`, `wrist2.mp4` and `robot.jsonl`: frames, commands, joints and episodes."""

    live_image: str | None = None
    """A JPEG that shows both cameras, renewed ten times a second: for a window in another process."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.next_episode not in _RULES:
            raise ConfigError(
                f"next_episode={self.next_episode!r}: expected one of {', '.join(_RULES)}"
            )
        if not self.time_limit_s > 0:
            raise ConfigError(f"time_limit_s={self.time_limit_s}: must be more than 0")
        self.sim_config()

    def sim_config(self) -> SimConfig:
        """Return these settings as the simulator's.

        Raises:
            ConfigError: If there is no such task, or the belt's speed is impossible.
        """
        rule: NextEpisode = self.next_episode  # type: ignore[assignment]  # checked in __post_init__
        rules = EpisodeRules(next_episode=rule, time_limit_s=self.time_limit_s)
        return SimConfig(
            task=make_task(self.task, belt_speed=self.belt_speed), seed=self.seed, rules=rules
        )


class SO101Sim(Robot):  # type: ignore[misc]  # LeRobot is untyped for mypy
    """A simulated arm on the wall clock; see the module."""

    config_class = SO101SimConfig
    name = "so101_sim"
    observation_features: ClassVar[dict[str, Any]] = {
        **dict.fromkeys(_MOTORS, float),
        **CAMERA_SHAPES,
    }
    action_features: ClassVar[dict[str, Any]] = dict.fromkeys(_MOTORS, float)
    joint_ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        joint: (float(low), float(high))
        for joint, low, high in zip(JOINTS, LOWER, UPPER, strict=True)
    }
    """Each joint's range, LeRobot's units."""
    is_calibrated = True

    def __init__(self, config: SO101SimConfig) -> None:
        super().__init__(config)
        self.config = config
        self.cameras = dict(CAMERA_SHAPES)  # LeRobot counts them
        self._sim: SimSO101 | None = None
        self._trace = Trace(None)
        self._recorder: Any = None
        self._live: LiveImage | None = None

    @property
    def is_connected(self) -> bool:
        """Whether the simulator runs."""
        return self._sim is not None

    def connect(self, calibrate: bool = True) -> None:
        """Build the scene and wait for the first frames: one to three seconds.

        Raises:
            DeviceAlreadyConnectedError: If it runs already.
            SimulatorUnavailable: If the simulator or OpenGL is missing; says what to install.
        """
        if self._sim is not None:
            raise DeviceAlreadyConnectedError(f"{self} is already connected")
        logger.info("%s: building the scene and rendering the first frames", self.name)
        self._start_recording()
        self._live = None if self.config.live_image is None else LiveImage(self.config.live_image)
        try:
            self._sim = SimSO101(
                self.config.sim_config(),
                on_event=self._tell,
                on_frames=self._on_frames,
            )
        except BaseException:
            self._stop_recording()
            raise
        self._tell_cube(0)

    def _start_recording(self) -> None:
        if self.config.record_dir is None:
            return
        from pi05_websocket.sim.recording import FrameRecorder

        folder = Path(self.config.record_dir).expanduser()
        self._recorder = FrameRecorder(folder)
        self._trace = Trace(folder / "robot.jsonl")
        self._trace.write("recording", video_origin_s=self._recorder.origin_s)

    def _stop_recording(self) -> None:
        if self._recorder is not None:
            self._recorder.close()
            self._trace.write(
                "recorded", frames=self._recorder.frames, dropped=self._recorder.dropped
            )
            self._recorder = None
        self._trace.close()
        self._trace = Trace(None)

    def calibrate(self) -> None:
        """Do nothing: a simulated arm knows its joints."""

    def configure(self) -> None:
        """Do nothing: everything is in the config."""

    def get_observation(self) -> dict[str, Any]:
        """Return six `<joint>.pos` floats and the cameras' latest `(height, width, 3)` uint8 RGB frames.

        Raises:
            DeviceNotConnectedError: Before `connect`.
        """
        seen = self._running().get_observation()
        joints = [round(seen[motor], 3) for motor in _MOTORS]
        self._trace.write("joints", values=joints)
        return seen

    def send_action(self, action: Mapping[str, Any]) -> dict[str, float]:
        """Take joint targets; return them as clipped to the joints' limits.

        Raises:
            IllegalAction: A joint is missing, unknown, or its value not finite. The last target stays.
            DeviceNotConnectedError: Before `connect`.
        """
        sim = self._running()
        wrong = set(action) ^ set(_MOTORS)
        if wrong:
            raise IllegalAction(
                f"expected exactly {', '.join(_MOTORS)}; missing or unknown: {', '.join(sorted(wrong))}"
            )
        sent = sim.send_action([float(action[motor]) for motor in _MOTORS])
        self._trace.write("command", values=np.round(sent, 3).tolist(), episode=sim.episode)
        return dict(zip(_MOTORS, sent.tolist(), strict=True))

    def disconnect(self) -> None:
        """Stop the simulator and finish the recording.

        Raises:
            DeviceNotConnectedError: Before `connect`.
        """
        self._running().close()
        self._sim = None
        self._stop_recording()

    def _on_frames(self, images: Images) -> None:
        if self._recorder is not None:
            self._recorder.add(images)
        if self._live is not None:
            self._live.show(images)

    def _running(self) -> SimSO101:
        if self._sim is None:
            raise DeviceNotConnectedError(f"{self} is not connected: call connect() first")
        return self._sim

    def _tell(self, event: EpisodeEvent) -> None:
        if event.kind == "next":
            self._tell_cube(event.episode)
            return
        self._trace.write(
            event.kind,
            episode=event.episode,
            success=event.success,
            duration_s=round(event.duration_s, 3),
        )
        if event.kind == "ended":
            outcome = "succeeded" if event.success else "failed"
            logger.info("episode %d %s after %.2f s", event.episode, outcome, event.duration_s)

    def _tell_cube(self, episode: int) -> None:
        cube = spawn(self.config.seed, episode)
        self._trace.write(
            "cube", episode=episode, x=round(cube.x, 4), y=round(cube.y, 4), yaw=round(cube.yaw, 4)
        )
