# SPDX-License-Identifier: Apache-2.0
"""`PI05WebSocketPolicy`: LeRobot's policy interface in front of a policy server.

In: LeRobot batches or `robot.get_observation()`. Out: actions, one per call, from chunks that come over the
wire. The deciding is done elsewhere: which row for which tick in `pi05_websocket.chunks`, what to do without
one in `pi05_websocket.robot.player`, the link in `pi05_websocket.client`. Here they meet LeRobot's calls.

Which tick a call is (`tick_source="auto"`):
- *wall*: built by `make_policy` here, or from a config that names no environment's action: a robot. Ticks
  follow the clock; no call waits, but once per episode, for its first chunk (`stepping.FIRST_WAIT_S`).
- *calls*: built by LeRobot's `make_policy(cfg, env_cfg=…)` (lerobot-eval), which fills in `output_features`,
  or called with a batch of more than one: a simulator that stands still meanwhile. Each call is a tick and
  waits for its chunk.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from lerobot_policy_pi05_websocket.configuration_pi05_websocket import PI05WebSocketConfig
from lerobot_policy_pi05_websocket.observations import (
    RobotObservation,
    is_raw,
    joint_order,
    split_batch,
    split_raw,
)
from lerobot_policy_pi05_websocket.rtc_chunks import RtcChunks
from lerobot_policy_pi05_websocket.rtc_engine import bounded
from lerobot_policy_pi05_websocket.stepping import HOW_TO_RESUME, Session, observer
from pi05_websocket.client import PolicyPool, RemotePolicy, connect
from pi05_websocket.clock import SYSTEM_CLOCK, Clock
from pi05_websocket.data import Float32Array
from pi05_websocket.errors import (
    ConfigError,
    IncompatibleServer,
    InvalidReply,
    PolicyChanged,
)
from pi05_websocket.keymap import KeyMap
from pi05_websocket.recording.recorder import Recorder, settings_of
from pi05_websocket.robot.control_page import ControlPage
from pi05_websocket.robot.controls import Controls
from pi05_websocket.robot.limits import Limits
from pi05_websocket.robot.metrics import RobotMetrics
from pi05_websocket.robot.outage import OtherPolicy
from pi05_websocket.robot.rerun_view import RerunView
from pi05_websocket.robot.statistics import RunStatistics
from pi05_websocket.robot.trace import Listener, Trace
from pi05_websocket.wire.messages import read_actions

__all__ = ["PI05WebSocketPolicy"]

logger = logging.getLogger(__name__)


class PI05WebSocketPolicy(PreTrainedPolicy):  # type: ignore[misc]  # LeRobot is untyped for mypy
    """An OpenPI policy server as a LeRobot policy. It has no parameters and computes nothing.

    Args:
        config: The settings.
        dataset_stats: Not used: the server normalises. LeRobot passes it.
        dataset_meta: LeRobot passes it when the policy is built from a dataset: a robot's policy.
        clock: Where wall ticks come from.
    """

    config_class = PI05WebSocketConfig
    name = "pi05_websocket"

    def __init__(
        self,
        config: PI05WebSocketConfig,
        dataset_stats: dict[str, Any] | None = None,
        dataset_meta: Any = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
        **_ignored: Any,
    ) -> None:
        super().__init__(config)
        self.config: PI05WebSocketConfig = config
        self._key_map = config.key_map()
        self._units = config.unit_map(self._key_map)
        self._clock = clock
        built_for_env = bool(config.output_features) and dataset_meta is None
        self._tick_source = config.tick_source
        if self._tick_source == "auto":
            self._tick_source = "calls" if built_for_env else "wall"
        self._traced = False
        self._clear_runtime()

    def _clear_runtime(self) -> None:
        self._lock = threading.Lock()
        self._controls = Controls()
        self._remote: RemotePolicy | PolicyPool | None = None
        self._other_policy = OtherPolicy()
        """That another policy is left, as the log has said it where LeRobot's rtc engine asks."""
        self._trace: Trace | None = None
        self._sessions: dict[int | None, Session] = {}
        self._rtc: RtcChunks | None = None
        self._predicted: Float32Array | None = None
        self._cameras_told = False
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the link, its thread and all progress behind: a copy or a pickle begins anew."""
        runtime = (
            "_lock",
            "_controls",
            "_remote",
            "_trace",
            "_sessions",
            "_rtc",
            "_predicted",
            "_cameras_told",
            "_finalizer",
        )
        return {key: value for key, value in self.__dict__.items() if key not in runtime}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._clear_runtime()

    # --- building, saving ------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        pretrained_name_or_path: str | Path | None = None,
        *,
        config: PreTrainedConfig | None = None,
        **kwargs: Any,
    ) -> PI05WebSocketPolicy:
        """Build the policy from a saved config, or from `config` alone. There are no weights to load.

        `lerobot-rollout` calls this with no path for `--policy.type=pi05_websocket`.

        Raises:
            ConfigError: Neither a path nor a config.
        """
        own = ("dataset_stats", "dataset_meta", "clock")
        kept = {key: kwargs.pop(key) for key in own if key in kwargs}
        if config is None:
            if pretrained_name_or_path is None:
                raise ConfigError("from_pretrained: give a folder with a config.json, or config=…")
            kwargs.pop("strict", None)
            config = PreTrainedConfig.from_pretrained(pretrained_name_or_path, **kwargs)
        policy = cls(config, **kept)
        policy.connect()
        return policy.eval()

    def _save_pretrained(self, save_directory: Path, state_dict: Any = None) -> None:
        self.config._save_pretrained(save_directory)

    def get_optim_params(self) -> dict[str, Any]:
        """Return nothing: there is nothing to optimise."""
        return {}

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any] | None]:
        """Refuse: a remote policy is trained where its weights are.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "pi05_websocket has no weights: fine-tune the checkpoint with OpenPI and serve it"
        )

    # --- the link --------------------------------------------------------------------------------------------

    def connect(self) -> RemotePolicy | PolicyPool:
        """Begin connecting in the background, once; return the remote policy."""
        with self._lock:
            if self._remote is None:
                config = self.config
                with contextlib.ExitStack() as opened:
                    # First: a library that is missing, or a port that is taken.
                    listeners = _listeners(config, self._controls, opened)
                    remote = connect(
                        config.websocket_url,
                        config.connection_config(),
                        same_policy=config.same_policy,
                        wait_for_server=0,
                    )
                    opened.callback(remote.close)
                    trace = Trace(config.trace_file, append=self._traced, listeners=listeners)
                    opened.callback(trace.close)
                    opened.callback(
                        _say_how_it_went, self._sessions
                    )  # LeRobot ends without closing
                    self._finalizer = weakref.finalize(self, opened.pop_all().close)
                self._remote, self._trace, self._traced = remote, trace, True
                logger.info(
                    "pi05_websocket: %s, key map %s, ticks by %s at %g Hz, without a valid action: %s",
                    config.websocket_url,
                    self._key_map.name,
                    self._tick_source,
                    config.control_hz,
                    config.fallback.upper(),
                )
                self._tell_units()
                if self._tick_source == "wall":
                    self._tell_bounds()
            return self._remote

    def resume(self) -> bool:
        """Let an arm that has stopped after a long pause move again; say whether it had.

        Only a person should: after a pause longer than `auto_resume` nobody knows who is near the arm. Where
        the arm holds because only a server of another policy is left, this accepts that policy; the first time
        it only says so, where the log has not said it before.
        """
        with self._lock:
            sessions, rtc, remote = list(self._sessions.values()), self._rtc, self._remote
        if sessions:
            resumed = [session.resume() for session in sessions]
            return any(resumed) | (rtc is not None and rtc.resume())
        error, accepted = None if remote is None else remote.unavailable(), False
        if remote is not None and isinstance(error, PolicyChanged):
            if not self._other_policy.told(error):
                return False
            accepted = remote.accept(error)
            if not accepted:
                return False  # yet another one has come since
        return (rtc is not None and rtc.resume()) | accepted

    def close(self) -> None:
        """Disconnect. The next call connects again. Safe to call twice."""
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            session.close()
        with self._lock:
            finalizer, self._finalizer = self._finalizer, None
            self._remote = self._trace = self._rtc = None
            self._sessions.clear()
        if finalizer is not None:
            finalizer()

    def _tell_units(self) -> None:
        """Show once what is converted into what; nothing on the wire would tell a mistake."""
        assert self._trace is not None
        if self._units is not None:
            logger.info("units:\n%s", self._units.table())
            self._trace.write("units", table=self._units.table().splitlines())
        elif self._key_map.unit_system:
            logger.warning(
                "policies with key map %s use %s; nothing is converted, because robot_units is not set: "
                "--policy.robot_units=lerobot for LeRobot since 0.4.4, lerobot_normalized before",
                self._key_map.name,
                self._key_map.units,
            )

    def _tell_bounds(self) -> None:
        """Say what bounds the motion, and what keeps it from beginning: where nothing does, that too."""
        assert self._trace is not None
        config = self.config
        limits = config.player_config(tick_source="wall", key_map=self._key_map).limits
        said = {
            "units": "converted" if self._units is not None else "the policy's own",
            "limits": limits.words(self._key_map.joint_names),
            "speed_scale": config.speed_scale,
            "begins": "never: a dry run"
            if config.dry_run
            else "once confirmed"
            if config.confirm
            else "at once",
        }
        logger.info("%s", "; ".join(f"{name}: {value}" for name, value in said.items()))
        self._trace.write("settings", **said)

    @property
    def server_metadata(self) -> dict[str, Any]:
        """What the server said about itself; `{}` before the first connection, and from stock servers."""
        return {} if self._remote is None else self._remote.metadata

    # --- LeRobot's calls -------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Begin a new episode: no row of the one before can be executed any more."""
        with self._lock:
            keys = {self._session_key(source) for source in ("wall", "calls")}
            sessions = [self._sessions[key] for key in keys if key in self._sessions]
            rtc = self._rtc
        for session in sessions:
            session.reset()
        if rtc is not None:
            rtc.reset()
        if self._remote is not None:
            self._remote.reset()

    @torch.no_grad()
    def select_action(self, batch: Mapping[str, Any], **_ignored: Any) -> Any:
        """Return the action for now.

        Args:
            batch: A LeRobot batch (`observation.state` `(B, state_dim)`, `observation.images.*`
                `(B, C, H, W)` float in [0, 1] or uint8, `task`), or `robot.get_observation()` as it comes.

        Returns:
            `(B, action_dim)` float32 on the CPU; for a raw observation the dict `robot.send_action` takes.

        Raises:
            ObservationError: The observation does not fit the key map.
            NoValidAction: There is no action, and `fallback` is "raise" or there is nothing to hold.
            Pi05WebsocketError: The server can never be used (key refused, not a policy server) and nothing
                has moved yet.
        """
        if is_raw(batch):
            joints = joint_order(batch, self._key_map.joint_names)
            observation = self._in_policy_units(split_raw(batch, joints, self.config.task))
            values = self._select([observation])[0]
            return self._robot_action(values, joints)
        observations = map(self._in_policy_units, split_batch(batch, self.config.task))
        return torch.from_numpy(self._in_robot_units(np.stack(self._select(list(observations)))))

    def supports_rtc(self) -> bool:
        """Say that LeRobot's `rtc` engine may drive this policy."""
        return True

    def init_rtc_processor(self) -> None:
        """Check what the `rtc` engine cannot do (LeRobot calls this when it is chosen).

        Raises:
            ConfigError: `fallback="zero"`: without a chunk the engine sends nothing at all. `dry_run`,
                `confirm`, `speed_scale`, `control_port`: its queue would go on whatever they say.
        """
        self._refuse_unseen_rows(
            "the rtc engine's queue hands rows to the arm that nobody has seen"
        )
        if self.config.fallback == "zero":
            raise ConfigError(
                "fallback='zero' needs --inference.type=sync: the rtc engine sends nothing while it has no "
                "chunk, so the arm holds. Use fallback=hold with it."
            )

    def _refuse_unseen_rows(self, why: str) -> None:
        """Refuse settings that only work tick by tick.

        Raises:
            ConfigError: One of them is set.
        """
        config = self.config
        chosen = {
            "dry_run": config.dry_run,
            "confirm": config.confirm,
            "speed_scale": config.speed_scale != 1.0,
            "control_port": config.control_port is not None,
        }
        names = ", ".join(name for name, is_set in chosen.items() if is_set)
        if names:
            raise ConfigError(f"{names}: needs select_action (--inference.type=sync): {why}")

    @torch.compiler.disable  # compiling a network call would cost 48 s for nothing
    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: Mapping[str, Any],
        inference_delay: int | None = None,
        prev_chunk_left_over: Tensor | None = None,
        **_ignored: Any,
    ) -> Tensor:
        """Ask for one chunk per environment and wait for it.

        Args:
            batch: As for `select_action`.
            inference_delay: LeRobot's estimate in ticks, from a maximum that never forgets. Not used: we
                measure our own.
            prev_chunk_left_over: `(execution_horizon, action_dim)` from the `rtc` engine, zero-padded; what
                is true of it goes to a server that conditions on it.

        Returns:
            `(B, action_horizon, action_dim)` float32 on the CPU.

        Raises:
            ConfigError: A setting that only works tick by tick, such as `dry_run`.
            Pi05WebsocketError: No chunk, and why.
        """
        self._refuse_unseen_rows("whole chunks are played by somebody else")
        observations = [self._in_policy_units(o) for o in split_batch(batch, self.config.task)]
        if inference_delay is None and prev_chunk_left_over is None:
            return torch.from_numpy(self._in_robot_units(self._infer_all(observations)))
        if len(observations) != 1:
            raise ConfigError(
                f"the rtc engine drives one robot, got a batch of {len(observations)}"
            )
        prefix = None if prev_chunk_left_over is None else prev_chunk_left_over.cpu().numpy()
        self._check_cameras(observations[0])
        return torch.from_numpy(self._rtc_chunks().chunk(observations[0], prefix)[None])

    # --- one action per call ---------------------------------------------------------------------------------

    def _select(self, observations: list[RobotObservation]) -> list[Float32Array]:
        session = self._session(several=len(observations) > 1)
        self._check_cameras(observations[0])
        if self._tick_source == "wall" and len(observations) == 1:
            step = session.step_on_the_clock(observations[0])
            self._predicted = step.predicted
            return [step.values]
        return [step.values for step in session.step_by_calls(observations)]

    def _session(self, *, several: bool) -> Session:
        """Return the session of the one arm, or of the calling thread's environments."""
        remote = self.connect()
        tick_source = "calls" if several else self._tick_source
        key = self._session_key(tick_source)
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                assert self._trace is not None
                session = self._sessions[key] = Session(
                    remote,
                    self.config.player_config(tick_source=tick_source, key_map=self._key_map),
                    self._key_map,
                    control_hz=self.config.control_hz,
                    clock=self._clock,
                    trace=self._trace,
                    controls=self._controls,
                    how_to_resume=self._how_to_resume(),
                    preflight=self.config.first_look(self._key_map)
                    if tick_source == "wall"
                    else None,
                )
            return session

    def _how_to_resume(self) -> str:
        if self.config.control_port is not None:
            return f"pi05-websocket control resume --port {self.config.control_port}"
        if self.config.confirm:
            return "call policy.resume() in a script of yours, or set control_port (--policy.control_port=9091)"
        return HOW_TO_RESUME

    def _robot_action(self, values: Float32Array, joints: list[str]) -> dict[str, float]:
        if len(values) != len(joints):
            raise IncompatibleServer(
                f"an action has {len(values)} values, the robot {len(joints)} joints: {', '.join(joints)}"
            )
        targets = self._in_robot_units(values)
        return {joint: float(value) for joint, value in zip(joints, targets, strict=True)}

    def _in_policy_units(self, observation: RobotObservation) -> RobotObservation:
        """Return the observation as the policy's data set had it."""
        if self._units is None:
            return observation
        return replace(observation, state=self._units.to_policy(observation.state))

    def _in_robot_units(self, values: Float32Array) -> Float32Array:
        """Return targets `(..., joints)` as the robot takes them."""
        return values if self._units is None else self._units.to_robot(values)

    # --- whole chunks ----------------------------------------------------------------------------------------

    def _infer_all(self, observations: list[RobotObservation]) -> Float32Array:
        remote = self.connect()
        limit = remote.config.request_limit(answered_before=remote.connection.answered)
        remote.connection.wait_ready(limit)
        exchanges = [
            remote.submit(observer(self._key_map, observation)()) for observation in observations
        ]
        config = self.config.player_config(tick_source=self._tick_source, key_map=self._key_map)
        limits = Limits(config.limits, config.action_kind, config.control_hz)
        chunks = []
        for observation, exchange in zip(observations, exchanges, strict=True):
            rows = read_actions(exchange.result(limit).value, action_dim=config.action_dim)
            comparable = observation.state.shape == rows.shape[1:]
            chunks.append(
                bounded(
                    rows,
                    pose=observation.state if comparable and self._tick_source == "wall" else None,
                    resume=config.resume if config.action_kind == "absolute" else None,
                    limits=limits,
                )
            )
        if len({chunk.shape for chunk in chunks}) > 1:
            raise InvalidReply(
                f"chunks of different shapes in one batch: {[c.shape for c in chunks]}"
            )
        return np.stack(chunks)

    @staticmethod
    def _session_key(tick_source: str) -> int | None:
        """Return whose session it is: there is one arm, whichever thread drives or resets it.

        lerobot-eval may call one policy from several threads (`env.max_parallel_tasks`), each with
        environments of its own.
        """
        return None if tick_source == "wall" else threading.get_ident()

    def _rtc_chunks(self) -> RtcChunks:
        remote = self.connect()
        with self._lock:
            if self._rtc is None:
                config = self.config.player_config(tick_source="wall", key_map=self._key_map)
                self._rtc = RtcChunks(
                    remote,
                    self._key_map,
                    config=config,
                    clock=self._clock,
                    trace=self._trace,
                    units=self._units,
                    preflight=self.config.first_look(self._key_map),
                )
            return self._rtc

    def _check_cameras(self, observation: RobotObservation) -> None:
        unused = self._key_map.unused(observation.images)
        if unused and not self._cameras_told:
            self._cameras_told = True
            logger.warning(
                "robot cameras not sent to the server: %s (key map %s)",
                ", ".join(unused),
                self._key_map.name,
            )

    @property
    def predicted(self) -> Float32Array | None:
        """What the last tick of a dry run would have commanded, `(joints,)`, in the robot's units.

        None without a row for that tick, and outside of dry runs.
        """
        return None if self._predicted is None else self._in_robot_units(self._predicted)

    @property
    def key_map(self) -> KeyMap:
        """The key map in use."""
        return self._key_map


