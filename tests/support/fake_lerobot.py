# SPDX-License-Identifier: Apache-2.0
"""A LeRobot arm and a LeRobot environment without hardware or physics, registered as users register theirs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.robots import Robot, RobotConfig
from lerobot.teleoperators import Teleoperator, TeleoperatorConfig

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
START = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)


@RobotConfig.register_subclass("fake_arm")
@dataclass
class FakeArmConfig(RobotConfig):
    """`--robot.type=fake_arm`."""

    camera_names: list[str] = field(default_factory=lambda: ["wrist2", "realsense"])


class FakeArm(Robot):
    """Goes at once where it is told, and remembers everything it was told."""

    config_class = FakeArmConfig
    name = "fake_arm"
    made: ClassVar[list[FakeArm]] = []
    at_send: ClassVar[dict[int, Callable[[], Any]]] = {}
    """What a test wants to happen after so many commands."""

    def __init__(self, config: FakeArmConfig) -> None:
        super().__init__(config)
        self.config = config
        self.pose = dict(zip(self.action_features, START, strict=True))
        self.sent: list[tuple[float, dict[str, float]]] = []
        self.disconnected = False
        self._connected = False
        self._images = {
            "wrist2": np.full((224, 224, 3), 50, np.uint8),
            "realsense": np.full((480, 640, 3), 100, np.uint8),
        }
        self.made.append(self)

    @cached_property
    def action_features(self) -> dict[str, Any]:
        return {f"{joint}.pos": float for joint in JOINTS}

    @cached_property
    def observation_features(self) -> dict[str, Any]:
        sizes = {"wrist2": (224, 224, 3)}
        cameras = {name: sizes.get(name, (480, 640, 3)) for name in self.config.camera_names}
        return {**self.action_features, **cameras}

    @property
    def is_connected(self) -> bool:
        return self._connected

    @property
    def is_calibrated(self) -> bool:
        return True

    def connect(self, calibrate: bool = True) -> None:
        self._connected = True

    def calibrate(self) -> None:
        pass

    def configure(self) -> None:
        pass

    def get_observation(self) -> dict[str, Any]:
        images = {
            name: self._images.get(name, self._images["realsense"])
            for name in self.config.camera_names
        }
        return {**self.pose, **images}

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        assert set(action) == set(self.action_features)
        self.sent.append((time.monotonic(), dict(action)))
        self.pose = dict(action)
        self.at_send.get(len(self.sent), lambda: None)()
        return action

    def disconnect(self) -> None:
        self._connected = False
        self.disconnected = True


class FakeEnv(gym.Env):
    """A six-joint world: the state is what was commanded, the goal is to hear 40 from the server."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 30}
    task = "reach"
    task_description = "reach forty"
    _max_episode_steps = 12

    def __init__(self, render_mode: str = "rgb_array", **_: Any) -> None:
        self.render_mode = render_mode
        box = gym.spaces.Box
        self.observation_space = gym.spaces.Dict(
            {
                "agent_pos": box(-1000, 1000, (6,), np.float64),
                "pixels": gym.spaces.Dict(
                    {
                        "wrist2": box(0, 255, (224, 224, 3), np.uint8),
                        "realsense": box(0, 255, (480, 640, 3), np.uint8),
                    }
                ),
            }
        )
        self.action_space = box(-1000, 1000, (6,), np.float32)
        self._steps = 0
        self._pose = np.zeros(6)

    def _observation(self) -> dict[str, Any]:
        return {
            "agent_pos": self._pose,
            "pixels": {
                "wrist2": np.full((224, 224, 3), 7, np.uint8),
                "realsense": np.full((480, 640, 3), 8, np.uint8),
            },
        }

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        self._pose = np.full(6, float(self.np_random.integers(1, 9)))
        return self._observation(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        self._pose = np.asarray(action, np.float64)
        success = bool(self._pose[0] >= 40)
        return (
            self._observation(),
            float(success),
            success,
            self._steps >= 12,
            {"is_success": success},
        )

    def render(self) -> np.ndarray:
        return np.zeros((64, 64, 3), np.uint8)


@EnvConfig.register_subclass("fake_world")
@dataclass
class FakeEnvConfig(EnvConfig):
    """`--env.type=fake_world`."""

    task: str | None = "FakeWorld-v0"
    fps: int = 30
    features: dict[str, PolicyFeature] = field(
        default_factory=lambda: {
            "action": PolicyFeature(type=FeatureType.ACTION, shape=(6,)),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(6,)),
            "pixels/wrist2": PolicyFeature(type=FeatureType.VISUAL, shape=(224, 224, 3)),
            "pixels/realsense": PolicyFeature(type=FeatureType.VISUAL, shape=(480, 640, 3)),
        }
    )
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            "action": "action",
            "agent_pos": "observation.state",
            "pixels/wrist2": "observation.images.wrist2",
            "pixels/realsense": "observation.images.realsense",
        }
    )

    @property
    def package_name(self) -> str:
        return "fake_lerobot"

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {"render_mode": "rgb_array"}


gym.register("fake_lerobot/FakeWorld-v0", entry_point=FakeEnv, max_episode_steps=12)


@TeleoperatorConfig.register_subclass("fake_leader")
@dataclass
class FakeLeaderConfig(TeleoperatorConfig):
    """`--teleop.type=fake_leader`."""


class FakeLeader(Teleoperator):
    """A person who turns every joint by half a degree a tick."""

    config_class = FakeLeaderConfig
    name = "fake_leader"

    def __init__(self, config: FakeLeaderConfig) -> None:
        super().__init__(config)
        self.ticks = 0
        self._connected = False

    @property
    def action_features(self) -> dict[str, Any]:
        return {f"{joint}.pos": float for joint in JOINTS}

    @property
    def feedback_features(self) -> dict[str, Any]:
        return {}

    @property
    def is_connected(self) -> bool:
        return self._connected

    @property
    def is_calibrated(self) -> bool:
        return True

    def connect(self, calibrate: bool = True) -> None:
        self._connected = True

    def calibrate(self) -> None:
        pass

    def configure(self) -> None:
        pass

    def get_action(self) -> dict[str, float]:
        self.ticks += 1
        return {
            f"{joint}.pos": start + 0.5 * self.ticks
            for joint, start in zip(JOINTS, START, strict=True)
        }

    def send_feedback(self, feedback: dict[str, Any]) -> None:
        pass

    def disconnect(self) -> None:
        self._connected = False
