# SPDX-License-Identifier: Apache-2.0
"""`--policy.type=pi05_websocket`: every setting of the remote policy, checked before any I/O.

In: LeRobot's command line, a saved `config.json`, or Python. Out: the library's own frozen configs.
No secret is ever a field: LeRobot prints and saves configs.
"""

from __future__ import annotations

import logging
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lerobot.configs import PreTrainedConfig
from lerobot.optim import AdamWConfig
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from pi05_websocket.chunks.config import SchedulerConfig
from pi05_websocket.chunks.hold import FALLBACKS, HoldConfig
from pi05_websocket.chunks.resume import ResumeConfig
from pi05_websocket.chunks.seam import SEAMS, SeamConfig
from pi05_websocket.client.config import ConnectionConfig, load_headers, split_urls
from pi05_websocket.doctor.facts import Setup
from pi05_websocket.doctor.preflight import PREFLIGHT, FirstLook
from pi05_websocket.errors import ConfigError
from pi05_websocket.keymap import KeyMap, StatePart
from pi05_websocket.presets import preset
from pi05_websocket.recording.recorder import DEFAULT_MAX_BYTES
from pi05_websocket.robot.player import PlayerConfig
from pi05_websocket.robot.settings import (
    AS_IT_IS,
    NEVER_LEFT,
    UnitSettings,
    hold_config,
    joint_ranges,
    limits_config,
    resume_config,
)
from pi05_websocket.units import UnitMap

__all__ = ["PI05WebSocketConfig"]

logger = logging.getLogger(__name__)

TICK_SOURCES = ("auto", "wall", "calls")
AUTH_SCHEMES = ("api-key", "bearer")
ACTION_KINDS = ("absolute", "delta", "velocity", "torque")


