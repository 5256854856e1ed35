# SPDX-License-Identifier: Apache-2.0
"""Drive an SO-101 with an OpenPI server, in a loop of one's own.

A real arm with an OpenCV wrist camera and a RealSense camera, through LeRobot's own drivers:

    python examples/control_so101_with_openpi.py --robot.type=so101_follower \
        --robot.port=/dev/ttyACM0 --robot.id=my_arm --robot.max_relative_target=10 \
        --robot.cameras='{wrist2: {type: opencv, index_or_path: 0, width: 640, height: 480, fps: 30},
            realsense: {type: intelrealsense, serial_number_or_name: "0123456789", width: 640,
                        height: 480, fps: 30}}' \
        --websocket_url=ws://GPU_MACHINE:8000 --task='pick up the red cube'

The simulated one, with `pi05-websocket serve --policy expert` in another terminal:

    python examples/control_so101_with_openpi.py --robot.type=so101_sim

Ctrl-C ends it between two ticks; the arm is then disconnected in order.
"""

# No `from __future__ import annotations` here: LeRobot's parser wants `main`'s annotation as a class.

import logging
import signal
import threading
import time
from dataclasses import dataclass, field

from lerobot.cameras.opencv import OpenCVCameraConfig  # noqa: F401 - makes `type: opencv` known
from lerobot.cameras.realsense import RealSenseCameraConfig  # noqa: F401 - `type: intelrealsense`
from lerobot.configs import parser
from lerobot.robots import Robot, RobotConfig, make_robot_from_config, so_follower  # noqa: F401

from lerobot_policy_pi05_websocket import PI05WebSocketConfig, make_policy
from lerobot_policy_pi05_websocket.modeling_pi05_websocket import PI05WebSocketPolicy

logger = logging.getLogger("control_so101")


@dataclass
class ControlConfig:
    """What to drive, with which server, how fast and how long."""

    robot: RobotConfig
    """The arm and its cameras; `--robot.type` first."""

    websocket_url: str = "ws://localhost:8000"
    """Where the OpenPI server listens."""

    task: str = "pick up the red cube"
    """What the arm shall do, in words."""

    timeout: float = 5.0
    """Longest wait for a reply, in seconds."""

    action_horizon: int | None = 8
    """Rows of a chunk to execute before the next one takes over."""

    keymap: str = "so101"
    """Names the server's policy knows; see docs/reference/presets.md."""

    cameras: dict[str, str] = field(default_factory=dict)
    """Robot camera to policy camera, where the names differ: `{front: realsense}`."""

    fallback: str = "hold"
    """What to command without a valid action: hold, zero or raise."""

    fps: float = 30.0
    """Control rate; the one the policy was trained at."""

    duration: float | None = None
    """Seconds to run; None: until Ctrl-C."""


def remote_policy(config: ControlConfig) -> PI05WebSocketPolicy:
    """Return the policy; it connects in the background."""
    return make_policy(
        PI05WebSocketConfig(
            websocket_url=config.websocket_url,
            timeout=config.timeout,
            action_horizon=config.action_horizon,
            keymap=config.keymap,
            cameras=config.cameras,
            fallback=config.fallback,
            task=config.task,
            control_hz=config.fps,
        )
    )


def control_loop(
    robot: Robot, policy: PI05WebSocketPolicy, config: ControlConfig, stop: threading.Event
) -> int:
    """Run until `stop` is set or the time is over; return the number of ticks."""
    period = 1.0 / config.fps
    limit = None if config.duration is None else round(config.duration * config.fps)
    ticks, due = 0, time.monotonic()
    policy.reset()
    while not stop.is_set() and ticks != limit:
        # 1. Joint positions and camera images, by the robot's own names.
        observation = robot.get_observation()
        # 2. to 4. Format, send, receive: when a new chunk is due, the key map makes an OpenPI observation
        # of it and the connection's thread sends it. No call waits for the reply.
        action = policy.select_action(observation)
        # 5. The chunk's row for this tick, already in the robot's names.
        robot.send_action(action)
        # 6. The same again, one period after the last time it was due and not after it was done: a slow
        # tick borrows from the next ones. Nobody can borrow a whole second.
        ticks += 1
        due = max(due + period, time.monotonic() - 1.0)
        stop.wait(max(0.0, due - time.monotonic()))
    return ticks


@parser.wrap()  # type: ignore[untyped-decorator]
def main(config: ControlConfig) -> None:
    """Connect, control, disconnect."""
    # Forced: what LeRobot imports has given the root logger a handler already.
    logging.basicConfig(
        level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", force=True
    )
    stop = threading.Event()
    policy = remote_policy(config)
    robot = make_robot_from_config(config.robot)
    try:
        robot.connect()  # may ask a person to calibrate; Ctrl-C still ends it
        # From here an event instead of an exception: half a message on the motor bus would confuse the motors.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        started = time.monotonic()
        ticks = control_loop(robot, policy, config, stop)
        seconds = time.monotonic() - started
        logger.info("%d ticks in %.1f s: %.1f Hz", ticks, seconds, ticks / max(seconds, 1e-9))
    finally:
        policy.close()
        if robot.is_connected:
            robot.disconnect()


if __name__ == "__main__":
    main()
