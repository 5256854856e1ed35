# SPDX-License-Identifier: Apache-2.0
"""LeRobot's side of `pi05_websocket`: the policy type, the simulated robot and its cameras, and `make_policy`.

LeRobot imports this package by name when it looks for plugins; importing it registers
`--policy.type=pi05_websocket`, `--robot.type=so101_sim`, `--env.type=so101_sim` and the camera type
`so101_sim`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lerobot_policy_pi05_websocket.camera_so101_sim import SO101SimCamera, SO101SimCameraConfig
from lerobot_policy_pi05_websocket.configuration_pi05_websocket import PI05WebSocketConfig
from lerobot_policy_pi05_websocket.env_so101_sim import SO101SimEnvConfig
from lerobot_policy_pi05_websocket.robot_so101_sim import SO101Sim, SO101SimConfig

if TYPE_CHECKING:
    from lerobot_policy_pi05_websocket.modeling_pi05_websocket import PI05WebSocketPolicy

__all__ = [
    "PI05WebSocketConfig",
    "SO101Sim",
    "SO101SimCamera",
    "SO101SimCameraConfig",
    "SO101SimConfig",
    "SO101SimEnvConfig",
    "make_policy",
]


def make_policy(
    config: PI05WebSocketConfig, *, robot: Any = None, **overrides: Any
) -> PI05WebSocketPolicy:
    """Return a ready policy for a script of one's own; connects in the background.

    LeRobot's own `make_policy` wants a dataset or an environment beside the config; a script with a robot has
    neither. Ticks follow the clock, as for every robot, unless `config.tick_source` says otherwise.

    Args:
        config: The settings.
        robot: LeRobot's robot; no target then leaves the joint ranges LeRobot knows of it, unless the settings
            name other ones.
        overrides: Passed on to `PI05WebSocketPolicy`, for example `clock`.
    """
    from lerobot_policy_pi05_websocket.modeling_pi05_websocket import PI05WebSocketPolicy
    from pi05_websocket.robot.settings import ranges_of_robot

    known = {} if robot is None else ranges_of_robot(robot)
    if known:
        config = replace(config, joint_limits={**known, **config.joint_limits})
    if (
        config.tick_source == "auto"
    ):  # whatever LeRobot has filled into the config for an environment before
        config = replace(config, tick_source="wall")
    policy = PI05WebSocketPolicy(config, **overrides)
    policy.connect()
    return policy.eval()
