# SPDX-License-Identifier: Apache-2.0
"""RUN, COAST, STOP: what an arm does while nothing valid is there, and how it goes on."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pi05_websocket.chunks.hold import HoldConfig, HoldState
from pi05_websocket.chunks.resume import ResumeConfig
from pi05_websocket.chunks.scheduler import SchedulerConfig
from pi05_websocket.chunks.seam import SeamConfig
from pi05_websocket.errors import ConfigError, ConnectionLost, PolicyChanged, PolicyError
from pi05_websocket.robot.limits import LimitsConfig
from pi05_websocket.robot.player import ActionPlayer, PlayerConfig
from pi05_websocket.robot.trace import Trace
from pi05_websocket.testing import FakeClock, ScriptedPolicy

HZ = 10.0
LOST = ConnectionLost("the cable is out")


class Loop:
    """An arm that is where it was commanded to be, on a virtual clock."""

    def __init__(self, **config: Any) -> None:
        self.clock = FakeClock()
        self.policy = ScriptedPolicy(self.clock)
        self.told: list[tuple[str, dict[str, Any]]] = []
        config.setdefault("scheduler", SchedulerConfig(max_age_ticks=100))
        config.setdefault("hold", HoldConfig(coast_ticks=5, auto_resume_ticks=30))
        trace = Trace(None, listeners=[lambda kind, facts: self.told.append((kind, facts))])
        self.player = ActionPlayer(
            self.policy,
            PlayerConfig(action_dim=1, control_hz=HZ, **config),
            clock=self.clock,
            trace=trace,
        )
        self.player.start_episode()
        self.pose = np.zeros(1, np.float32)
        self.tick = 0

    def step(self) -> float:
        """Run one tick; return what was commanded."""
        self.player.collect(self.tick)
        self.player.ask(self.tick, lambda: {"pose": float(self.pose[0])})
        self.pose = self.player.act(self.tick, self.pose).values
        self.tick += 1
        self.clock.sleep(1 / HZ)
        return float(self.pose[0])

    def steps(self, count: int) -> list[float]:
        """Run several ticks."""
        return [self.step() for _ in range(count)]

    def answer(self, first: float, count: int = 5) -> None:
        """Answer the newest request with a plan that counts up from `first`."""
        self.policy.exchanges[-1].answer([[first + i] for i in range(count)])

    def run_out(self) -> None:
        """Execute one chunk, 0 to 4, with the link down from then on."""
        self.step()
        self.answer(0)
        self.step()
        self.policy.down = LOST
        self.steps(4)


class TestCoast:
    def test_a_short_gap_goes_on_with_what_was_asked(self):
        """Up to coast_ticks the chunk that is under way still counts."""
        loop = Loop()
        loop.step()
        loop.answer(0)
        loop.steps(6)
        state = loop.player.state
        loop.answer(4)
        moved = loop.step()

        assert state is HoldState.COAST
        assert loop.player.state is HoldState.RUN
        assert moved > 4

    def test_each_held_tick_has_a_cause(self):
        """In the trace, and counted."""
        loop = Loop()
        loop.run_out()
        loop.steps(3)

        held = [facts["cause"] for kind, facts in loop.told if kind == "tick" and "cause" in facts]
        assert held == ["first_chunk"] + ["link_down"] * 3
        assert loop.player.held_by_cause == {"first_chunk": 1, "link_down": 3}


class TestStop:
    def test_what_was_asked_before_is_dropped(self):
        """Its observation is of another moment: only a plan from now may move the arm."""
        loop = Loop()
        loop.step()
        loop.answer(0)
        loop.steps(6)
        before = len(loop.policy.exchanges)
        loop.steps(6)
        old, fresh = loop.policy.exchanges[before - 1], loop.policy.exchanges[-1]
        old.answer([[90.0]])

        assert loop.player.state is HoldState.STOP
        assert fresh is not old
        assert loop.steps(3) == [4, 4, 4]

    def test_goes_on_by_itself_with_a_fresh_plan(self):
        """While the outage is shorter than auto_resume_ticks."""
        loop = Loop()
        loop.run_out()
        loop.steps(10)
        stopped = loop.player.state
        loop.policy.down = None
        loop.step()
        loop.answer(4)

        assert stopped is HoldState.STOP
        assert loop.steps(2) == [4, 5]
        assert loop.player.state is HoldState.RUN

    def test_a_plan_that_begins_elsewhere_is_approached(self, caplog):
        """Never a jump: at the plan's own speed, and said."""
        loop = Loop(resume=ResumeConfig(max_velocity=(1.5,)))
        loop.run_out()
        loop.steps(10)
        loop.policy.down = None
        loop.step()
        loop.answer(20, 30)
        way = loop.steps(3)

        assert way == [5.5, 7, 8.5]
        assert "the plan begins 16 away from where the arm is" in caplog.text
        assert "in about 11 ticks" in caplog.text

    def test_a_stalled_loop_goes_on_from_where_the_arm_is(self):
        """A few ticks: the plan goes on, approached from where somebody has pushed the arm."""
        loop = Loop(resume=ResumeConfig(max_velocity=(1.5,)))
        loop.step()
        loop.answer(0, 30)
        loop.steps(5)
        loop.pose = np.array([50.0], np.float32)
        loop.tick += 4

        assert loop.step() == 48.5

    @pytest.mark.parametrize("state", ["wait", "run", "coast", "stop", "latched"])
    @pytest.mark.parametrize("coast_ticks", [5, None])
    def test_after_an_absence_nothing_of_before_counts(
        self, state: str, coast_ticks: int | None, caplog
    ):
        """Nobody asked for commands for four seconds, a person drove: held where the arm is now, in any state.

        Not the last command, not a chunk that was under way; and what is latched stays so.
        """
        hold = HoldConfig(coast_ticks=coast_ticks, auto_resume_ticks=100)
        loop = Loop(hold=hold, resume=ResumeConfig(max_velocity=(1.5,)))
        loop.step()
        if state != "wait":
            loop.answer(0, 30 if state == "run" else 5)
            loop.steps(7 if state == "coast" else 5)
        if state == "stop":
            loop.steps(12)
        if state == "latched":
            loop.player.stop()
            loop.step()
        loop.pose = np.array([90.0], np.float32)
        loop.tick += 40
        late = loop.policy.exchanges[-1]
        if not late.done():
            late.answer([[5.0 + i] for i in range(30)])

        assert loop.steps(2) == [90, 90]
        assert "nobody asked for 4.1 s" in caplog.text
        assert loop.player.latched == (state == "latched")
        if state != "latched":
            loop.answer(80, 30)
            assert loop.steps(2) == [88.5, 87]

    def test_after_a_resume_the_arm_is_held_where_it_is(self):
        """A person let it go on after having moved it; limits do not pull it back to the old command either."""
        limits = LimitsConfig(max_velocity=(10.0,), max_step=(5.0,))
        loop = Loop(limits=limits)
        loop.step()
        loop.answer(0, 5)
        loop.steps(4)
        loop.player.stop()
        loop.step()
        loop.pose = np.array([60.0], np.float32)
        loop.player.resume()

        assert loop.step() == 60
        loop.answer(60, 20)
        assert loop.steps(2) == [60, 61]

    def test_a_seam_goes_on_from_what_was_really_commanded(self):
        """On the way to the plan the next chunk is joined to the command, not to the plan."""
        scheduler = SchedulerConfig(max_age_ticks=100, seam=SeamConfig(kind="blend"))
        loop = Loop(scheduler=scheduler, resume=ResumeConfig(max_velocity=(1.0,)))
        loop.step()
        loop.answer(30, 10)
        commands = loop.steps(3)
        loop.player.change_task()
        loop.step()
        loop.answer(-30, 30)
        commands += loop.steps(20)

        assert np.abs(np.diff([0.0, *commands[:3]])).max() <= 1.0 + 1e-6


