# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket run`: drive a robot with a policy server, without LeRobot.

In: words. Out: an exit code, and how the run went.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from pi05_websocket.chunks.config import SchedulerConfig
from pi05_websocket.chunks.hold import Fallback, HoldPose
from pi05_websocket.chunks.seam import SeamConfig
from pi05_websocket.cli import EXIT_FAILED, EXIT_OK
from pi05_websocket.cli.server_access import ServerAccess
from pi05_websocket.client import connect
from pi05_websocket.client.config import split_urls
from pi05_websocket.client.image_quality import ImageTransport
from pi05_websocket.data import Float32Array
from pi05_websocket.doctor.facts import Setup
from pi05_websocket.doctor.preflight import FirstLook, Preflight
from pi05_websocket.errors import ConfigError
from pi05_websocket.extras import how_to_install
from pi05_websocket.keymap import KeyMap
from pi05_websocket.presets import preset
from pi05_websocket.recording.recorder import DEFAULT_MAX_BYTES, Recorder, settings_of
from pi05_websocket.robot.control_page import ControlPage
from pi05_websocket.robot.controls import KEYS, Controls
from pi05_websocket.robot.interface import Robot, RobotReading, Teleoperator
from pi05_websocket.robot.keyboard import Keyboard
from pi05_websocket.robot.player import PlayerConfig
from pi05_websocket.robot.runtime import RunSummary, Runtime
from pi05_websocket.robot.settings import (
    UnitSettings,
    hold_config,
    joint_ranges,
    limits_config,
    resume_config,
)
from pi05_websocket.robot.spans import RobotSpans
from pi05_websocket.robot.trace import Trace
from pi05_websocket.server.loading import load_object
from pi05_websocket.telemetry import make_provider
from pi05_websocket.units import UnitMap

__all__ = ["RunCommand", "SimulatedRobot", "device", "run"]

