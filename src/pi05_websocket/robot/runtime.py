# SPDX-License-Identifier: Apache-2.0
"""The control loop for people without LeRobot's: observe, collect, ask, act, command, at an even rate.

In: a robot, a policy that can be asked without waiting, a key map. Out: commands, and a summary.
Runs on the caller's thread, which owns the robot and the player. What a person wants comes from the keyboard
or, from any thread, through `Controls`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pi05_websocket.clock import SYSTEM_CLOCK, Clock
from pi05_websocket.keymap import KeyMap
from pi05_websocket.robot.causes import CauseName
from pi05_websocket.robot.controls import Controls, grant
from pi05_websocket.robot.interface import (
    Preflight,
    RequestPolicy,
    Robot,
    Teleoperator,
    check_joints,
)
from pi05_websocket.robot.pacer import Pacer
from pi05_websocket.robot.player import ActionPlayer, PlayerConfig
from pi05_websocket.robot.shadow import Shadow
from pi05_websocket.robot.ticks import RateMonitor, WallTicks
from pi05_websocket.robot.trace import Trace
from pi05_websocket.units import UnitMap

__all__ = ["RunSummary", "Runtime"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """How a run went."""

    ticks: int
    seconds: float
    held_by_cause: dict[CauseName, int]
    """Ticks without a row, by cause."""

    outages: int
    """How often no valid chunk came."""

    @property
    def held_ticks(self) -> int:
        """All ticks without a row."""
        return sum(self.held_by_cause.values())


class Runtime:
    """Drives a robot until it is told to stop.

    Args:
        robot: The arm; connecting and disconnecting it is the caller's.
        policy: Where to ask; closing it is the caller's.
        key_map: The robot's names and the policy's.
        config: What to do with chunks, pauses and limits; its `control_hz` is the loop's.
        task: What to do, in words.
        controls: What a person wants.
        keys: Returns keys that were pressed since the last call (`Keyboard.keys`).
        units: From the robot's units to the policy's; None: they are the same. `config`'s limits are in the
            policy's.
        clock: What paces the loop.
        trace: Where to write what happened.
        how_to_resume: What a person does to let a stopped arm move again, for the log.
        teleoperator: Who drives instead of the policy, which is only asked along (shadow mode).
        preflight: Looks at the first exchange before anything moves.
    """

    def __init__(
        self,
        robot: Robot,
        policy: RequestPolicy,
        key_map: KeyMap,
        config: PlayerConfig,
        *,
        task: str,
        controls: Controls | None = None,
        keys: Callable[[], str] | None = None,
        units: UnitMap | None = None,
        clock: Clock = SYSTEM_CLOCK,
        trace: Trace | None = None,
        how_to_resume: str = "",
        teleoperator: Teleoperator | None = None,
        preflight: Preflight | None = None,
    ) -> None:
        self._trace = Trace(None) if trace is None else trace
        self.controls = Controls() if controls is None else controls
        self.player = ActionPlayer(
            policy,
            config if teleoperator is None else replace(config, dry_run=True),
            trace=self._trace,
            clock=clock,
            how_to_resume=how_to_resume
            or ("press r" if keys is not None else "call controls.resume()"),
            preflight=preflight,
        )
        self._robot = robot
        self._key_map = key_map
        self._task = task
        self._teleoperator = teleoperator
        self.shadow = Shadow(key_map.joint_names)
        """What a person did beside what the policy would have done."""
        self._keys = keys
        self._units = units
        self._clock = clock
        self._hz = config.control_hz
        self._held: Counter[CauseName] = Counter()

    def __repr__(self) -> str:
        return f"<Runtime {self._task!r} {self.player!r}>"

    def run(self, duration_s: float | None = None) -> RunSummary:
        """Drive the robot; return how it went.

        Args:
            duration_s: Seconds to run; None: until `controls.quit`.

        Raises:
            ObservationError: An observation does not fit the key map.
            NoValidAction: With the fallback "raise", or when there is nothing to hold.
            Pi05WebsocketError: The server can never be used, and nothing has moved yet.
        """
        clock, ticks = self._clock, WallTicks(self._hz)
        pacer, rate = Pacer(self._hz, clock), RateMonitor(self._hz)
        began, count, running = clock.now(), 0, True
        self._held.clear()
        self._trace.write("task", task=self._task)
        self.player.start_episode()
        try:
            while running:
                now = clock.now()
                self._check_rate(rate.observe(now))
                self._tick(ticks.at(now))
                count += 1
                running = self._obey()
                if duration_s is not None and clock.now() - began >= duration_s:
                    running = False
                if running:
                    pacer.wait()
        finally:
            self._count_episode()
        return RunSummary(
            ticks=count,
            seconds=clock.now() - began,
            held_by_cause=dict(self._held),
            outages=self.player.outages,
        )

    def _tick(self, tick: int) -> None:
        player, key_map = self.player, self._key_map
        seen_s = self._clock.now()
        seen, units = self._robot.get_observation(), self._units
        check_joints(seen.joints, key_map.joint_names)
        joints = seen.joints if units is None else units.to_policy(seen.joints)
        player.collect(tick)
        player.ask(
            tick,
            lambda: key_map.observation(seen.images, joints, self._task),
            joints,
            seen_s=seen_s,
        )
        step = player.act(tick, joints)
        values, predicted = step.values, step.predicted
        if units is not None:
            values = units.to_robot(values)
            predicted = None if predicted is None else units.to_robot(predicted)
        if self._teleoperator is not None:
            values = np.asarray(self._teleoperator.get_action(), np.float32)
            self.shadow.add(values, predicted)
        self._robot.send_action(values)

    def _obey(self) -> bool:
        """Do what a person wants; say whether to go on."""
        if self._keys is not None:
            self.controls.press(self._keys())
        for wish in self.controls.take():
            if wish.name == "quit":
                return False
            if wish.name == "episode":
                self._count_episode()
            elif wish.name == "task":
                self._begin_task(wish.text)
            grant(wish, self.player)
        return True

    def _begin_task(self, task: str) -> None:
        logger.info("task: %r", task)
        self._task = task
        self._trace.write("task", task=task)

    def _count_episode(self) -> None:
        self._held.update(self.player.held_by_cause)
        self.player.end_episode()

    def _check_rate(self, observed: float | None) -> None:
        if observed is not None:
            logger.warning(
                "the loop runs at %.1f Hz, control_hz is %g: reading the robot takes too long",
                observed,
                self._hz,
            )
