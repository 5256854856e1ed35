# SPDX-License-Identifier: Apache-2.0
"""Drive an SO-101 by hand and see what a policy would have done: shadow mode, with LeRobot's own devices.

    python examples/shadow_teleoperation.py --robot.type=so101_follower --robot.port=/dev/ttyACM0 \
        --robot.id=my_arm --robot.cameras='{...}' \
        --teleop.type=so101_leader --teleop.port=/dev/ttyACM1 --teleop.id=my_leader \
        --websocket_url=ws://GPU_MACHINE:8000 --task='pick up the red cube'

Do the task with the leader arm. Nothing that the policy says moves the follower. At the end, by Ctrl-C or
after --duration, a table says for each joint how far both were apart, and what looks like a wrong sign or unit.
"""

# No `from __future__ import annotations` here: LeRobot's parser wants `main`'s annotation as a class.

import logging
import signal
import threading
import time
from dataclasses import dataclass, field

import numpy as np
from lerobot.cameras.opencv import OpenCVCameraConfig  # noqa: F401 - makes `type: opencv` known
from lerobot.cameras.realsense import RealSenseCameraConfig  # noqa: F401 - `type: intelrealsense`
from lerobot.configs import parser
from lerobot.robots import Robot, RobotConfig, make_robot_from_config, so_follower  # noqa: F401
from lerobot.teleoperators import (
    Teleoperator,
    TeleoperatorConfig,
    make_teleoperator_from_config,
    so_leader,  # noqa: F401 - makes `--teleop.type=so101_leader` known
)

from lerobot_policy_pi05_websocket import PI05WebSocketConfig, make_policy
from lerobot_policy_pi05_websocket.modeling_pi05_websocket import PI05WebSocketPolicy
from pi05_websocket.robot.shadow import Shadow

logger = logging.getLogger("shadow_teleoperation")


@dataclass
class ShadowConfig:
    """What a person drives with what, and which policy looks on."""

    robot: RobotConfig
    """The arm and its cameras; `--robot.type` first."""

    teleop: TeleoperatorConfig
    """What the person holds; `--teleop.type` first."""

    websocket_url: str = "ws://localhost:8000"
    """Where the OpenPI server listens."""

    task: str = "pick up the red cube"
    """What the person is going to do, in words."""

    keymap: str = "so101"
    """Names the server's policy knows; see docs/reference/presets.md."""

    cameras: dict[str, str] = field(default_factory=dict)
    """Robot camera to policy camera, where the names differ: `{front: realsense}`."""

    fps: float = 30.0
    """Control rate; the one the policy was trained at."""

    duration: float | None = None
    """Seconds to run; None: until Ctrl-C."""


def follow(
    robot: Robot,
    teleop: Teleoperator,
    policy: PI05WebSocketPolicy,
    config: ShadowConfig,
    stop: threading.Event,
) -> Shadow:
    """Let the person drive until `stop`; return what was compared."""
    joints = list(robot.action_features)
    shadow = Shadow([joint.removesuffix(".pos") for joint in joints])
    due = began = time.monotonic()
    while not stop.is_set():
        observation = robot.get_observation()
        policy.select_action(observation)  # a dry run: what it returns is the pose the arm had
        wanted = teleop.get_action()
        robot.send_action(wanted)
        shadow.add(np.array([wanted[joint] for joint in joints], np.float32), policy.predicted)
        due += 1 / config.fps
        stop.wait(max(0.0, due - time.monotonic()))
        if config.duration is not None and time.monotonic() - began >= config.duration:
            break
    return shadow


@parser.wrap()  # type: ignore[untyped-decorator]  # LeRobot is untyped for mypy
def main(config: ShadowConfig) -> None:
    """Connect everything, compare, disconnect everything."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    robot = make_robot_from_config(config.robot)
    teleop = make_teleoperator_from_config(config.teleop)
    policy = make_policy(
        PI05WebSocketConfig(
            websocket_url=config.websocket_url,
            keymap=config.keymap,
            cameras=config.cameras,
            task=config.task,
            control_hz=config.fps,
            dry_run=True,
            seam="replace",
        )
    )
    try:
        robot.connect()
        teleop.connect()
        print(follow(robot, teleop, policy, config, stop).table())
    finally:
        policy.close()
        for device in (teleop, robot):
            if device.is_connected:
                device.disconnect()


if __name__ == "__main__":
    main()