_DESCRIPTION = f"""\
Drive a robot with a policy server, without LeRobot. Keys while it runs: {KEYS}

--robot names your arm: a function or class, called without arguments, that returns an object with
get_observation() -> RobotReading(images, joints) and send_action(joints); close() is called at the end where
there is one (docs/howto/without-lerobot.md). `sim` is the simulated SO-101.

examples:
  pi05-websocket run --robot sim --url ws://localhost:8000 --duration 30
  pi05-websocket run --robot my_arm:MyArm --url ws://GPU_MACHINE:8000 --keymap droid --control-hz 15
  pi05-websocket run --robot my_arm:MyArm --dry-run                           look, and move nothing
  pi05-websocket run --robot my_arm:MyArm --speed-scale 0.3 --max-step 10     a careful first motion
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCommand:
    """What to drive, with which server."""

    robot: str = "sim"
    """module:factory, or sim."""

    url: str = "ws://localhost:8000"
    """The policy server; several with commas between them: when one fails another goes on."""

    same_policy: bool = False
    """Whether servers that announce no fingerprint serve the same policy; else the arm holds and you decide."""

    task: str = "pick up the red cube"
    """What to do, in words."""

    keymap: str = "so101"
    """Names the server's policy uses."""

    cameras: dict[str, str] = field(default_factory=dict)
    """Robot camera to policy camera, where names differ: `front realsense`."""

    robot_units: str = ""
    """Units the robot is driven in: lerobot (degrees, gripper 0..100), lerobot_normalized (-100..100), radians;
    empty: the policy's, and nothing is converted."""

    policy_units: str = ""
    """The same for the policy; empty: the key map's."""

    calibration_file: Path | None = None
    """LeRobot's calibration of the arm: no target leaves its ranges, and units can be converted by them."""

    control_hz: float = 30.0
    """Ticks per second; the rate the policy was trained at."""

    duration: float | None = None
    """Seconds to run; None: until q or Ctrl-C."""

    timeout: float = 5.0
    """Longest wait for a reply, in seconds; also the oldest observation that may still move the arm."""

    action_horizon: int | None = None
    """Rows to execute before the next chunk takes over; None: as soon as it is there."""

    seam: str = "auto"
    """replace, blend, ensemble, rtc; auto: rtc where offered, else blend for joint targets."""

    fallback: Fallback = "hold"
    """What to command without a valid action: hold, zero, raise. Zero moves an arm with joint targets."""

    hold_pose: HoldPose = "commanded"
    """What hold holds: the last target, or the joints as measured when the rows ran out."""

    coast: float = 1.0
    """Seconds without a row after which only a plan from a fresh observation moves the arm."""

    auto_resume: float = 10.0
    """Longest pause, in seconds, after which the arm goes on by itself; after a longer one press r."""

    max_velocity: float | None = None
    """Fastest that any joint's target may move, in action units per second."""

    max_step: float | None = None
    """Farthest that a target may be from where its joint is measured, in action units."""

    speed_scale: float = 1.0
    """How fast to execute what the policy plans: 0.3 for a first motion, 1 as trained."""

    shadow: str | None = None
    """module:factory of what a person holds, with get_action() -> joints: the person drives, the policy is
    asked along, and both are compared."""

    dry_run: bool = False
    """Show what the policy would do beside where the arm is; move nothing."""

    confirm: bool = True
    """Show the first plan and wait for r, or the control port, before an arm moves."""

    preflight: Preflight = "refuse"
    """refuse to move where the server states that it is for another robot or rate; warn: only say it; off: do
    not look."""

    control_port: int | None = None
    """Port of a page here that stops the arm and lets it go on; also for `pi05-websocket control`."""

    image_transport: ImageTransport = "auto"
    """auto: images raw while that is quick, else JPEG where the server reads it; raw: never; jpeg: always."""

    jpeg_quality_floor: int = 75
    """Worst JPEG quality to be sent, 1 to 100."""

    access: tyro.conf.OmitArgPrefixes[ServerAccess] = field(default_factory=ServerAccess)

    trace: Path | None = None
    """Write each tick and exchange here, one JSON object a line."""

    record: Path | None = None
    """Record every observation, answer and command in this folder, as MCAP (pi05-websocket explain). Needs the
    extra record."""

    record_max_bytes: int = DEFAULT_MAX_BYTES
    """How much all recordings in that folder may take; the oldest segments go first."""

    otel_endpoint: str | None = None
    """Send OpenTelemetry traces, from camera to command, to this collector, such as http://localhost:4318; env:
    as the OTEL_* variables say. None: none. Needs the extra otel."""

    otel_sampling: float = 1.0
    """Share of the exchanges that are traced, 0 to 1."""

    def units(self, key_map: KeyMap) -> UnitMap | None:
        """Return what is converted between robot and policy; None where nothing is."""
        return self._unit_settings().unit_map(
            key_map.joint_names,
            known=key_map.unit_system,
            joint_limits={},
            calibration_file=self.calibration_file,
            action_kind=key_map.action_kind,
        )

    def _unit_settings(self) -> UnitSettings:
        return UnitSettings(robot_units=self.robot_units, policy_units=self.policy_units)

    def player(self, key_map: KeyMap) -> PlayerConfig:
        """Return these settings as the player's, in the policy's units."""
        hz, absolute = self.control_hz, key_map.action_kind == "absolute"
        if not 0 < hz < float("inf"):
            raise ConfigError(f"control_hz={hz}: must be a number above 0")
        if not 0 < self.timeout < float("inf"):
            raise ConfigError(f"timeout={self.timeout}: must be a number of seconds above 0")
        joined = "blend" if absolute else "replace"
        units = self.units(key_map)
        ranges = joint_ranges(
            joint_limits={},
            calibration_file=self.calibration_file,
            joints=key_map.joint_names,
            units=self._unit_settings().robot_side(key_map.joint_names),
        )
        limits = limits_config(ranges, max_velocity=self.max_velocity, max_step=self.max_step)
        return PlayerConfig(
            scheduler=SchedulerConfig(
                action_horizon=self.action_horizon,
                max_age_ticks=max(1, round(self.timeout * hz)),
                seam=SeamConfig(kind=joined if self.seam == "auto" else self.seam),  # type: ignore[arg-type]
            ),
            fallback=self.fallback,
            action_kind=key_map.action_kind,
            hold=hold_config(
                pose=self.hold_pose,
                coast=self.coast,
                auto_resume=self.auto_resume,
                control_hz=hz,
            ),
            resume=resume_config(jump=None, velocity=None, control_hz=hz),
            limits=limits if units is None else limits.converted(units.scale, units.offset),
            action_dim=key_map.action_dim,
            use_rtc=self.seam in ("auto", "rtc"),
            control_hz=hz,
            speed_scale=self.speed_scale,
            dry_run=self.dry_run,
            joint_names=key_map.joint_names,
        )


