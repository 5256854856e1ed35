# SPDX-License-Identifier: Apache-2.0
"""Drive a robot with a policy that runs on another computer, over OpenPI's WebSocket protocol.

The library: no torch, no LeRobot. The robot's side is `pi05_websocket.client`, the policy's side
`pi05_websocket.server`; `lerobot_policy_pi05_websocket` makes it a LeRobot policy.
"""

__version__ = "0.1.0"
