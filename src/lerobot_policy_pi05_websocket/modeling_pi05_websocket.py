# SPDX-License-Identifier: Apache-2.0
"""`PI05WebSocketPolicy`: LeRobot's policy interface in front of a policy server.

In: LeRobot batches or `robot.get_observation()`. Out: actions, one per call, from chunks that come over the
wire. The deciding is done elsewhere: which row for which tick in `pi05_websocket.chunks`, what to do without
one in `pi05_websocket.robot.player`, the link in `pi05_websocket.client`. Here they meet LeRobot's calls.

Which tick a call is (`tick_source="auto"`):
- *wall*: built by `from_pretrained` (lerobot-rollout), by `make_policy` here, or directly: a robot. Ticks
  follow the clock; no call waits, but for at most `FIRST_WAIT_S` for an episode's first chunk.
- *calls*: built by LeRobot's `make_policy(cfg, env_cfg=…)` (lerobot-eval), or called with a batch of more than
  one: a simulator that stands still meanwhile. Each call is a tick and waits for its chunk.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
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
from lerobot_policy_pi05_websocket.rtc_engine import rows_in_front, true_leftover
from pi05_websocket.client import Exchange, RemotePolicy
from pi05_websocket.clock import SYSTEM_CLOCK, Clock
from pi05_websocket.data import Float32Array, Observation
from pi05_websocket.errors import (
    ConfigError,
    ConnectionLost,
    IncompatibleServer,
    InvalidReply,
    Pi05WebsocketError,
)
from pi05_websocket.keymap import KeyMap
from pi05_websocket.robot.player import ActionPlayer, Step
from pi05_websocket.robot.ticks import RateMonitor, WallTicks
from pi05_websocket.robot.trace import Trace
from pi05_websocket.wire.messages import read_actions

__all__ = ["PI05WebSocketPolicy"]

logger = logging.getLogger(__name__)

FIRST_WAIT_S = 0.8
"""Longest wait of one call in wall mode, once per episode: while nothing has been commanded yet, waiting for
the first chunk costs no motion. Below the second after which Ctrl-C would feel dead."""

POLL_S = 0.05
"""How often a waiting call looks whether it should give up (reset, closed link)."""

PROGRESS_EVERY_S = 2.0
"""A person who waits longer than this is told what for."""


class _Session:
    """The players, ticks and episode of one calling thread."""

    def __init__(self, control_hz: float) -> None:
        self.ticks = WallTicks(control_hz)
        self.rate = RateMonitor(control_hz)
        self.calls = 0
        self.players: list[ActionPlayer] = []
        self.tasks: list[str] = []
        self.waited = False
        """Whether this episode's one wait for its first chunk has been spent."""


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
        self._clock = clock
        built_for_env = bool(config.output_features) and dataset_meta is None
        self._tick_source = config.tick_source
        if self._tick_source == "auto":
            self._tick_source = "calls" if built_for_env else "wall"
        self._clear_runtime()

    def _clear_runtime(self) -> None:
        self._lock = threading.Lock()
        self._remote: RemotePolicy | None = None
        self._trace: Trace | None = None
        self._sessions: dict[int, _Session] = {}
        self._epoch = 0
        self._rtc_last: Float32Array | None = None
        self._said: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the link, its thread and all progress behind: a copy or a pickle begins anew."""
        runtime = ("_lock", "_remote", "_trace", "_sessions", "_rtc_last", "_said", "_epoch")
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

    def connect(self) -> RemotePolicy:
        """Begin connecting in the background, once; return the remote policy."""
        with self._lock:
            if self._remote is None:
                config = self.config
                self._remote = RemotePolicy(config=config.connection_config(), wait_for_server=0)
                self._trace = Trace(config.trace_file)
                weakref.finalize(self, _close, self._remote, self._trace)
                logger.info(
                    "pi05_websocket: %s, key map %s, ticks by %s at %g Hz, without a valid action: %s",
                    config.websocket_url,
                    self._key_map.name,
                    self._tick_source,
                    config.control_hz,
                    config.fallback.upper(),
                )
            return self._remote

    def close(self) -> None:
        """Disconnect. The next call connects again. Safe to call twice."""
        with self._lock:
            remote, trace = self._remote, self._trace
            self._remote = self._trace = None
            self._sessions.clear()
        if remote is not None and trace is not None:
            _close(remote, trace)

    @property
    def server_metadata(self) -> dict[str, Any]:
        """What the server said about itself; `{}` before the first connection, and from stock servers."""
        return {} if self._remote is None else self._remote.metadata

    # --- LeRobot's calls -------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Begin a new episode: no row of the one before can be executed any more."""
        with self._lock:
            self._epoch += 1
            self._rtc_last = None
            session = self._sessions.get(threading.get_ident())
        if session is not None:
            for player in session.players:
                player.start_episode()
            session.rate.restart()
            session.waited = False

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
            joints = joint_order(batch, self._key_map.joint_names or ())
            observation = split_raw(batch, joints, self.config.task)
            values = self._select([observation])[0]
            return self._robot_action(values, joints)
        return torch.from_numpy(np.stack(self._select(split_batch(batch, self.config.task))))

    def supports_rtc(self) -> bool:
        """Say that LeRobot's `rtc` engine may drive this policy."""
        return True

    def init_rtc_processor(self) -> None:
        """Check what the `rtc` engine cannot do (LeRobot calls this when it is chosen).

        Raises:
            ConfigError: `fallback="zero"`: without a chunk the engine sends nothing at all.
        """
        if self.config.fallback == "zero":
            raise ConfigError(
                "fallback='zero' needs --inference.type=sync: the rtc engine sends nothing while it has no "
                "chunk, so the arm holds. Use fallback=hold with it."
            )

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
            inference_delay: LeRobot's estimate in ticks, from a maximum that never forgets. Not used.
            prev_chunk_left_over: `(execution_horizon, action_dim)` from the `rtc` engine, zero-padded.

        Returns:
            `(B, action_horizon, action_dim)` float32 on the CPU.

        Raises:
            Pi05WebsocketError: No chunk, and why.
        """
        observations = split_batch(batch, self.config.task)
        if inference_delay is None and prev_chunk_left_over is None:
            return torch.from_numpy(self._infer_all(observations))
        if len(observations) != 1:
            raise ConfigError(
                f"the rtc engine drives one robot, got a batch of {len(observations)}"
            )
        prefix = None if prev_chunk_left_over is None else prev_chunk_left_over.cpu().numpy()
        return torch.from_numpy(self._chunk_for_rtc(observations[0], prefix)[None])

    # --- one action per call ---------------------------------------------------------------------------------

    def _select(self, observations: list[RobotObservation]) -> list[Float32Array]:
        session = self._session(observations)
        if self._tick_source == "wall" and len(observations) == 1:
            steps = [self._step_on_the_clock(session, observations[0])]
        else:
            steps = self._step_by_calls(session, observations)
        return [step.values for step in steps]

    def _session(self, observations: list[RobotObservation]) -> _Session:
        """Return the calling thread's session, with a player per environment and their tasks up to date.

        lerobot-eval may call one policy from several threads (`env.max_parallel_tasks`): each has its own.
        """
        remote = self.connect()
        key = threading.get_ident()
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                session = self._sessions[key] = _Session(self.config.control_hz)
        count = len(observations)
        tick_source = "wall" if self._tick_source == "wall" and count == 1 else "calls"
        while len(session.players) < count:
            name = f"env {len(session.players)}" if count > 1 else ""
            config = self.config.player_config(tick_source=tick_source, key_map=self._key_map)
            player = ActionPlayer(remote, config, trace=self._trace, clock=self._clock, name=name)
            player.start_episode()
            session.players.append(player)
            session.tasks.append(observations[len(session.tasks)].task)
        for i, observation in enumerate(observations):
            if observation.task != session.tasks[i]:
                logger.info("task changed: %r", observation.task)
                session.tasks[i] = observation.task
                session.players[i].change_task()
        self._check_cameras(observations[0])
        return session

    def _step_on_the_clock(self, session: _Session, observation: RobotObservation) -> Step:
        now = self._clock.now()
        self._check_rate(session, now)
        tick = session.ticks.at(now)
        player = session.players[0]
        observe = self._observer(observation)
        player.collect(tick)
        player.ask(tick, observe)
        if not session.waited:
            session.waited = True
            tick = self._wait_for_first_chunk(session, player, tick, observe)
        return player.act(tick, _measured(observation, player))

    def _wait_for_first_chunk(
        self, session: _Session, player: ActionPlayer, tick: int, observe: Callable[[], Observation]
    ) -> int:
        """Wait up to `FIRST_WAIT_S` while the arm stands still anyway; return the tick it is then."""
        deadline = self._clock.now() + FIRST_WAIT_S
        while not player.scheduler.remaining(tick):
            left = deadline - self._clock.now()
            if left <= 0:
                break
            if player.waiting:
                player.wait(left)
                tick = session.ticks.at(self._clock.now())
                player.collect(tick)
                if player.waiting:
                    break
            else:
                self._clock.sleep(min(POLL_S, left))
                tick = session.ticks.at(self._clock.now())
                player.ask(tick, observe)
        session.rate.restart()
        return tick

    def _step_by_calls(self, session: _Session, observations: list[RobotObservation]) -> list[Step]:
        tick = session.calls
        session.calls += 1
        players = session.players[: len(observations)]
        observers = [self._observer(observation) for observation in observations]
        remote = self.connect()
        limit = remote.config.request_limit(answered_before=remote.connection.answered)
        deadline = self._clock.now() + limit
        for player in players:
            player.collect(tick)
        while lacking := [i for i, player in enumerate(players) if not player.covered(tick)]:
            for i in lacking:  # all requests are under way before any is waited for
                players[i].ask(tick, observers[i])
            left = deadline - self._clock.now()
            if left <= 0:
                break
            if not any(players[i].waiting for i in lacking):
                self._clock.sleep(min(POLL_S, left))
            for i in lacking:
                players[i].wait(max(0.0, deadline - self._clock.now()))
                players[i].collect(tick)
        for player in players:
            if not player.started:  # nothing was ever valid: holding would only hide it
                raise _never_started(player)
        return [
            player.act(tick, _measured(observation, player))
            for player, observation in zip(players, observations, strict=True)
        ]

    def _observer(self, observation: RobotObservation) -> Callable[[], Observation]:
        """Return what makes the observation once a request is really due: resizing costs milliseconds."""
        key_map = self._key_map
        return lambda: key_map.observation(observation.images, observation.state, observation.task)

    def _robot_action(self, values: Float32Array, joints: list[str]) -> dict[str, float]:
        if len(values) != len(joints):
            raise IncompatibleServer(
                f"an action has {len(values)} values, the robot {len(joints)} joints: {', '.join(joints)}"
            )
        return {joint: float(value) for joint, value in zip(joints, values, strict=True)}

    # --- whole chunks ----------------------------------------------------------------------------------------

    def _infer_all(self, observations: list[RobotObservation]) -> Float32Array:
        remote = self.connect()
        limit = remote.config.request_limit(answered_before=remote.connection.answered)
        remote.connection.wait_ready(limit)
        exchanges = [remote.submit(self._observer(observation)()) for observation in observations]
        chunks = [self._read(exchange, limit) for exchange in exchanges]
        if len({chunk.shape for chunk in chunks}) > 1:
            raise InvalidReply(
                f"chunks of different shapes in one batch: {[c.shape for c in chunks]}"
            )
        return np.stack(chunks)

    def _read(self, exchange: Exchange, timeout: float) -> Float32Array:
        config = self.config.player_config(tick_source="calls", key_map=self._key_map)
        return read_actions(exchange.result(timeout).value, action_dim=config.action_dim)

    def _chunk_for_rtc(
        self, observation: RobotObservation, prefix: Float32Array | None
    ) -> Float32Array:
        """Return a chunk that LeRobot's `rtc` engine can cut without a jump (see `rtc_engine`)."""
        with self._lock:
            epoch, last = self._epoch, self._rtc_last
        started = self._clock.now()
        remote = self.connect()
        self._check_cameras(observation)
        self._wait_for_link(remote, epoch)
        leftover = true_leftover(prefix, last)
        exchange = remote.submit(self._observer(observation)())
        self._wait_while(lambda: not exchange.done(), epoch, "the policy computes")
        actions = self._read(exchange, 0)
        latency = self._clock.now() - started
        front = rows_in_front(
            latency_s=latency, control_hz=self.config.control_hz, leftover=len(leftover)
        )
        if front and last is not None:
            logger.warning(
                "the queue ran dry: the chunk came after %.2f s, %d rows were left. %s",
                latency,
                len(leftover),
                "Use --inference.type=sync, which asks early enough, or a longer action horizon.",
            )
        self._say_once(
            "rtc",
            "rtc engine: this server does not take a prefix, so chunks are joined by replacing; "
            "--inference.type=sync is the documented way",
        )
        chunk = np.concatenate([np.repeat(actions[:1], front, axis=0), actions])
        with self._lock:
            if self._epoch != epoch:
                raise _superseded()
            self._rtc_last = chunk
        return chunk

    def _wait_for_link(self, remote: RemotePolicy, epoch: int) -> None:
        """Wait while the link is down; then ask for a fresh observation by failing this call."""
        error = remote.unavailable()
        if error is None:
            return
        if not error.retryable or self.config.fallback == "raise":
            raise error
        began = self._clock.now()
        self._wait_while(lambda: remote.unavailable() is not None, epoch, str(error))
        if self._clock.now() - began > self.config.timeout:
            raise ConnectionLost("the server is back; a fresh observation is sent in a moment")

    def _wait_while(self, condition: Callable[[], bool], epoch: int, what: str) -> None:
        """Wait on the engine's own thread, in short steps; give up when an episode has begun meanwhile."""
        told = began = self._clock.now()
        while condition():
            if self._epoch != epoch or self._remote is None:
                raise _superseded()
            now = self._clock.now()
            if now - told >= PROGRESS_EVERY_S:
                told = now
                logger.info("holding, %.0f s without a chunk: %s", now - began, what)
            self._clock.sleep(0.002 if now - began < 1.0 else POLL_S)

    # --- things said aloud -----------------------------------------------------------------------------------

    def _check_cameras(self, observation: RobotObservation) -> None:
        unused = self._key_map.unused(observation.images)
        if unused:
            self._say_once(
                "cameras",
                f"robot cameras not sent to the server: {', '.join(unused)} (key map {self._key_map.name})",
            )

    def _check_rate(self, session: _Session, now: float) -> None:
        observed = session.rate.observe(now)
        if observed is not None:
            logger.warning(
                "the loop calls at %.1f Hz but control_hz is %g: rows are %s. Set --policy.control_hz "
                "and --fps to the rate the policy was trained at, and see that the loop keeps it.",
                observed,
                self.config.control_hz,
                "skipped" if observed < self.config.control_hz else "repeated",
            )

    def _say_once(self, topic: str, text: str) -> None:
        if topic not in self._said:
            self._said.add(topic)
            logger.warning("%s", text)

    @property
    def key_map(self) -> KeyMap:
        """The key map in use."""
        return self._key_map


def _measured(observation: RobotObservation, player: ActionPlayer) -> Float32Array | None:
    """Return the state as a pose that can be held: finite, and as wide as an action."""
    state, width = observation.state, player.config.action_dim
    return state if np.isfinite(state).all() and width in (None, len(state)) else None


def _close(remote: RemotePolicy, trace: Trace) -> None:
    remote.close()
    trace.close()


def _superseded() -> Pi05WebsocketError:
    return ConnectionLost("a new episode began while this chunk was under way; it is dropped")


def _never_started(player: ActionPlayer) -> Pi05WebsocketError:
    return InvalidReply(f"the server has never answered with a valid chunk: {player.cause}")
