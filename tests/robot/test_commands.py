# SPDX-License-Identifier: Apache-2.0
"""What is commanded at each tick: rows begun gently, within limits, and what stands in for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pi05_websocket.chunks.hold import HoldConfig, HoldState
from pi05_websocket.chunks.resume import ResumeConfig
from pi05_websocket.data import Action
from pi05_websocket.errors import NoValidAction
from pi05_websocket.robot.causes import Cause
from pi05_websocket.robot.commands import Commands, Step
from pi05_websocket.robot.limits import LimitsConfig

PLAN = np.linspace([0, 0], [30, 60], 31).astype(np.float32)
"""Thirty ticks of one and two units."""
DOWN = Cause("link_down", "link down for 1.0 s: the cable is out")


class Arm:
    """A stage and the ticks it is asked for."""

    def __init__(self, **settings: Any) -> None:
        facts: dict[str, Any] = {
            "fallback": "hold",
            "hold": HoldConfig(),
            "resume": ResumeConfig(),
            "limits": LimitsConfig(),
            "action_kind": "absolute",
            "control_hz": 30.0,
            "stall_ticks": 4,
        }
        self.commands = Commands(**{**facts, **settings})
        self.tick = -1

    def row(
        self,
        row: int,
        measured: list[float] | None = None,
        seq: int = 0,
        plan: np.ndarray = PLAN,
    ) -> Step:
        """Execute a row of a plan."""
        self.tick += 1
        action = Action(values=plan[row], tick=self.tick, seq=seq, row=row)
        pose = None if measured is None else np.array(measured, np.float32)
        return self.commands.execute(action, plan, self.tick, pose)

    def none(self, measured: list[float] | None = None, ticks: int = 1) -> Step:
        """Have no row for some ticks; return the last step."""
        pose = None if measured is None else np.array(measured, np.float32)
        for _ in range(ticks):
            self.tick += 1
            self.commands.machine.starved(self.tick)
            step = self.commands.fall_back(self.tick, pose, 2, DOWN)
        return step


class TestHold:
    def test_the_last_commanded_target_is_held(self):
        """An arm hangs below its target; holding the measured pose would let it sink."""
        arm = Arm()
        arm.row(3, [3, 6])

        step = arm.none([1, 2], ticks=5)

        assert step.values.tolist() == [3, 6]
        assert (step.source, step.cause, step.state) == ("hold", "link_down", HoldState.COAST)

    def test_the_measured_pose_of_the_first_tick_is_held_where_chosen(self):
        """It is measured once: measured at every tick the arm would sink a little each time."""
        arm = Arm(hold=HoldConfig(pose="measured"))
        arm.row(3, [3, 6])
        first = arm.none([2, 5])
        later = arm.none([1, 4])

        assert first.values.tolist() == later.values.tolist() == [2, 5]

    def test_each_pause_measures_anew(self):
        """A pose held in an earlier pause is not the pose of this one."""
        arm = Arm(hold=HoldConfig(pose="measured"))
        arm.row(3, [3, 6])
        arm.none([2, 5])
        arm.row(4, [2, 5])

        assert arm.none([7, 7]).values.tolist() == [7, 7]

    def test_speeds_ramp_to_zero(self):
        """In four ticks, the gripper stays."""
        arm = Arm(action_kind="velocity")
        arm.row(4)
        ramp = [arm.none().values.tolist() for _ in range(5)]

        assert ramp == [[3, 8], [2, 8], [1, 8], [0, 8], [0, 8]]

    def test_zeros_only_where_chosen_and_within_the_limits(self):
        """Zeros are a motion: it may be slow."""
        arm = Arm(fallback="zero", limits=LimitsConfig(max_velocity=(30.0,)))
        arm.row(0, [0, 0])
        arm.row(1, [0, 0])
        arm.row(2, [0, 0])
        step = arm.none()

        assert step.source == "zero"
        assert step.values.tolist() == [1, 1]
        assert step.limited == ("max_velocity",)
        assert arm.commands.zeroed_at == 3


class TestBegin:
    def test_a_plan_that_begins_elsewhere_is_approached(self):
        """The first command is near the arm, not at the plan."""
        arm = Arm()
        first = arm.row(0, [15, 0])

        assert first.limited == ("resume",)
        assert first.values.tolist() == pytest.approx([13.9, 0])
        assert arm.commands.jump == 15

    def test_the_way_ends_where_the_plan_is(self):
        """From there on the rows are executed as they are."""
        arm = Arm()
        steps = [arm.row(row, [15, 0]) for row in range(31)]

        commands = np.array([[15, 0], *[s.values.tolist() for s in steps]])
        assert np.abs(np.diff(commands, axis=0)).max() <= 2.2 + 1e-5
        assert steps[-1].limited == ()
        assert steps[-1].values.tolist() == PLAN[30].tolist()

    def test_after_a_pause_from_where_the_arm_was_pushed_to(self):
        """Not back to the target it had."""
        arm = Arm()
        arm.row(0, [0, 0])
        arm.none([0, 0], ticks=3)

        step = arm.row(1, [20, 2])

        assert step.values[0] == pytest.approx(18.9)

    def test_the_next_chunk_may_move_what_the_first_one_kept(self):
        """On the way to a plan the bound is that of the chunk that runs: no joint is left behind."""
        arm = Arm()
        keeps = np.array([[10.0 + i, 0.0] for i in range(10)], np.float32)
        moves = np.array([[20.0 + i, 1.0 * i] for i in range(10)], np.float32)
        arm.row(0, [0.0, 0.0], plan=keeps)
        commands = [arm.row(i, seq=2, plan=moves).values[1] for i in range(10)]

        assert commands[-1] == pytest.approx(9.0)
        assert np.diff(commands).max() <= 1.1 + 1e-6

    def test_running_chunks_are_not_approached(self):
        """A seam is the scheduler's; only a pause is a beginning."""
        arm = Arm()
        arm.row(0, [0, 0])

        assert arm.row(20, [0, 0]).values.tolist() == PLAN[20].tolist()

    def test_a_pause_during_the_way_ends_it(self):
        """What is held is where the arm was led to, and the next motion begins there."""
        arm = Arm()
        arm.row(0, [15, 0])

        held = arm.none([15, 0])
        again = arm.row(0, [13.9, 0])

        assert held.values[0] == pytest.approx(13.9)
        assert again.values[0] == pytest.approx(12.8)

    def test_deltas_begin_as_they_are(self):
        """There is no pose in a difference."""
        arm = Arm(action_kind="delta")

        assert arm.row(5, [15, 0]).values.tolist() == PLAN[5].tolist()

    def test_one_wild_row_does_not_make_a_jump_a_usual_step(self):
        """A plan that is wrong is what the gentle beginning is for."""
        arm = Arm()
        wild = np.zeros((20, 2), np.float32)
        wild[:2, 0] = 80.0

        assert arm.row(0, [0.0, 0.0], plan=wild).values[0] == pytest.approx(80 / 30)


