# SPDX-License-Identifier: Apache-2.0
"""The demo's words: what to show, and where the results go.

In: what tyro reads from the command line. Out: settings that are possible.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pi05_websocket.cli.demo_robots import RobotName
from pi05_websocket.cli.demo_screen import has_display
from pi05_websocket.errors import ConfigError

__all__ = ["DESCRIPTION", "DemoCommand"]

DESCRIPTION = """\
Watch a simulated SO-101 do its task over a policy server, everything on this machine.

Starts a policy server, then LeRobot's own lerobot-rollout with this project's plugin and a simulated arm. The
policy sees what a real one would see: two camera images, six joints, the instruction.

examples:
  pi05-websocket demo
  pi05-websocket demo --latency-ms 200          the server is far away
  pi05-websocket demo --task belt --episodes 10
  pi05-websocket demo --robot so101-emulated    through LeRobot's own driver of the SO-101
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoCommand:
    """What to show."""

    episodes: int = 5
    """How many cubes to pick up, one after another."""

    robot: RobotName = "so101-sim"
    """so101-sim is a robot of this project's plugin; so101-emulated is LeRobot's own so101_follower, on a
    serial port where six servos are emulated."""

    task: Literal["cube", "belt", "moved"] = "cube"
    """A cube that lies still, one on a moving belt, or one that is moved while the arm is on its way."""

    seed: int = 0
    """Decides where the cubes lie."""

    latency_ms: float = 0.0
    """Milliseconds added to each round trip on the way."""

    action_horizon: int = 25
    """Rows executed of each chunk of 50 before the next one takes over."""

    out: Path | None = None
    """Folder for the results; by default outputs/demo-DATE-TIME."""

    headless: bool = field(default_factory=lambda: not has_display())
    """Open no window. The default where there is no display."""

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ConfigError(f"--episodes {self.episodes}: expected at least 1")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}: expected 0 or more")
        if not 0 <= self.latency_ms <= 10_000:
            raise ConfigError(f"--latency-ms {self.latency_ms:g}: expected 0 to 10000")
        if not 1 <= self.action_horizon <= 50:
            raise ConfigError(f"action_horizon is {self.action_horizon}: expected 1 to 50")