def _say_how_it_went(sessions: dict[int | None, Session]) -> None:
    for session in list(sessions.values()):
        session.close()


def _listeners(
    config: PI05WebSocketConfig, controls: Controls, opened: contextlib.ExitStack
) -> list[Listener]:
    """Return who is told what happens, besides the trace; `opened` closes them."""
    made: list[
        tuple[bool, Callable[[], RobotMetrics | RerunView | ControlPage | RunStatistics | Recorder]]
    ] = [
        (config.control_port is not None, lambda: ControlPage(config.control_port or 0, controls)),
        (config.summary_file is not None, lambda: RunStatistics(config.summary_file or "")),
        (config.metrics_port is not None, lambda: RobotMetrics(config.metrics_port or 0)),
        (config.rerun, RerunView),
        (config.record is not None, lambda: _recorder(config)),
    ]
    found: list[Listener] = []
    for wanted, make in made:
        if wanted:
            listener = make()
            opened.callback(listener.close)
            found.append(listener)
    return found


def _recorder(config: PI05WebSocketConfig) -> Recorder:
    joints = " ".join(config.key_map().joint_names)
    settings = settings_of(config, url=config.websocket_url, joint_names=joints)
    return Recorder(config.record or "", settings, max_bytes=config.record_max_bytes)