class TestLatched:
    def test_nothing_moves_the_arm_until_a_person_says_so(self, caplog):
        """Not the link, not a chunk; nothing is even asked for."""
        loop = Loop()
        loop.run_out()
        loop.steps(31)
        loop.policy.down = None
        asked = len(loop.policy.exchanges)
        held = loop.steps(50)

        assert loop.player.latched
        assert held == [4] * 50
        assert len(loop.policy.exchanges) == asked
        assert loop.player.held_by_cause["stopped"] >= 50
        assert "call resume()" in caplog.text

    def test_a_person_resumes(self, caplog):
        """With a fresh observation, from where the arm is."""
        caplog.set_level(logging.INFO)
        loop = Loop()
        loop.run_out()
        loop.steps(31)
        loop.policy.down = None
        resumed = loop.player.resume()
        loop.step()
        loop.answer(4)

        assert resumed
        assert not loop.player.resume()
        assert loop.steps(2) == [4, 5]
        assert "resumed" in caplog.text

    def test_a_new_episode_resumes_too(self):
        """Whoever resets an episode is there."""
        loop = Loop()
        loop.run_out()
        loop.steps(31)
        loop.policy.down = None
        loop.player.start_episode()
        loop.step()
        loop.answer(4)

        assert loop.step() == 4

    def test_never_latches_where_chosen(self):
        """auto_resume_ticks=None, as for simulators."""
        loop = Loop(hold=HoldConfig(coast_ticks=None, auto_resume_ticks=None))
        loop.run_out()
        loop.steps(300)

        assert loop.player.state is HoldState.COAST


