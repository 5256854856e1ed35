# SPDX-License-Identifier: Apache-2.0
"""Nothing moves before a person has looked, and then as slowly as was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pi05_websocket.chunks.hold import HoldState
from pi05_websocket.errors import ConfigError, NoValidAction
from pi05_websocket.robot.dry_run import compare
from pi05_websocket.robot.player import ActionPlayer, PlayerConfig
from pi05_websocket.robot.trace import Trace
from pi05_websocket.testing import FakeClock, ScriptedPolicy
from pi05_websocket.wire.realtime import RealtimeSupport, announcement

HZ = 10.0
HERE = np.array([5.0, 50.0], np.float32)
PLAN = [[5.0 + i, 50.0] for i in range(1, 11)]


class Arm:
    """A player whose requests are answered at the next tick, and an arm that sags a little."""

    def __init__(self, **config: Any) -> None:
        self.clock = FakeClock()
        self.policy = ScriptedPolicy(self.clock)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.player = ActionPlayer(
            self.policy,
            PlayerConfig(control_hz=HZ, joint_names=("pan", "gripper"), **config),
            clock=self.clock,
            trace=Trace(None, listeners=[lambda kind, facts: self.told.append((kind, facts))]),
            how_to_resume="press r",
        )
        self.player.start_episode()
        self.pose: np.ndarray | None = HERE
        self.tick = 0

    def step(self) -> Any:
        """Run a tick."""
        for exchange in self.policy.exchanges:
            if not exchange.done():
                exchange.answer(PLAN)
        self.player.collect(self.tick)
        self.player.ask(self.tick, dict, self.pose)
        step = self.player.act(self.tick, self.pose)
        self.tick += 1
        self.clock.sleep(1 / HZ)
        return step


def test_a_dry_run_keeps_the_first_pose(caplog: pytest.LogCaptureFixture):
    """Not the one that is measured now: an arm that sags would go down by and by."""
    arm = Arm(dry_run=True)
    with caplog.at_level("INFO"):
        steps = [arm.step() for _ in range(3)]
        arm.pose = HERE - 1
        steps += [arm.step() for _ in range(28)]

    assert {step.source for step in steps} == {"dry_run"}
    assert {tuple(step.values) for step in steps} == {tuple(HERE)}
    assert steps[0].predicted is None
    assert steps[1].predicted.tolist() == [6, 50]
    assert "DRY RUN, nothing moves. The policy's next 10 rows:" in caplog.text
    assert 1 <= caplog.text.count("DRY RUN") <= 3  # every two seconds
    assert next(facts["far"] for kind, facts in arm.told if kind == "plan") == []
    ticks = [facts for kind, facts in arm.told if kind == "tick"]
    assert ticks[1]["predicted"] == [6, 50]
    assert not arm.player.resume(), "a dry run is one to its end"


def test_the_first_motion_waits_for_a_person(caplog: pytest.LogCaptureFixture):
    """Until then it is a dry run; from then on a new episode, from a fresh observation."""
    arm = Arm(confirm=True)
    with caplog.at_level("INFO"):
        before = [arm.step() for _ in range(8)]
        assert arm.player.resume()
        asked = len(arm.policy.exchanges)
        after = [arm.step() for _ in range(4)]

    assert {tuple(step.values) for step in before} == {tuple(HERE)}
    assert "nothing moves until you let it: press r" in caplog.text
    assert len(arm.policy.exchanges) > asked
    assert [step.source for step in after] == ["hold", "chunk", "chunk", "chunk"]
    assert [step.values[0] for step in after[1:]] == [6, 7, 8]
    assert ("confirmed", {}) in arm.told
    assert repr(arm.player.rehearsal) == "<Rehearsal over>"
    assert not arm.player.resume()


def test_a_dry_run_needs_a_pose():
    """Without one there is nothing to keep, and nothing is made up."""
    arm = Arm(dry_run=True)
    arm.pose = None

    with pytest.raises(NoValidAction, match="no pose to hold"):
        arm.step()


@pytest.mark.parametrize("observed", [None, np.zeros(3, np.float32)])
def test_without_a_comparable_pose_the_plan_alone_is_shown(observed: Any, caplog):
    """Its largest values, joint by joint."""
    arm = Arm(dry_run=True, action_kind="velocity")
    arm.pose = observed
    with caplog.at_level("INFO"):
        for _ in range(3):
            try:
                arm.step()
            except NoValidAction:
                arm.tick += 1

    assert "Largest values of 10 rows: 15, 50" in caplog.text


def test_a_dry_run_sends_no_leftover():
    """The rows were not executed: a server must not continue them."""
    arm = Arm(dry_run=True, use_rtc=True)
    arm.policy.metadata = announcement(RealtimeSupport())
    for _ in range(30):
        arm.step()

    assert len(arm.policy.exchanges) > 1
    assert all("_rt" not in exchange.observation for exchange in arm.policy.exchanges)


def test_slower_is_the_same_way_in_more_ticks():
    """At half the speed twice as many rows, from the pose that was observed."""
    arm = Arm(speed_scale=0.5)
    commands = [arm.step().values[0] for _ in range(6)]

    assert commands == [5, 5.5, 6, 6.5, 7, 7.5]
    assert arm.player.state is HoldState.RUN


@pytest.mark.parametrize("speed", [0.0, 1.5])
def test_impossible_speeds_are_refused(speed: float):
    """When the settings are made."""
    with pytest.raises(ConfigError, match="speed_scale"):
        PlayerConfig(speed_scale=speed)


def test_a_plan_that_begins_elsewhere_is_marked():
    """Radians taken for degrees, a sign, an order: the first row is far from where the arm is."""
    rows = np.array([[50.0, 1.0], [51.0, 1.0], [52.0, 1.1]], np.float32)
    pose = np.array([-50.0, 0.9], np.float32)

    found = compare(rows, pose, ["pan", "lift"])

    assert found.far == ("pan",)
    assert found.first.tolist() == pytest.approx([100, 0.1])
    assert found.farthest.tolist() == pytest.approx([102, 0.2])
    assert found.table().splitlines()[1].split() == [
        *("pan", "-50.00", "+100.00", "+102.00", "1.00"),
        *("<-", "far:", "units,", "sign,", "order?"),
    ]
    assert compare(rows, pose).names == ("joint 0", "joint 1")
