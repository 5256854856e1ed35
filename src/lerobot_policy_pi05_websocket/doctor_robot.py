# SPDX-License-Identifier: Apache-2.0
"""LeRobot's robots for `pi05-websocket doctor`: made by LeRobot's own words, and only ever read.

In: `--robot.*` and `--policy.*` words. Out: configs, and something to read. A robot's own `connect` writes to
its motors and switches their torque; a robot with a motor bus is read without it.
"""

# No `from __future__ import annotations` here: LeRobot's parser wants the classes themselves.

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import draccus
import numpy as np
import numpy.typing as npt
from lerobot.cameras.opencv import OpenCVCameraConfig  # noqa: F401 - makes `type: opencv` known
from lerobot.cameras.realsense import RealSenseCameraConfig  # noqa: F401 - `type: intelrealsense`
from lerobot.configs import PreTrainedConfig
from lerobot.robots import RobotConfig, make_robot_from_config, so_follower  # noqa: F401
from lerobot.utils.import_utils import register_third_party_plugins

from lerobot_policy_pi05_websocket.configuration_pi05_websocket import PI05WebSocketConfig
from lerobot_policy_pi05_websocket.observations import joint_order, split_raw
from lerobot_policy_pi05_websocket.robot_so101_sim import SO101Sim
from pi05_websocket.client import ConnectionConfig
from pi05_websocket.doctor.check_dataset import Episode
from pi05_websocket.doctor.facts import Setup
from pi05_websocket.doctor.gathering import RobotSource
from pi05_websocket.errors import ConfigError
from pi05_websocket.robot.interface import RobotReading
from pi05_websocket.robot.settings import joint_ranges

__all__ = ["LerobotWords", "connection", "episode", "opened", "parsed", "setup"]


@dataclass
class LerobotWords:
    """The part of `lerobot-rollout`'s words that is examined."""

    robot: RobotConfig | None = None
    policy: PreTrainedConfig | None = None


def parsed(words: Sequence[str]) -> LerobotWords:
    """Read LeRobot's words as LeRobot does.

    Raises:
        ConfigError: They make no sense, or name another policy.
    """
    register_third_party_plugins()
    words = list(words)
    if any(word.startswith("--policy.") for word in words) and not any(
        word.startswith("--policy.type") for word in words
    ):
        words.insert(0, "--policy.type=pi05_websocket")
    try:
        found = draccus.parse(config_class=LerobotWords, args=words)
    except SystemExit as exc:  # it has printed what is wrong
        raise ConfigError("LeRobot does not understand these words") from exc
    except Exception as exc:
        raise ConfigError(f"LeRobot does not understand these words: {exc}") from exc
    if found.policy is not None and not isinstance(found.policy, PI05WebSocketConfig):
        raise ConfigError(f"--policy.type={found.policy.type}: expected pi05_websocket")
    return found


def setup(config: PI05WebSocketConfig, task: str) -> Setup:
    """Return how the policy's settings drive a robot."""
    key_map = config.key_map()
    ranges = joint_ranges(
        joint_limits=config.joint_limits,
        calibration_file=config.calibration_file,
        joints=key_map.joint_names,
        units=config._unit_settings().robot_side(key_map.joint_names),
    )
    return replace(
        config.setup(key_map),
        task=task or config.task,
        joint_ranges={
            name.removesuffix(".pos"): bounds
            for name, bounds in zip(key_map.joint_names, ranges or (), strict=False)
        },
    )


def connection(config: PI05WebSocketConfig) -> ConnectionConfig:
    """Return how to reach the policy's server.

    Raises:
        ConfigError: A key's source is missing.
    """
    return config.connection_config()


@contextlib.contextmanager
def opened(
    config: RobotConfig, joints: Sequence[str], *, may_connect: bool
) -> Iterator[RobotSource]:
    """Give something to read; nothing is written to the motors, before, meanwhile or after.

    Args:
        config: LeRobot's.
        joints: Names in the policy's order; empty: the robot's own.
        may_connect: Whether a robot without a motor bus may connect by its own means.

    Raises:
        ConfigError: It has no motor bus, and may not.
    """
    robot: Any = make_robot_from_config(config)
    simulated = isinstance(robot, SO101Sim)

    def read() -> RobotReading:
        raw = robot.get_observation()
        seen = split_raw(raw, joint_order(raw, joints), "")
        return RobotReading(images=seen.images, joints=seen.state)

    with contextlib.ExitStack() as closing:
        if hasattr(robot, "bus"):
            robot.bus.connect()  # pings the motors; `robot.connect` would configure them
            closing.callback(robot.bus.disconnect, disable_torque=False)
            for camera in robot.cameras.values():
                camera.connect()
                closing.callback(camera.disconnect)
        elif simulated or may_connect:
            robot.connect(calibrate=False)
            closing.callback(robot.disconnect)
        else:
            raise ConfigError(
                f"{config.type}: this robot has no motor bus of LeRobot's, and its own connect() may switch "
                "its torque. --connect-robot lets it, with a hand at the arm"
            )
        degrees = getattr(config, "use_degrees", None)
        yield RobotSource(
            read=read,
            noiseless=simulated or _only_simulated(config),
            units="lerobot"
            if simulated or degrees
            else ""
            if degrees is None
            else "lerobot_normalized",
            calibrated=bool(robot.is_calibrated) if hasattr(robot, "bus") else None,
        )


def _only_simulated(config: RobotConfig) -> bool:
    cameras = list(getattr(config, "cameras", {}).values())
    return bool(cameras) and all(camera.type == "so101_sim" for camera in cameras)


def episode(folder: Path, number: int, joints: Sequence[str]) -> Episode:
    """Return a recorded episode.

    Args:
        folder: Of a LeRobot data set.
        number: Which one.
        joints: Names in the policy's order; empty: the data set's own.

    Raises:
        ConfigError: No data set, no such episode, or no joints of these names.
    """
    from lerobot.datasets import LeRobotDataset

    try:
        data = LeRobotDataset(f"local/{folder.name}", root=folder)
        rows = data.hf_dataset.with_format("numpy")
        index = np.flatnonzero(np.asarray(rows["episode_index"]) == number)
        states = np.stack([np.asarray(rows[int(i)]["observation.state"]) for i in index])
        actions = np.stack([np.asarray(rows[int(i)]["action"]) for i in index])
    except Exception as exc:
        raise ConfigError(f"--dataset {folder}: episode {number} cannot be read: {exc}") from exc
    named = [name.removesuffix(".pos") for name in data.meta.features["action"]["names"]]
    wanted = [name.removesuffix(".pos") for name in joints] or named
    if sorted(wanted) != sorted(named):
        raise ConfigError(
            f"--dataset {folder}: joints {', '.join(named)}; expected {', '.join(wanted)}"
        )
    order = [named.index(name) for name in wanted]

    def images(frame: int) -> Mapping[str, npt.NDArray[Any]]:
        item = data[int(index[frame])]
        prefix = "observation.images."
        return {
            key.removeprefix(prefix): item[key].numpy() for key in item if key.startswith(prefix)
        }

    return Episode(
        states=states[:, order].astype(np.float32),
        actions=actions[:, order].astype(np.float32),
        images=images,
        fps=float(data.meta.fps),
        tasks=[str(task) for task in data.meta.tasks.index],
    )
