# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket doctor`: find what is wrong before anything moves.

In: words, its own or those of `lerobot-rollout`. Out: a table, a picture, an exit code: 0 nothing is wrong, 1
something is, 2 the words make no sense. Reads the robot; there is nothing here that could command it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from pi05_websocket.cli import EXIT_FAILED, EXIT_OK
from pi05_websocket.cli.run import SimulatedRobot, device
from pi05_websocket.cli.server_access import ServerAccess
from pi05_websocket.client import ConnectionConfig
from pi05_websocket.doctor.examination import Examination, examine
from pi05_websocket.doctor.facts import Setup
from pi05_websocket.doctor.findings import as_maps, found, refused
from pi05_websocket.doctor.gathering import RobotSource
from pi05_websocket.doctor.sheet import write_sheet
from pi05_websocket.doctor.table import report
from pi05_websocket.errors import ConfigError
from pi05_websocket.extras import how_to_install
from pi05_websocket.presets import preset
from pi05_websocket.robot.settings import UnitSettings, joint_ranges

__all__ = ["DoctorCommand", "run"]

_DESCRIPTION = """\
Find what is wrong with a robot, a policy server and their settings, before anything moves.

The server is reached step by step, the robot is read for a second or two, and what it sees is sent to the
server a few times. No action is sent to the robot, and its torque stays as it is. Each check ends in ok, WRONG,
LOOK (a person has to look), NEEDS DATA or skipped; what is not ok says what to do.

examples:
  pi05-websocket doctor --url ws://gpu-box:8000                       only the server
  pi05-websocket doctor --robot sim --task 'pick up the red cube'
  pi05-websocket doctor --robot my_arm:MyArm --keymap droid --control-hz 15
  pi05-websocket doctor --robot.type=so101_follower --robot.port=/dev/ttyACM0 ... --policy.websocket_url=...
                                                                      the words of lerobot-rollout as they are

exit codes: 0 nothing is wrong (look at what is marked LOOK), 1 something is, 2 the words make no sense
"""

_ADAPTER = "lerobot_policy_pi05_websocket.doctor_robot"
_ROLLOUT_ONLY = (
    "--strategy.",
    "--inference.",
    "--dataset.",
    "--duration",
    "--display_",
    "--play_sounds",
    "--return_to_initial_position",
    "--interpolation_multiplier",
)
"""Words of `lerobot-rollout` that say nothing about what is examined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorCommand:
    """What to examine."""

    robot: str = "none"
    """sim, module:factory as for `run`, or none: only the server. LeRobot's robots: --robot.type=..."""

    url: str = "ws://localhost:8000"
    """The policy server."""

    task: str = ""
    """What to do, in words."""

    keymap: str = "so101"
    """Names the server's policy uses."""

    cameras: dict[str, str] = field(default_factory=dict)
    """Robot camera to policy camera, where names differ: `front realsense`."""

    robot_units: str = ""
    """Units the robot is driven in: lerobot, lerobot_normalized, radians; empty: the policy's."""

    policy_units: str = ""
    """The same for the policy; empty: the key map's."""

    calibration_file: Path | None = None
    """LeRobot's calibration of the arm."""

    control_hz: Annotated[float, tyro.conf.arg(aliases=["--fps"])] = 30.0
    """Ticks per second; the rate the policy was trained at."""

    action_horizon: int | None = None
    """Rows to execute before the next chunk takes over."""

    access: tyro.conf.OmitArgPrefixes[ServerAccess] = field(default_factory=ServerAccess)

    patience: float = 60.0
    """Longest wait for the first answer, in seconds: a model may be compiling."""

    connect_patience: float = 5.0
    """Longest wait for each step of connecting, in seconds."""

    seconds: float = 1.5
    """How long to watch the robot."""

    requests: int = 5
    """Observations to send after the first."""

    dataset: Path | None = None
    """Folder of a LeRobot data set: an episode is replayed through the policy and compared."""

    episode: int = 0
    """Which one."""

    frames: int = 20
    """How many of its observations to send."""

    sheet: Path = Path("outputs/doctor/cameras.png")
    """Where to write the pictures as they are sent, for your eye."""

    json: str | None = None
    """Write the findings to this file, for programs; -: to standard output instead of the table."""

    connect_robot: bool = False
    """Let a LeRobot robot without a motor bus connect by its own means, which may switch its torque."""

    def setup(self) -> Setup:
        """Return how the robot will be driven.

        Raises:
            ConfigError: Settings are impossible.
        """
        if not 0 < self.control_hz < float("inf"):
            raise ConfigError(f"control_hz={self.control_hz}: must be a number above 0")
        key_map = preset(self.keymap).with_cameras(self.cameras)
        settings = UnitSettings(robot_units=self.robot_units, policy_units=self.policy_units)
        units = settings.unit_map(
            key_map.joint_names,
            known=key_map.unit_system,
            joint_limits={},
            calibration_file=self.calibration_file,
            action_kind=key_map.action_kind,
        )
        ranges = joint_ranges(
            joint_limits={},
            calibration_file=self.calibration_file,
            joints=key_map.joint_names,
            units=settings.robot_side(key_map.joint_names),
        )
        return Setup(
            key_map=key_map,
            units=units,
            policy_units=self.policy_units,
            task=self.task,
            control_hz=self.control_hz,
            action_horizon=self.action_horizon,
            action_kind=key_map.action_kind,
            dialect=self.access.dialect,
            joint_ranges=dict(zip(key_map.joint_names, ranges or (), strict=False)),
        )

    def connection(self) -> ConnectionConfig:
        """Return how to reach the server.

        Raises:
            ConfigError: The address is none, or a key's source is missing.
        """
        return self.access.connection(
            self.url,
            connect_timeout=self.connect_patience,
            handshake_timeout=self.connect_patience,
            metadata_timeout=self.connect_patience,
            first_request_timeout=self.patience,
        )