class SimulatedRobot:
    """The simulated SO-101 as `Runtime` drives it."""

    def __init__(self) -> None:
        try:
            from pi05_websocket.sim.arm import JOINTS
            from pi05_websocket.sim.so101 import CAMERA_SHAPES, SimConfig, SimSO101
        except ImportError as exc:
            raise ConfigError(
                f"--robot sim needs {exc.name or exc}: {how_to_install('sim')}"
            ) from exc
        self._joints, self._cameras = JOINTS, tuple(CAMERA_SHAPES)
        self._sim: Any = SimSO101(SimConfig())

    def get_observation(self) -> RobotReading:
        """Return both images and the six joints."""
        seen = self._sim.get_observation()
        joints = np.array([seen[f"{name}.pos"] for name in self._joints], np.float32)
        return RobotReading({name: seen[name] for name in self._cameras}, joints)

    def send_action(self, values: Float32Array, /) -> None:
        """Command six joint targets."""
        self._sim.send_action(values)

    def close(self) -> None:
        """Free the simulator."""
        self._sim.close()


def run(argv: list[str]) -> int:
    """Run the command."""
    try:
        command = tyro.cli(
            RunCommand, args=argv, prog="pi05-websocket run", description=_DESCRIPTION
        )
    except SystemExit as exc:  # tyro has printed its help or what is wrong
        return exc.code if isinstance(exc.code, int) else EXIT_FAILED
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    key_map = preset(command.keymap).with_cameras(command.cameras)
    units, player = command.units(key_map), command.player(key_map)
    print(
        f"server {command.url}, key map {key_map.name}, {command.control_hz:g} Hz, without a valid action: "
        f"{command.fallback}\nlimits: {player.limits.words(key_map.joint_names)}",
        flush=True,
    )
    if units is not None:
        print(units.table(), flush=True)
    controls = Controls()
    connection = command.access.connection(
        split_urls(command.url)[0],
        request_timeout=command.timeout,
        image_transport=command.image_transport,
        jpeg_quality_floor=command.jpeg_quality_floor,
    )
    with (
        _robot(command.robot) as robot,
        _teleoperator(command.shadow) as teleoperator,
        connect(
            command.url, connection, same_policy=command.same_policy, wait_for_server=0
        ) as policy,
        _control_page(command.control_port, controls) as pages,
        _recorder(command, key_map) as recorders,
        _spans(command) as spans,
        contextlib.closing(
            Trace(command.trace, listeners=[*pages, *recorders], spans=spans)
        ) as trace,
        Keyboard() as keyboard,
    ):
        if keyboard.on:
            print(KEYS, flush=True)
        if command.confirm and command.robot != "sim" and not command.dry_run:
            if not keyboard.on and not pages:
                raise ConfigError(
                    "confirming takes a terminal, or --control-port; --no-confirm begins at once"
                )
            player = replace(player, confirm=True)
        runtime = Runtime(
            robot,
            policy,
            key_map,
            player,
            task=command.task,
            controls=controls,
            keys=keyboard.keys if keyboard.on else None,
            units=units,
            trace=trace,
            how_to_resume=_how_to_resume(command.control_port, keys=keyboard.on),
            teleoperator=teleoperator,
            preflight=FirstLook(
                Setup(
                    key_map=key_map,
                    units=units,
                    policy_units=command.policy_units,
                    task=command.task,
                    control_hz=command.control_hz,
                    action_horizon=command.action_horizon,
                    action_kind=key_map.action_kind,
                    dialect=command.access.dialect,
                ),
                command.preflight,
            ),
        )
        with _signals_quit(runtime.controls.quit):
            summary = runtime.run(command.duration)
    if teleoperator is not None:
        print(runtime.shadow.table())
    print(words(summary))
    return EXIT_OK