def test_the_episode_ends_with_a_summary(caplog):
    """How many ticks were held, and why."""
    caplog.set_level(logging.INFO)
    loop = Loop()
    loop.run_out()
    loop.steps(3)
    loop.player.end_episode()

    assert "held 4 of 9 ticks: first_chunk 1, link_down 3" in caplog.text
    assert ("summary", {"ticks": 9, "held": {"first_chunk": 1, "link_down": 3}}) in loop.told


def test_limits_need_the_right_width():
    """Six limits for a robot of one joint are a mistake, before anything moves."""
    with pytest.raises(ConfigError, match="high has 6 values"):
        Loop(limits=LimitsConfig(high=(1.0,) * 6))


def test_limits_are_said_once(caplog):
    """A policy that wants too much is told of once, not at every tick."""
    loop = Loop(limits=LimitsConfig(high=(2.5,)))
    loop.step()
    loop.answer(0, 10)
    commands = loop.steps(8)

    assert max(commands) == 2.5
    assert caplog.text.count("joint_limits") == 1


EVENTS = st.lists(
    st.sampled_from(
        ["tick", "tick", "tick", "answer", "late", "far", "fail", "down", "up", "resume"]
    ),
    max_size=120,
)


@settings(max_examples=200, deadline=None)
@given(events=EVENTS)
def test_whatever_happens_the_arm_never_jumps(events: list[str]):
    """No command is further from the last than the bound, none comes while latched, none from before a STOP."""
    bound = 2.0
    loop = Loop(
        resume=ResumeConfig(max_jump=(bound,), max_velocity=(bound,)),
        scheduler=SchedulerConfig(max_age_ticks=100, seam=SeamConfig(kind="blend")),
        limits=LimitsConfig(max_velocity=(bound * HZ,)),
    )
    last, asked_before_stop = 0.0, 0
    for event in events:
        under_way = [exchange for exchange in loop.policy.exchanges if not exchange.done()]
        if event == "tick":
            latched, stopped = loop.player.latched, loop.player.state is HoldState.STOP
            value = loop.step()
            executed = [facts for kind, facts in loop.told if kind == "tick"][-1]["seq"]
            assert abs(value - last) <= bound + 1e-4
            assert not latched or value == last
            assert executed < 0 or executed >= asked_before_stop
            last = value
            if loop.player.state is HoldState.STOP and not stopped:
                asked_before_stop = len(loop.policy.exchanges)
        elif event in ("answer", "far") and under_way:
            first = last if event == "answer" else last + 50
            under_way[-1].answer([[first + i] for i in range(6)])
        elif event == "late" and under_way:
            under_way[0].answer([[last - 40]] * 6)
        elif event == "fail" and under_way:
            under_way[-1].fail(PolicyError("no"))
        elif event == "down":
            loop.policy.down = LOST
        elif event == "up":
            loop.policy.down = None
        elif event == "resume":
            loop.player.resume()


class Replaced(ScriptedPolicy):
    """Another policy is there, and yet another by the time that one is to be accepted."""

    def accept(self, told: PolicyChanged, /) -> bool:
        """Say that it is not the one that was told of."""
        return False


def test_a_policy_that_is_not_the_one_that_was_told_of_does_not_let_the_arm_go(caplog):
    """The stop stays: a person has to be told of the new one first."""
    loop = Loop()
    loop.step()
    loop.answer(0)
    loop.step()
    loop.policy.__class__ = Replaced
    loop.policy.down = PolicyChanged("b serves another policy.", expected="1", got="2")
    loop.player.stop()
    loop.step()
    assert "b serves another policy" in caplog.text
    assert not loop.player.resume()
    assert loop.player.latched
