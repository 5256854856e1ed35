# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket emulate`: an SO-101 on a serial port for LeRobot's own driver, until somebody ends it.

In: words. Out: the port, the flags for LeRobot's tools, perhaps a recording; exit code 0 after SIGINT or
SIGTERM, 1 if the arm fails.
"""

from __future__ import annotations

import logging
import shlex
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from pi05_websocket.cli import EXIT_FAILED, EXIT_OK
from pi05_websocket.cli.demo_children import every_end_like_ctrl_c
from pi05_websocket.errors import ConfigError, Pi05WebsocketError

__all__ = ["EmulateCommand", "EmulatedArmFailed", "run"]

_DESCRIPTION = """\
Emulate an SO-101 on a serial port, so that LeRobot's own so101_follower can be tried without an arm.

Six Feetech servos answer on a pseudo-terminal (Linux); their shafts and the cameras are the simulator's.
It prints the flags with which lerobot-rollout and LeRobot's other tools find it. Ctrl-C ends it.

examples:
  pi05-websocket emulate
  pi05-websocket emulate --task belt --seed 7
"""

_LOOK_EVERY_S = 0.2


class EmulatedArmFailed(Pi05WebsocketError):
    """The simulator behind the servos failed; the message says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulateCommand:
    """What to emulate."""

    folder: Path = Path("outputs/emulated-arm")
    """Where the calibration file and the cameras' frames go."""

    task: Literal["cube", "belt", "moved"] = "cube"
    """A cube that lies still, one on a moving belt, or one that is moved while the arm is on its way."""

    seed: int = 0
    """Decides where the cubes lie."""

    next_episode: Literal["done", "idle", "never"] = "idle"
    """What the next cube waits for. done: success or ten seconds, and so on until the end; idle: half a second
    without a command, so one cube for each run of a tool; never: the first cube is the only one."""

    record_dir: Path | None = None
    """Folder for realsense.mp4, wrist2.mp4 and robot.jsonl: frames, commands, joints and episodes."""

    live_image: Path | None = None
    """A JPEG that shows both cameras, renewed ten times a second."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}: expected 0 or more")


def run(argv: list[str]) -> int:
    """Run the command."""
    try:
        command = tyro.cli(
            EmulateCommand, args=argv, prog="pi05-websocket emulate", description=_DESCRIPTION
        )
    except SystemExit as exc:  # tyro has printed its help or what is wrong
        return exc.code if isinstance(exc.code, int) else EXIT_FAILED
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("OpenGL").setLevel(logging.WARNING)  # says what it could load, and did not
    # Shells start what ends in & with SIGINT ignored; whoever sends one means it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with every_end_like_ctrl_c():
            _emulate(command)
    except KeyboardInterrupt:
        print("stopped", flush=True)
    finally:
        signal.signal(signal.SIGINT, before)
    return EXIT_OK


def _emulate(command: EmulateCommand) -> None:
    from pi05_websocket.robot.trace import Trace
    from pi05_websocket.sim.episodes import EpisodeRules
    from pi05_websocket.sim.record import TRACE_NAME, ArmRecord
    from pi05_websocket.sim.so101 import SimConfig
    from pi05_websocket.sim.tasks import make_task
    from pi05_websocket.testing.emulated_arm import EmulatedSO101

    config = SimConfig(
        task=make_task(command.task),
        seed=command.seed,
        rules=EpisodeRules(next_episode=command.next_episode),
    )
    folder = command.record_dir
    record = ArmRecord(
        Trace(None if folder is None else folder / TRACE_NAME),
        seed=command.seed,
        folder=folder,
        live_image=command.live_image,
    )
    try:
        with EmulatedSO101(command.folder, config, record=record) as arm:
            record.tell_cube(0)
            print(_welcome(arm.bus.port, arm.flags), flush=True)
            while arm.bus.failure is None:
                time.sleep(_LOOK_EVERY_S)
            raise EmulatedArmFailed(f"the emulated arm has failed: {arm.bus.failure!r}")
    finally:
        record.close()


def _welcome(port: str, flags: list[str]) -> str:
    words = " \\\n  ".join(shlex.quote(flag) for flag in flags)
    return f"an emulated SO-101 at {port}, until Ctrl-C\nfor LeRobot's tools:\n  {words}"