def words(summary: RunSummary) -> str:
    """Return how a run went, as people read it."""
    rate = summary.ticks / summary.seconds if summary.seconds else 0.0
    causes = [f"{name.replace('_', ' ')} {count}" for name, count in summary.held_by_cause.items()]
    return (
        f"{summary.ticks} ticks in {summary.seconds:.1f} s: {rate:.1f} Hz; held {summary.held_ticks}"
        f"{': ' + ', '.join(causes) if causes else ''}; outages {summary.outages}"
    )


@contextlib.contextmanager
def _robot(spec: str) -> Iterator[Robot]:
    """Make the robot; close it at the end, whatever ended the run."""
    if spec == "sim":
        with contextlib.closing(SimulatedRobot()) as simulated:
            yield simulated
    else:
        with device(spec, "robot", "get_observation", "send_action") as robot:
            yield robot


@contextlib.contextmanager
def _teleoperator(spec: str | None) -> Iterator[Teleoperator | None]:
    if spec is None:
        yield None
    else:
        with device(spec, "teleoperator", "get_action") as teleoperator:
            yield teleoperator


@contextlib.contextmanager
def device(spec: str, kind: str, *methods: str) -> Iterator[Any]:
    """Make what `module:name` names, by calling it if it can be; close it at the end.

    Raises:
        ConfigError: It lacks one of the methods.
    """
    found = load_object(spec, kind=kind)
    made = found() if callable(found) else found
    for method in methods:
        if not callable(getattr(made, method, None)):
            raise ConfigError(f"{kind} {spec!r}: expected {method}(), got {type(made).__name__}")
    try:
        yield made
    finally:
        close = getattr(made, "close", None)
        if callable(close):
            close()


@contextlib.contextmanager
def _control_page(port: int | None, controls: Controls) -> Iterator[list[ControlPage]]:
    if port is None:
        yield []
        return
    with contextlib.closing(ControlPage(port, controls)) as page:
        yield [page]


@contextlib.contextmanager
def _recorder(command: RunCommand, key_map: KeyMap) -> Iterator[list[Recorder]]:
    if command.record is None:
        yield []
        return
    settings = settings_of(command, joint_names=" ".join(key_map.joint_names))
    made = Recorder(command.record, settings, max_bytes=command.record_max_bytes)
    with contextlib.closing(made) as recorder:
        yield [recorder]


@contextlib.contextmanager
def _spans(command: RunCommand) -> Iterator[RobotSpans | None]:
    if command.otel_endpoint is None:
        yield None
        return
    provider = make_provider("pi05-robot", command.otel_endpoint, sampling=command.otel_sampling)
    with contextlib.closing(RobotSpans(provider)) as spans:
        yield spans


def _how_to_resume(port: int | None, *, keys: bool) -> str:
    ways = ["press r"] if keys else []
    if port is not None:
        ways.append(f"pi05-websocket control resume --port {port}")
    return ", or ".join(ways)


@contextlib.contextmanager
def _signals_quit(quit_: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the loop between two ticks; the second one ends it wherever it hangs."""
    import signal

    def once(number: int, _frame: object) -> None:
        quit_()
        signal.signal(number, signal.default_int_handler)

    chosen = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, once) for number in chosen]
    try:
        yield
    finally:
        for number, handler in zip(chosen, before, strict=True):
            signal.signal(number, handler)
