# SPDX-License-Identifier: Apache-2.0
"""The control loop without LeRobot, on a virtual clock: an arm that obeys, a policy that is scripted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pi05_websocket.chunks.hold import HoldConfig
from pi05_websocket.errors import ConfigError, ConnectionLost
from pi05_websocket.keymap import KeyMap, StatePart
from pi05_websocket.robot.interface import RobotReading
from pi05_websocket.robot.pacer import Pacer
from pi05_websocket.robot.player import PlayerConfig
from pi05_websocket.robot.runtime import Runtime
from pi05_websocket.testing import FakeClock, ScriptedPolicy
from pi05_websocket.units import UnitMap, unit_map

HZ = 10.0
KEY_MAP = KeyMap(name="test", cameras={}, state=(StatePart(policy_key="state", size=1),))


class FakeRobot:
    """A joint that is where it was told to be; `at` runs something at a tick."""

    def __init__(self, at: Callable[[int], None] = lambda tick: None) -> None:
        self.commands: list[float] = []
        self._at = at

    def get_observation(self) -> RobotReading:
        """Return the pose."""
        self._at(len(self.commands))
        last = self.commands[-1] if self.commands else 0.0
        return RobotReading({}, np.array([last], np.float32))

    def send_action(self, values: np.ndarray) -> None:
        """Go there."""
        self.commands.append(float(values[0]))


class Scene:
    """A runtime whose policy answers every request at the next tick with a plan of ten rows."""

    def __init__(
        self,
        *,
        at: Callable[[Scene, int], None] = lambda scene, tick: None,
        units: UnitMap | None = None,
        teleoperator: Any = None,
        **config: Any,
    ):
        self.clock = FakeClock()
        self.policy = ScriptedPolicy(self.clock)
        self.robot = FakeRobot(lambda tick: self._before(tick))
        self.answers = True
        self.keys = ""
        self._at = at
        self.runtime = Runtime(
            self.robot,
            self.policy,
            KEY_MAP,
            PlayerConfig(control_hz=HZ, action_dim=1, **config),
            task="pick",
            keys=self._take_keys,
            units=units,
            teleoperator=teleoperator,
            clock=self.clock,
        )

    def _before(self, tick: int) -> None:
        self._at(self, tick)
        for exchange in self.policy.exchanges:
            if self.answers and not exchange.done():
                first = float(exchange.observation["state"][0])
                exchange.answer([[first + i] for i in range(10)])

    def _take_keys(self) -> str:
        keys, self.keys = self.keys, ""
        return keys


def test_runs_at_its_rate_and_tells_how_it_went():
    """One command for every tick, none held but the first."""
    scene = Scene()
    summary = scene.runtime.run(3.0)

    assert summary.ticks == 31
    assert summary.seconds == pytest.approx(3.0)
    assert summary.held_by_cause == {"first_chunk": 1}
    assert summary.held_ticks == 1
    assert scene.robot.commands[-1] > 20


def test_robot_and_policy_may_count_differently():
    """The policy goes on by a radian a row from what it sees; the robot is commanded in degrees."""
    scene = Scene(units=unit_map(["joint"], robot="degrees", policy="radians"))

    scene.runtime.run(0.5)

    assert scene.robot.commands[1:] == pytest.approx([0, *np.degrees([1, 2, 3, 4])], abs=1e-3)
    assert scene.policy.exchanges[0].observation["state"] == pytest.approx([0.0])


class Leader:
    """A person who turns a joint by three a tick."""

    def __init__(self) -> None:
        self.at = 0.0

    def get_action(self) -> np.ndarray:
        """Return the next target."""
        self.at += 3.0
        return np.array([self.at], np.float32)


def test_in_shadow_mode_a_person_drives():
    """The policy is asked along from where the person has brought the arm; both are compared."""
    scene = Scene(teleoperator=Leader())

    scene.runtime.run(5.0)

    commands = scene.robot.commands
    assert commands == [3.0 * (i + 1) for i in range(len(commands))]
    assert scene.policy.exchanges[2].observation["state"][0] > 10
    (joint,) = scene.runtime.shadow.joints()
    assert joint.agreement is not None
    assert joint.agreement > 0.9
    assert joint.hint == ""


def test_q_quits():
    """Between two ticks."""

    def press(scene: Scene, tick: int) -> None:
        scene.keys = "q" if tick == 5 else ""

    assert Scene(at=press).runtime.run().ticks == 6


def test_p_holds_and_r_goes_on():
    """The arm stands still in between, and begins where it stands."""

    def press(scene: Scene, tick: int) -> None:
        scene.keys = {5: "p", 15: "x", 20: "r"}.get(tick, "")

    scene = Scene(at=press)
    scene.runtime.run(4.0)
    commands = scene.robot.commands

    assert len(set(commands[6:21])) == 1
    assert commands[-1] > commands[20]
    assert np.abs(np.diff(commands)).max() <= 1.2


def test_r_ends_a_stop_after_a_long_outage(caplog):
    """The log says which key."""

    def cut(scene: Scene, tick: int) -> None:
        scene.policy.down = ConnectionLost("cut") if 5 <= tick < 40 else None
        scene.answers = tick < 5 or tick >= 40
        scene.keys = "r" if tick == 50 else ""

    scene = Scene(at=cut, hold=HoldConfig(coast_ticks=5, auto_resume_ticks=20))
    summary = scene.runtime.run(7.0)

    assert "press r" in caplog.text
    assert len(set(scene.robot.commands[20:50])) == 1
    assert scene.robot.commands[-1] > scene.robot.commands[50]
    assert summary.held_by_cause["link_down"] > 0
    assert summary.held_by_cause["stopped"] > 0


def test_n_begins_a_new_episode_and_a_new_task_is_asked_for():
    """Both from any thread, through `controls`."""

    def press(scene: Scene, tick: int) -> None:
        scene.keys = "n" if tick == 5 else ""
        if tick == 10:
            scene.runtime.controls.change_task("put it down")
        if tick == 20:
            scene.runtime.controls.pause()
            scene.runtime.controls.resume()
            scene.runtime.controls.new_episode()

    scene = Scene(at=press)
    summary = scene.runtime.run(3.0)

    assert scene.runtime.player.scheduler.episode >= 3
    assert scene.policy.exchanges[-1].observation["prompt"] == "put it down"
    assert summary.held_by_cause["first_chunk"] >= 2
    assert "pick" not in repr(scene.runtime)


def test_a_loop_that_is_too_slow_is_told_of(caplog):
    """Reading the robot takes longer than a period."""
    scene = Scene(at=lambda scene, tick: scene.clock.sleep(0.2))
    scene.runtime.run(30.0)

    assert "the loop runs at 5.0 Hz" in caplog.text


def test_pacer_keeps_the_rate_whatever_a_turn_takes():
    """A slow turn borrows from the next ones, up to a second."""
    clock = FakeClock()
    pacer = Pacer(10.0, clock)
    for _ in range(10):
        clock.sleep(0.02)
        pacer.wait()
    even = clock.now()
    clock.sleep(0.25)
    for _ in range(10):
        pacer.wait()
    caught_up = clock.now()
    clock.sleep(30.0)
    for _ in range(11):
        pacer.wait()

    assert even == pytest.approx(1.0)
    assert caught_up == pytest.approx(2.0)
    assert clock.now() == pytest.approx(32.0)
    assert repr(pacer) == "<Pacer 10 Hz>"


def test_pacer_needs_a_rate():
    """Zero hertz is a mistake."""
    with pytest.raises(ConfigError):
        Pacer(0.0, FakeClock())