class TestOwnership:
    def test_a_driver_may_write_into_what_it_is_given(self):
        """Degrees to radians in place, for example: what is held stays what was commanded."""
        arm = Arm()
        first = arm.row(3, [3, 6])
        np.multiply(first.values, 0.5, out=first.values)
        held = arm.none([3, 6])
        np.multiply(held.values, 0.5, out=held.values)

        assert arm.none([3, 6]).values.tolist() == PLAN[3].tolist()
        assert PLAN[3].tolist() == [3.0, 6.0]

    def test_a_driver_may_reuse_its_buffer(self):
        """The held pose is the one of the first tick without a row, not the buffer's present one."""
        arm = Arm(hold=HoldConfig(pose="measured"))
        arm.row(3, [3, 6])
        buffer = np.array([2.0, 5.0], np.float32)
        for _ in range(3):
            arm.tick += 1
            arm.commands.machine.starved(arm.tick)
            step = arm.commands.fall_back(arm.tick, buffer, 2, DOWN)
            buffer -= 1

        assert step.values.tolist() == [2, 5]


class TestPerson:
    @pytest.mark.parametrize("fallback", ["zero", "raise"])
    def test_a_stopped_arm_holds_whatever_the_fallback(self, fallback: str):
        """STOP is no motion to the middle of every range, and no end of the run."""
        arm = Arm(fallback=fallback)
        arm.row(3, [3, 6])
        arm.commands.machine.stop(arm.tick)

        step = arm.none([3, 6])

        assert step.values.tolist() == [3, 6]
        assert step.source == "hold"


class TestLimits:
    def test_limits_need_to_know_where_the_arm_is(self):
        """Before the first command there is nothing else to compare with."""
        arm = Arm(limits=LimitsConfig(max_step=(1.0,)))

        with pytest.raises(NoValidAction, match="never measured"):
            arm.row(0, None)
        assert arm.row(0, [0, 0]).values.tolist() == [0, 0]

    def test_time_without_commands_allows_no_larger_step(self):
        """A servo makes a step at once, however long ago the last one was."""
        arm = Arm(limits=LimitsConfig(max_velocity=(30.0,)))
        arm.row(0, [0, 0])
        arm.tick += 60

        assert arm.row(19, [0, 0]).values[0] <= 1.0

    def test_the_last_word_is_the_limits(self):
        """They apply to rows on their way too."""
        arm = Arm(limits=LimitsConfig(max_velocity=(15.0,)))
        first = arm.row(0, [15, 0])

        assert first.values[0] == pytest.approx(14.5)
        assert first.limited == ("resume", "max_velocity")

    def test_no_number_never_passes(self):
        """A chunk is checked when it arrives; this is the last look."""
        arm = Arm()
        action = Action(values=np.array([np.nan, 0], np.float32), tick=0, seq=0, row=0)

        with pytest.raises(AssertionError, match="no number"):
            arm.commands.execute(action, PLAN, 0, None)


def test_a_new_episode_begins_at_the_measured_pose():
    """What was commanded before it does not count."""
    arm = Arm()
    arm.row(10, [10, 20])
    arm.commands.start_episode()

    assert arm.none([5, 5]).values.tolist() == [5, 5]
    assert "WAIT" in repr(arm.commands)
