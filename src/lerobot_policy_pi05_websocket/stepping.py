# SPDX-License-Identifier: Apache-2.0
"""One action per call, for each environment: on the clock for robots, by calls for simulators.

In: robot observations. Out: one `Step` each. Runs on the caller's thread; every wait has a deadline.
Knows the player and the key map, not torch and not LeRobot.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from lerobot_policy_pi05_websocket.observations import RobotObservation
from pi05_websocket.client import PolicyPool, RemotePolicy
from pi05_websocket.clock import Clock
from pi05_websocket.data import Float32Array, Observation
from pi05_websocket.errors import InvalidReply
from pi05_websocket.keymap import KeyMap
from pi05_websocket.robot.controls import Controls, grant
from pi05_websocket.robot.interface import Preflight, check_joints
from pi05_websocket.robot.player import ActionPlayer, PlayerConfig, Step
from pi05_websocket.robot.ticks import RateMonitor, WallTicks
from pi05_websocket.robot.trace import Trace

__all__ = ["FIRST_WAIT_S", "Session", "observer"]

logger = logging.getLogger(__name__)

FIRST_WAIT_S = 0.8
"""Longest wait of one call on the clock, once per episode: while nothing has been commanded yet, waiting for
the first chunk costs no motion. Below the second after which Ctrl-C would feel dead."""

HOW_TO_RESUME = "call policy.resume() in a script of yours, or start lerobot-rollout again"
"""What a person does after a pause that was longer than `auto_resume`."""

AT_THE_END = (
    "at its end lerobot-rollout moves the arm to where it started, stopped or not: "
    "--return_to_initial_position=false keeps it from that"
)
"""What a person who has stopped an arm has to know before the run ends."""

POLL_S = 0.05
"""How often a waiting call looks whether the link is up or a failed request may be repeated."""


class Session:
    """The players, ticks and episode of one calling thread.

    Args:
        remote: Where to ask.
        config: What the players do with chunks.
        key_map: Robot names to policy names.
        control_hz: Rate of the ticks on the clock.
        clock: Where they come from.
        trace: Where the players write what happened.
        controls: What a person wants, on the clock.
        how_to_resume: What a person does after a long pause, for the log.
        preflight: Looks at the first exchange before anything moves.
    """

    def __init__(
        self,
        remote: RemotePolicy | PolicyPool,
        config: PlayerConfig,
        key_map: KeyMap,
        *,
        control_hz: float,
        clock: Clock,
        trace: Trace,
        controls: Controls | None = None,
        how_to_resume: str = HOW_TO_RESUME,
        preflight: Preflight | None = None,
    ) -> None:
        self._preflight = preflight
        self._remote = remote
        self._config = config
        self._key_map = key_map
        self._control_hz = control_hz
        self._clock = clock
        self._trace = trace
        self._controls = Controls() if controls is None else controls
        self._how_to_resume = how_to_resume
        self._own_task: str | None = None
        """What a person wants to be done instead of the caller's task."""
        self._ticks = WallTicks(control_hz)
        self._rate = RateMonitor(control_hz)
        self._calls = 0
        self._players: list[ActionPlayer] = []
        self._tasks: list[str] = []
        self._waited = False
        self._lock = threading.Lock()
        """One call at a time: an arm may be driven from a pool of threads, and reset from another."""

    def reset(self) -> None:
        """Begin a new episode, as LeRobot does by a timer too: what a person has stopped stays stopped."""
        with self._lock:
            for player in self._players:
                latched = player.latched
                player.start_episode()
                if latched:
                    player.stop()
            if self._own_task is not None:
                logger.info("new episode: the task is the caller's again")
                self._own_task = None
            self._rate.restart()
            self._waited = False

    def resume(self) -> bool:
        """Let a stopped arm move again; say whether any was stopped."""
        with self._lock:
            resumed = [player.resume() for player in self._players]
        return any(resumed)

    def close(self) -> None:
        """Say how many ticks were held, and why."""
        with self._lock:
            for player in self._players:
                player.end_episode()

    def step_on_the_clock(self, observation: RobotObservation) -> Step:
        """Return the action of the present tick; does not wait, but once per episode for its first chunk."""
        with self._lock:
            return self._step_on_the_clock(observation)

    def _step_on_the_clock(self, observation: RobotObservation) -> Step:
        if self._own_task is not None:
            observation = replace(observation, task=self._own_task)
        check_joints(observation.state, self._key_map.joint_names)
        self._prepare([observation])
        observation = self._obey(observation)
        now = self._clock.now()
        self._check_rate(now)
        tick = self._ticks.at(now)
        player = self._players[0]
        observe = observer(self._key_map, observation)
        measured = _measured(observation, player)
        player.collect(tick)
        player.ask(tick, observe, measured)
        if not self._waited:
            self._waited = True
            tick = self._wait_for_first_chunk(player, tick, observe, measured)
        return player.act(tick, measured)

    def _obey(self, observation: RobotObservation) -> RobotObservation:
        """Do what a person wants; return the observation with the task that is now to be done."""
        player = self._players[0]
        for wish in self._controls.take():
            if wish.name == "quit":
                player.stop()
                logger.warning("the arm holds; end the program with Ctrl-C")
                logger.warning(AT_THE_END)
            elif wish.name == "pause":
                player.stop()
                logger.warning(AT_THE_END)
            elif wish.name == "episode":
                player.start_episode()
                self._waited = False
            elif wish.name == "task":
                self._own_task = wish.text
                observation = replace(observation, task=wish.text)
                self._prepare([observation])
            else:
                grant(wish, player)
        return observation

    def step_by_calls(self, observations: Sequence[RobotObservation]) -> list[Step]:
        """Return the next action of each environment; a call is a tick and waits for its chunks.

        Raises:
            TransportError: There never was a connection.
            InvalidReply: The server has never answered with a valid chunk: holding would only hide that.
        """
        with self._lock:
            return self._step_by_calls(observations)

    def _step_by_calls(self, observations: Sequence[RobotObservation]) -> list[Step]:
        self._prepare(observations)
        tick = self._calls
        self._calls += 1
        players = self._players[: len(observations)]
        for player in players:
            player.collect(tick)
        self._wait_until_covered(players, observations, tick)
        for player in players:
            if not player.started:
                error = self._remote.unavailable()
                if error is not None and self._remote.connection.metadata is None:
                    raise error
                raise InvalidReply(
                    f"the server has never answered with a valid chunk: {player.cause}"
                )
        return [
            player.act(tick, _measured(observation, player))
            for player, observation in zip(players, observations, strict=True)
        ]

    def _prepare(self, observations: Sequence[RobotObservation]) -> None:
        """Have a player for each environment, and its task up to date."""
        several = len(observations) > 1
        while len(self._players) < len(observations):
            number = len(self._players)
            player = ActionPlayer(
                self._remote,
                self._config_for(observations[number]),
                trace=self._trace,
                clock=self._clock,
                name=f"env {number}" if several else "",
                number=number,
                how_to_resume=self._how_to_resume,
                preflight=self._preflight,
            )
            self._trace.write("task", task=observations[number].task)
            player.start_episode()
            self._players.append(player)
            self._tasks.append(observations[number].task)
        for i, observation in enumerate(observations):
            if observation.task != self._tasks[i]:
                logger.info("task changed: %r", observation.task)
                self._trace.write("task", task=observation.task)
                self._tasks[i] = observation.task
                self._players[i].change_task()

    def _config_for(self, observation: RobotObservation) -> PlayerConfig:
        """Return the players' settings; absolute targets are as many as the joints they are for.

        LeRobot's sync engine cuts a row that is too long without a word, so the width must be known.
        """
        if self._config.action_dim is None and self._config.action_kind == "absolute":
            return replace(self._config, action_dim=len(observation.state))
        return self._config

    def _wait_for_first_chunk(
        self,
        player: ActionPlayer,
        tick: int,
        observe: Callable[[], Observation],
        measured: Float32Array | None,
    ) -> int:
        """Wait up to `FIRST_WAIT_S` while the arm stands still anyway; return the tick it is then."""
        deadline = self._clock.now() + FIRST_WAIT_S
        while not player.scheduler.remaining(tick):
            left = deadline - self._clock.now()
            if left <= 0:
                break
            if player.waiting:
                player.wait(left)
                tick = self._ticks.at(self._clock.now())
                player.collect(tick)
                if player.waiting:
                    break
            else:
                self._clock.sleep(min(POLL_S, left))
                tick = self._ticks.at(self._clock.now())
                player.ask(tick, observe, measured)
        self._rate.restart()
        return tick

    def _wait_until_covered(
        self, players: Sequence[ActionPlayer], observations: Sequence[RobotObservation], tick: int
    ) -> None:
        """Ask for every environment that needs a chunk, together, and wait for all of them."""
        observers = [observer(self._key_map, observation) for observation in observations]
        remote = self._remote
        limit = remote.config.request_limit(answered_before=remote.connection.answered)
        began = self._clock.now()
        while lacking := [i for i, player in enumerate(players) if not player.covered(tick)]:
            for i in lacking:  # all requests are under way before any is waited for
                players[i].ask(tick, observers[i])
            # A model may compile for minutes; a server that is not there is not waited for as long.
            patience = limit if remote.connection.metadata is not None else remote.patience
            deadline = began + min(limit, patience)
            left = deadline - self._clock.now()
            if left <= 0:
                break
            if not any(players[i].waiting for i in lacking):
                self._clock.sleep(min(POLL_S, left))
                players[lacking[0]].show_progress()
            for i in lacking:
                players[i].wait(max(0.0, deadline - self._clock.now()))
                players[i].collect(tick)

    def _check_rate(self, now: float) -> None:
        observed = self._rate.observe(now)
        if observed is not None:
            logger.warning(
                "the loop calls at %.1f Hz but control_hz is %g: rows are %s. Set --policy.control_hz "
                "and --fps to the rate the policy was trained at, and see that the loop keeps it.",
                observed,
                self._control_hz,
                "skipped" if observed < self._control_hz else "repeated",
            )


def observer(key_map: KeyMap, observation: RobotObservation) -> Callable[[], Observation]:
    """Return what makes the observation once a request is really due: resizing costs milliseconds."""
    return lambda: key_map.observation(observation.images, observation.state, observation.task)


def _measured(observation: RobotObservation, player: ActionPlayer) -> Float32Array | None:
    """Return the state as a pose that can be held: finite, and as wide as an action."""
    state, width = observation.state, player.config.action_dim
    return state if np.isfinite(state).all() and width in (None, len(state)) else None
