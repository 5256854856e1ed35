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

from lerobot.robots import Robot, RobotConfig
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from pi05_websocket.errors import ConfigError
from pi05_websocket.robot.trace import Trace
from pi05_websocket.sim.arm import JOINTS, LOWER, UPPER
from pi05_websocket.sim.episodes import EpisodeRules, NextEpisode
from pi05_websocket.sim.record import TRACE_NAME, ArmRecord
from pi05_websocket.sim.so101 import CAMERA_SHAPES, IllegalAction, SimConfig, SimSO101
from pi05_websocket.sim.tasks import BELT_SPEED, make_task

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
        self._record: Any = None  # an ArmRecord while connected

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
        self._record = record = self._make_record()
        try:
            self._sim = SimSO101(
                self.config.sim_config(), on_event=record.tell, on_frames=record.add_frames
            )
        except BaseException:
            record.close()
            raise
        record.tell_cube(0)

    def _make_record(self) -> ArmRecord:
        folder = None
        if self.config.record_dir is not None:
            folder = Path(self.config.record_dir).expanduser()
        return ArmRecord(
            Trace(None if folder is None else folder / TRACE_NAME),
            seed=self.config.seed,
            folder=folder,
            live_image=self.config.live_image,
        )

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
        self._record.tell_joints([seen[motor] for motor in _MOTORS])
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
        self._record.tell_command(sent, sim.episode)
        return dict(zip(_MOTORS, sent.tolist(), strict=True))

    def disconnect(self) -> None:
        """Stop the simulator and finish the recording.

        Raises:
            DeviceNotConnectedError: Before `connect`.
        """
        self._running().close()
        self._sim = None
        self._record.close()

    def _running(self) -> SimSO101:
        if self._sim is None:
            raise DeviceNotConnectedError(f"{self} is not connected: call connect() first")
        return self._sim
