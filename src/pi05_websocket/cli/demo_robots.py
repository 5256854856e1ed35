# SPDX-License-Identifier: Apache-2.0
"""The demo's arms: the simulated one within lerobot-rollout, or an emulated one for LeRobot's own driver.

In: what to simulate and where to record it. Out: flags for lerobot-rollout, and words for the emulated arm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["EMULATED_AT", "DemoArm", "RobotName"]

RobotName = Literal["so101-sim", "so101-emulated"]

EMULATED_AT = re.compile(r"an emulated SO-101 at (\S+),")
"""What `pi05-websocket emulate` says when it is ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoArm:
    """What either arm is told."""

    task: str
    seed: int
    recording: Path
    """Folder for videos and trace, and for the emulated arm's files."""

    live_image: Path | None
    """The picture for the window; None without one."""

    def sim_flags(self) -> list[str]:
        """Return lerobot-rollout's flags for the simulated arm."""
        flags = [
            "--robot.type=so101_sim",
            f"--robot.task={self.task}",
            f"--robot.seed={self.seed}",
            f"--robot.record_dir={self.recording}",
        ]
        if self.live_image is not None:
            flags.append(f"--robot.live_image={self.live_image}")
        return flags

    def emulate_words(self) -> list[str]:
        """Return the words after `pi05-websocket` that start the emulated arm."""
        words = ["emulate", "--folder", str(self.recording), "--record-dir", str(self.recording)]
        words += ["--task", self.task, "--seed", str(self.seed), "--next-episode", "done"]
        if self.live_image is not None:
            words += ["--live-image", str(self.live_image)]
        return words

    def emulated_flags(self, port: str) -> list[str]:
        """Return lerobot-rollout's flags for the emulated arm at a serial port."""
        from pi05_websocket.testing.emulated_arm import robot_flags

        return robot_flags(port, self.recording.resolve())