@PreTrainedConfig.register_subclass("pi05_websocket")
@dataclass
class PI05WebSocketConfig(PreTrainedConfig):  # type: ignore[misc]  # LeRobot is untyped for mypy
    """A policy that runs behind an OpenPI WebSocket server.

    `websocket_url`, `timeout` and `action_horizon` are all most people set. Durations are in seconds.
    """

    websocket_url: str = "ws://localhost:8000"
    """Address of the policy server: `ws://HOST:PORT`, `wss://HOST/PATH`. No credentials in it. Several with
    commas between them: when one fails another goes on (key, headers and trust are the same for all)."""

    same_policy: bool = False
    """Whether servers that announce no fingerprint, as stock ones, serve the same policy: then one may go on
    for another in mid-episode. Otherwise the arm holds and a person decides."""

    timeout: float = 5.0
    """Longest wait for a reply; also the oldest observation whose actions may still be executed."""

    action_horizon: int | None = None
    """Rows of a chunk to execute before the next one takes over, at most the chunk's length; None: the next
    one is asked for when a quarter of the chunk is left, and takes over as soon as it comes. (The execution
    horizon; OpenPI's `ActionChunkBroker` calls it `action_horizon` too.)"""

    min_execution_ticks: int = 8
    """Fewest ticks between two observations that are sent, unless the arm would starve."""

    margin_ticks: int | None = None
    """Ticks to ask earlier than replies have been taking; None: as many as leave a quarter of the chunk in
    reserve."""

    seam: str = "auto"
    """How a chunk is joined to the one before: replace, blend, ensemble, rtc; `auto`: rtc where the server
    offers it, else blend for absolute targets on the clock, else replace."""

    max_blend_ticks: int = 15
    """Longest blend between two chunks."""

    keymap: str = "so101"
    """Which names the server's policy uses: so101, libero, droid, aloha, so101_pr968, so101_pr853,
    so100_phospho, so100_fork, so101_leisaac, so101_aloha, so101_as_libero, ur5, or custom."""

    cameras: dict[str, str] = field(default_factory=dict)
    """Robot camera to policy camera: `{front: realsense}` uses the robot's `front` as the key map's
    `realsense`; `{top: "observation/images/top pad 224x224"}` adds a key of your own."""

    state_key: str | None = None
    """Policy key of the joint vector, where it differs from the key map's."""

    prompt_key: str | None = None
    """Policy key of the task, where it differs from the key map's."""

    joint_names: list[str] = field(default_factory=list)
    """Order of the joints in raw robot dicts; empty: the key map's, or the robot's own order."""

    robot_units: str = ""
    """Units the robot is driven in: lerobot (degrees, gripper 0..100), lerobot_normalized (-100..100: LeRobot
    before 0.4.4), radians, or one unit for all joints. Empty: the policy's own, and nothing is converted."""

    policy_units: str = ""
    """The same for the policy, that is for the data set it was trained on. Empty: the key map's."""

    robot_joint_units: dict[str, str] = field(default_factory=dict)
    """Joints whose unit is another on the robot's side: `{gripper: fraction}`. Units: degrees, radians,
    normalized (-100..100), percent (0..100), fraction (0..1)."""

    policy_joint_units: dict[str, str] = field(default_factory=dict)
    """The same on the policy's side."""

    joint_signs: dict[str, int] = field(default_factory=dict)
    """-1 for joints that the policy counts the other way round: `{wrist_roll: -1}`."""

    joint_offsets: dict[str, float] = field(default_factory=dict)
    """What the policy's number is more than the robot's, in the policy's unit: `{elbow_flex: 90}`."""

    action_dim: int | None = None
    """Values per action; None: the environment's, the dataset's or the key map's."""

    action_kind: str | None = None
    """What actions are: absolute, delta, velocity or torque; None: the key map's. Decides what holding is."""

    task: str = ""
    """What to do, where the caller does not say (plain Python); LeRobot's `--task` comes first."""

    control_hz: float = 30.0
    """Control rate the chunk's rows are for; set `--fps` to the same."""

    tick_source: str = "auto"
    """`wall`: ticks follow the clock and no call waits (robots). `calls`: each call is a tick and waits
    for its chunk (simulators, lerobot-eval). `auto` decides by how the policy is built."""

    fallback: str = "hold"
    """What to command when there is no valid action: hold (the last commanded target), zero, raise.
    Zero moves an arm with absolute joint targets to its middle pose: choose it only if you mean it."""

    hold_pose: str = "commanded"
    """What `hold` holds: `commanded`, the last target, or `measured`, the joints as they were measured when the
    rows ran out (gives way to gravity and to a hand)."""

    coast: float | None = 1.0
    """Seconds without a row after which what was asked for before is dropped, and only a plan from a fresh
    observation moves the arm again; null: never."""

    auto_resume: float | None = 10.0
    """Longest pause, in seconds, after which the arm goes on by itself. After a longer one it holds until
    `policy.resume()`, the control port or a new run. 0: always; null: never."""

    resume_jump: float | None = None
    """How far from the present pose the first action of a motion may be to be executed as it is, in action
    units; null: as far as the chunk itself moves in a tick, and a tenth more."""

    resume_velocity: float | None = None
    """Speed of the way to a plan that begins farther off, in action units per second; null: the chunk's own,
    or what it takes to be there in a second."""

    joint_limits: dict[str, list[float]] = field(default_factory=dict)
    """Smallest and largest target of joints: `{elbow_flex: [-90, 90]}`, in action units."""

    calibration_file: str | None = None
    """LeRobot's calibration file of the arm: no target leaves the ranges in it (degrees)."""

    max_velocity: float | None = None
    """Fastest that any joint's target may move, in action units per second."""

    max_step: float | None = None
    """Farthest that a target may be from where its joint is measured, in action units."""

    speed_scale: float = 1.0
    """How fast to execute what the policy plans: 0.3 for a first motion, 1 as trained."""

    dry_run: bool = False
    """Show what the policy would do beside where the arm is; the arm keeps the pose it has."""

    confirm: bool = False
    """The same until you let it move: `policy.resume()`, or the control port."""

    preflight: str = "refuse"
    """At the start of a run: `refuse` to move where the server states that it is for another robot or rate,
    `warn`: only say it, `off`: do not look. Nothing is sent for it."""

    control_port: int | None = None
    """Port of a page on this machine that stops the arm, lets it go on and gives it another task; also for
    `pi05-websocket control`. 9091 is its default."""

    connect_timeout: float = 10.0
    """Longest wait for name resolution and TCP."""

    handshake_timeout: float = 10.0
    """Longest wait for TLS and the WebSocket upgrade."""

    metadata_timeout: float = 10.0
    """Longest wait for the server's first message."""

    first_request_timeout: float = 600.0
    """Longest wait for the very first reply: the server's model may be compiling."""

    hard_timeout: float | None = None
    """When an unanswered request costs the connection; None: twice `timeout`."""

    dialect: str = "auto"
    """How the server talks: openpi, roboarena, dreamzero, vllm-omni, sglang, starvla, behavior, lingbot-va;
    auto: by what it says of itself, else openpi."""

    api_key_env: str | None = None
    """Name of the environment variable that holds the server's key."""

    api_key_file: str | None = None
    """File that holds the server's key."""

    auth_scheme: str = "api-key"
    """`api-key` sends `Authorization: Api-Key KEY` as OpenPI does, `bearer` sends `Bearer KEY`."""

    headers_file: str | None = None
    """File with extra HTTP headers, one `Name: value` per line."""

    ca_file: str | None = None
    """PEM file of certificates to trust for `wss://` instead of the system's."""

    tls_fingerprint: str | None = None
    """`sha256:…` of the server's public key, as `serve --tls auto` prints it: for `wss://` that key is trusted
    and nothing else."""

    client_cert_file: str | None = None
    """PEM client certificate, for servers that ask for one."""

    client_key_file: str | None = None
    """PEM private key of `client_cert_file`."""

    proxy: str | None = None
    """`http://` or `socks5://` proxy. The environment's proxy variables are not used."""

    max_message_bytes: int = 64 * 1024 * 1024
    """Largest message accepted from the server."""

    congestion_control: str = "bbr"
    """What the kernel shall use towards a server that is far, where it may; empty: the system's."""

    keep_warm: bool = True
    """Send six bytes every 50 ms for ten seconds after each exchange, to a server farther than 5 ms: kernels
    without BBR begin anew after a pause, which costs the next observation several round trips."""

    image_transport: str = "auto"
    """`auto`: images as they are while that is quick, else as JPEG, as good as the link carries without delay;
    `raw`: never JPEG, the policy sees every pixel; `jpeg`: always. Only where the server reads JPEG."""

    jpeg_quality_floor: int = 75
    """Worst JPEG quality to be sent, 1 to 100."""

    trace_file: str | None = None
    """Write what happened at each tick and exchange to this file, one JSON object a line."""

    record: str | None = None
    """Record every observation, answer and command in this folder, as MCAP (`pi05-websocket explain`). Needs
    the extra `record`."""

    record_max_bytes: int = DEFAULT_MAX_BYTES
    """How much all recordings in that folder may take; the oldest segments go first."""

    summary_file: str | None = None
    """Write ticks, held ticks by cause, outages and round trips to this file at the end, one JSON object. Into
    `lerobot-eval`'s own: `OUTPUT_DIR/eval_info.json`, under `remote_policy`."""

    metrics_port: int | None = None
    """Answer Prometheus at http://127.0.0.1:PORT/metrics; needs the extra `metrics`. None: no metrics."""

    rerun: bool = False
    """Draw chunks, seams, delay and holds in Rerun, into LeRobot's own display where it shows one
    (`--display_data=true`); needs the extra `view`."""

    device: str | None = "cpu"
    """Nothing is computed here; cpu keeps images off the GPU and back."""

    push_to_hub: bool = False
    """A remote policy has no weights to push."""

    rtc_config: RTCConfig | None = None
    """Set by `lerobot-rollout --inference.type=rtc`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            self._check()
        except ConfigError as exc:
            # LeRobot's command line answers every exception with "Could not decode the value into any of the
            # given types" and drops the reason.
            logger.error("pi05_websocket: %s", exc)
            raise

    def _check(self) -> None:
        self._check_choice("tick_source", TICK_SOURCES)
        self._check_choice("fallback", FALLBACKS)
        self._check_choice("auth_scheme", AUTH_SCHEMES)
        self._check_choice("preflight", PREFLIGHT)
        self._check_choice("seam", ("auto", *SEAMS))
        if self.action_kind is not None:
            self._check_choice("action_kind", ACTION_KINDS)
        if not 0 < self.control_hz < float("inf"):
            raise ConfigError(f"control_hz={self.control_hz}: must be a number above 0")
        if self.action_dim is not None and self.action_dim < 1:
            raise ConfigError(f"action_dim={self.action_dim}: must be 1 or more")
        key_map = self.key_map()
        for url in split_urls(self.websocket_url):
            self._connection(headers={}, url=url)
        self.player_config(tick_source="wall", key_map=key_map)

    @property
    def observation_delta_indices(self) -> None:
        """A remote policy looks at the present observation only."""
        return

    @property
    def action_delta_indices(self) -> None:
        """It is not trained here."""
        return

    @property
    def reward_delta_indices(self) -> None:
        """It is not trained here."""
        return

    def get_optimizer_preset(self) -> AdamWConfig:
        """Return LeRobot's default: the class must name one, but there is nothing to optimise."""
        return AdamWConfig()

    def get_scheduler_preset(self) -> None:
        """Return None: there is nothing to train."""
        return

    def validate_features(self) -> None:
        """Accept any features: the server and the key map decide, at the first observation."""

    def key_map(self) -> KeyMap:
        """Return the key map with this config's changes.

        Raises:
            ConfigError: Unknown preset, camera, or keys that collide.
        """
        key_map = preset(self.keymap)
        if self.cameras:
            key_map = key_map.with_cameras(self.cameras)
        if self.state_key is not None:
            size = key_map.state[0].size if len(key_map.state) == 1 else key_map.state_dim
            part = StatePart(policy_key=self.state_key, size=size, dtype=key_map.state[0].dtype)
            key_map = replace(key_map, state=(part,))
        if self.prompt_key is not None:
            key_map = replace(key_map, prompt_key=self.prompt_key)
        if self.joint_names:
            key_map = replace(key_map, joint_names=tuple(self.joint_names))
        return key_map

    def unit_map(self, key_map: KeyMap) -> UnitMap | None:
        """Return what is converted between robot and policy; None where nothing is.

        Raises:
            ConfigError: An unknown name, a range that is not known, or actions that are no joint targets.
        """
        return self._unit_settings().unit_map(
            key_map.joint_names,
            known=key_map.unit_system,
            joint_limits=self.joint_limits,
            calibration_file=self.calibration_file,
            action_kind=self.action_kind or key_map.action_kind,
        )

    def _unit_settings(self) -> UnitSettings:
        return UnitSettings(
            robot_units=self.robot_units,
            policy_units=self.policy_units,
            robot_joint_units=self.robot_joint_units,
            policy_joint_units=self.policy_joint_units,
            joint_signs=self.joint_signs,
            joint_offsets=self.joint_offsets,
        )

    def connection_config(self) -> ConnectionConfig:
        """Return how to reach the server, the first of several; reads where secrets are kept.

        Raises:
            ConfigError: A secret's source is missing, empty or given twice.
        """
        headers = load_headers(
            api_key_env=self.api_key_env,
            api_key_file=self.api_key_file,
            auth_scheme=self.auth_scheme,  # type: ignore[arg-type]  # checked in __post_init__
            headers_file=self.headers_file,
        )
        return self._connection(headers)

    def player_config(self, *, tick_source: str, key_map: KeyMap) -> PlayerConfig:
        """Return what to do with chunks, for `tick_source` "wall" or "calls"."""
        feature = self.action_feature
        width = self.action_dim or (feature.shape[0] if feature is not None else key_map.action_dim)
        kind = self.action_kind or key_map.action_kind
        units = self.unit_map(key_map)
        limits = limits_config(
            joint_ranges(
                joint_limits=self.joint_limits,
                calibration_file=self.calibration_file,
                joints=key_map.joint_names,
                units=self._unit_settings().robot_side(key_map.joint_names),
            ),
            max_velocity=self.max_velocity,
            max_step=self.max_step,
        )
        resume = self._resume() if tick_source == "wall" else AS_IT_IS
        if units is not None:
            limits = limits.converted(units.scale, units.offset)
            resume = resume.scaled(units.scale)
        return PlayerConfig(
            scheduler=self._scheduler(tick_source=tick_source, action_kind=kind),
            fallback=self.fallback,  # type: ignore[arg-type]  # checked in __post_init__
            action_kind=kind,  # type: ignore[arg-type]
            hold=self._hold() if tick_source == "wall" else NEVER_LEFT,
            resume=resume,
            limits=limits,
            action_dim=width,
            use_rtc=self.seam in ("auto", "rtc") and tick_source == "wall",
            control_hz=self.control_hz,
            speed_scale=self.speed_scale if tick_source == "wall" else 1.0,
            dry_run=self.dry_run,
            confirm=self.confirm and tick_source == "wall",
            joint_names=key_map.joint_names,
        )

    def setup(self, key_map: KeyMap) -> Setup:
        """Return what the doctor and the first look know of these settings."""
        return Setup(
            key_map=key_map,
            units=self.unit_map(key_map),
            policy_units=self.policy_units,
            task=self.task,
            control_hz=self.control_hz,
            action_horizon=self.action_horizon,
            action_kind=self.action_kind or key_map.action_kind,  # type: ignore[arg-type]
            dialect=self.dialect,  # type: ignore[arg-type]
        )

    def first_look(self, key_map: KeyMap) -> FirstLook:
        """Return what looks at the first exchange before anything moves."""
        return FirstLook(self.setup(key_map), self.preflight)  # type: ignore[arg-type]  # checked in __post_init__

    def _hold(self) -> HoldConfig:
        return hold_config(
            pose=self.hold_pose,
            coast=self.coast,
            auto_resume=self.auto_resume,
            control_hz=self.control_hz,
        )

    def _resume(self) -> ResumeConfig:
        return resume_config(
            jump=self.resume_jump, velocity=self.resume_velocity, control_hz=self.control_hz
        )

    def _scheduler(self, *, tick_source: str, action_kind: str) -> SchedulerConfig:
        seam: str = self.seam
        if seam == "auto":
            # A difference or a speed joins nothing: its sum is what moves. And a simulator that waits for its
            # chunks shall see the policy's own rows.
            joins = tick_source == "wall" and action_kind == "absolute"
            seam = "blend" if joins else "replace"
        how = SeamConfig(
            kind=seam,  # type: ignore[arg-type]  # checked in __post_init__
            max_blend_ticks=self.max_blend_ticks,
            min_blend_ticks=min(SeamConfig().min_blend_ticks, max(1, self.max_blend_ticks)),
        )
        if tick_source == "calls":  # a call waits for its chunk: there is nothing to be early for
            return SchedulerConfig(action_horizon=self.action_horizon, margin_ticks=0, seam=how)
        return SchedulerConfig(
            action_horizon=self.action_horizon,
            margin_ticks=self.margin_ticks,
            min_execution_ticks=self.min_execution_ticks,
            max_age_ticks=max(1, round(self.timeout * self.control_hz)),
            seam=how,
        )

    def _connection(self, headers: dict[str, str], url: str | None = None) -> ConnectionConfig:
        url = split_urls(self.websocket_url)[0] if url is None else url
        return ConnectionConfig(
            url=url,
            dialect=self.dialect,  # type: ignore[arg-type]  # it checks it
            connect_timeout=self.connect_timeout,
            handshake_timeout=self.handshake_timeout,
            metadata_timeout=self.metadata_timeout,
            request_timeout=self.timeout,
            first_request_timeout=self.first_request_timeout,
            hard_timeout=self.hard_timeout,
            headers=headers,
            ca_file=self.ca_file,
            tls_fingerprint=self.tls_fingerprint,
            client_cert_file=self.client_cert_file,
            client_key_file=self.client_key_file,
            proxy=self.proxy,
            max_message_bytes=self.max_message_bytes,
            congestion_control=self.congestion_control,
            keep_warm=self.keep_warm,
            image_transport=self.image_transport,  # type: ignore[arg-type]  # it checks it
            jpeg_quality_floor=self.jpeg_quality_floor,
        )

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value: Any = getattr(self, name)
        if value not in choices:
            raise ConfigError(f"{name}={value!r}: expected one of {', '.join(choices)}")

    def _save_pretrained(self, save_directory: Path) -> None:
        # Features describe one environment, not the server. Saved, they would make every later rollout look
        # like an evaluation (see `PI05WebSocketPolicy`: how the policy is built decides the tick source).
        bare = copy(self)
        bare.input_features, bare.output_features, bare.pretrained_path = {}, {}, None
        super(PI05WebSocketConfig, bare)._save_pretrained(save_directory)