def run(argv: list[str]) -> int:
    """Run the command."""
    lerobots, own = _split(argv)
    try:
        command = tyro.cli(
            DoctorCommand, args=own, prog="pi05-websocket doctor", description=_DESCRIPTION
        )
    except SystemExit as exc:  # tyro has printed its help or what is wrong
        return exc.code if isinstance(exc.code, int) else EXIT_FAILED
    done = _examined(command, lerobots)
    for_programs = json.dumps(as_maps(done.findings), indent=1)
    print(for_programs if command.json == "-" else report(done.findings))
    if done.pictures:
        write_sheet(command.sheet, done.pictures, done.origins)
        where = sys.stderr if command.json == "-" else sys.stdout
        print(f"contact sheet: {command.sheet}", file=where)
    if command.json not in (None, "-"):
        Path(command.json or "").write_text(for_programs + "\n")
    return EXIT_FAILED if refused(done.findings) else EXIT_OK


def _examined(command: DoctorCommand, lerobots: Sequence[str]) -> Examination:
    """Examine; settings of the connection that are impossible are a finding, not a wrong word."""
    adapter: Any = _adapter() if lerobots else None
    theirs: Any = None if adapter is None else adapter.parsed(lerobots)
    has_policy = theirs is not None and theirs.policy is not None
    setup = adapter.setup(theirs.policy, command.task) if has_policy else command.setup()
    if has_policy:  # `lerobot-rollout` has two words for one rate; its --fps is our --control-hz
        setup = replace(setup, loop_hz=command.control_hz)
    try:
        connection = adapter.connection(theirs.policy) if has_policy else command.connection()
    except ConfigError as exc:
        empty = any(name in str(exc) for name in ("api_key_env", "api_key_file", "headers_file"))
        mistake = "key-source-empty" if empty else "address-malformed"
        return Examination(findings=[found("address", mistake, str(exc))])
    with contextlib.ExitStack() as opened:
        source = None
        if theirs is not None and theirs.robot is not None:
            source = opened.enter_context(
                adapter.opened(
                    theirs.robot, setup.key_map.joint_names, may_connect=command.connect_robot
                )
            )
        elif command.robot != "none":
            source = opened.enter_context(_own_robot(command.robot))
        episode = None
        if command.dataset is not None:
            episode = _adapter().episode(
                command.dataset, command.episode, setup.key_map.joint_names
            )
        return examine(
            setup,
            connection,
            source,
            seconds=command.seconds,
            requests=command.requests,
            episode=episode,
            frames=command.frames,
        )


@contextlib.contextmanager
def _own_robot(spec: str) -> Iterator[RobotSource]:
    """Make the robot as `run` does; of what it can do only reading is handed on."""
    if spec in ("sim", "so101-sim"):
        with contextlib.closing(SimulatedRobot()) as simulated:
            yield RobotSource(read=simulated.get_observation, noiseless=True, units="lerobot")
        return
    with device(spec, "robot", "get_observation") as robot:
        yield RobotSource(read=robot.get_observation)


def _adapter() -> Any:
    try:
        # By name only: the library must not need LeRobot.
        return importlib.import_module(_ADAPTER)
    except ImportError as exc:
        raise ConfigError(
            f"--robot.*, --policy.* and --dataset need {exc.name or exc}: "
            f"{how_to_install('lerobot')} (Python 3.12)"
        ) from exc


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return LeRobot's words, with their values, and ours; what only a rollout needs is left out."""
    lerobots: list[str] = []
    own: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word.startswith(("--robot.", "--policy.")):
            lerobots.append(word)
            if "=" not in word and words:
                lerobots.append(words.pop(0))
        elif word.startswith(_ROLLOUT_ONLY):
            if "=" not in word and words and not words[0].startswith("--"):
                words.pop(0)
        else:
            own.append(word)
    return lerobots, own
