# SPDX-License-Identifier: Apache-2.0
"""One valid action for every tick, whatever the policy does."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pi05_websocket.chunks.resume import ResumeConfig
from pi05_websocket.chunks.scheduler import SchedulerConfig
from pi05_websocket.errors import (
    AccessRefused,
    ConnectFailed,
    ConnectionLost,
    EncodeError,
    NoValidAction,
    PolicyError,
)
from pi05_websocket.robot.player import ActionPlayer, PlayerConfig
from pi05_websocket.robot.trace import Trace
from pi05_websocket.testing import FakeClock, ScriptedPolicy

HZ = 30.0
MEASURED = np.array([10.0, 20.0], np.float32)
ANYWHERE = ResumeConfig(max_jump=(1e9,))
"""Motion may begin wherever a plan does: how it is bounded is tested in test_commands."""


class Loop:
    """A control loop on a virtual clock around one player."""

    def __init__(self, *, trace: Trace | None = None, **config: Any) -> None:
        self.clock = FakeClock()
        self.policy = ScriptedPolicy(self.clock)
        scheduler = config.pop("scheduler", SchedulerConfig(max_age_ticks=150))
        config.setdefault("resume", ANYWHERE)
        player = PlayerConfig(scheduler=scheduler, **config)
        self.player = ActionPlayer(self.policy, player, clock=self.clock, trace=trace)
        self.player.start_episode()
        self.tick = 0
        self.observed = 0

    def observe(self) -> dict[str, Any]:
        """Make an observation, and count that one was made."""
        self.observed += 1
        return {"observation/state": MEASURED}

    def step(self, measured: np.ndarray | None = MEASURED) -> tuple[str, list[float]]:
        """Run one tick; return where the command came from and what it was."""
        self.player.collect(self.tick)
        self.player.ask(self.tick, self.observe)
        step = self.player.act(self.tick, measured)
        self.tick += 1
        self.clock.sleep(1 / HZ)
        return step.source, step.values.tolist()

    def steps(self, count: int) -> list[tuple[str, list[float]]]:
        """Run several ticks."""
        return [self.step() for _ in range(count)]


def rows(first: float, count: int = 10) -> list[list[float]]:
    """Return a chunk that counts up from `first`."""
    return [[first + i, first + i] for i in range(count)]


class TestGoodDays:
    def test_holds_the_measured_pose_until_the_first_chunk(self):
        """Nothing moves before the policy has spoken; then its first row is commanded."""
        loop = Loop()
        waiting = loop.steps(3)
        loop.policy.exchanges[0].answer(rows(0))

        assert waiting == [("hold", [10, 20])] * 3
        assert loop.step() == ("chunk", [0, 0])

    def test_asks_early_and_changes_over_without_a_hold(self):
        """With an answer after four ticks the arm never stands still once it moves."""
        loop = Loop(scheduler=SchedulerConfig(action_horizon=10, max_age_ticks=150))
        sources = []
        sent_at: dict[int, int] = {}
        for _ in range(90):
            for number, exchange in enumerate(loop.policy.exchanges):
                sent_at.setdefault(number, loop.tick)
                if not exchange.done() and loop.tick - sent_at[number] >= 3:
                    exchange.answer(rows(100 * number, 30))
            sources.append(loop.step()[0])

        assert sources[:4] == ["hold"] * 4
        assert set(sources[4:]) == {"chunk"}
        assert loop.player.outages == 0

    def test_observes_only_when_it_asks(self):
        """Resizing images costs milliseconds; a tick without a request does not pay them."""
        loop = Loop()
        loop.step()
        loop.policy.exchanges[0].answer(rows(0, 30))
        loop.steps(20)

        assert loop.observed == len(loop.policy.exchanges) == 1

    def test_new_episode_forgets_chunk_request_and_target(self):
        """After a reset the measured pose is held until the new episode's first chunk."""
        loop = Loop()
        loop.step()
        loop.policy.exchanges[0].answer(rows(0))
        loop.steps(2)

        loop.player.start_episode()

        assert loop.step() == ("hold", [10, 20])
        assert loop.player.waiting

    def test_answer_from_before_the_reset_is_never_executed(self):
        """Not even when it arrives after it."""
        loop = Loop()
        loop.step()
        loop.player.start_episode()
        loop.step()
        loop.policy.exchanges[0].answer(rows(500))

        assert loop.steps(3) == [("hold", [10, 20])] * 3

    def test_changed_task_takes_over_at_once(self):
        """The old plan goes on only until the answer to the new task is here."""
        loop = Loop()
        loop.step()
        loop.policy.exchanges[0].answer(rows(0, 30))
        loop.steps(3)

        loop.player.change_task()
        between = loop.step()
        loop.policy.exchanges[1].answer(rows(900, 30))

        assert between == ("chunk", [3, 3])
        assert loop.step() == ("chunk", [901, 901])

    def test_exchange_is_recorded(self):
        """Round trip, delay and sizes of the last exchange can be asked for."""
        loop = Loop()
        loop.steps(3)
        loop.policy.exchanges[0].answer(rows(0))
        loop.step()

        record = loop.player.last_exchange
        assert record is not None
        assert (record.seq, record.tick, record.delay_ticks) == (0, 0, 3)
        assert record.round_trip_ms == pytest.approx(100)


class TestBadDays:
    @pytest.mark.parametrize(
        "answer",
        [
            np.full((10, 2), np.nan),
            np.full((10, 2), np.inf),
            np.zeros((10, 3)),  # the robot has two joints
            np.zeros(2),
            np.zeros((1, 10, 2)),
            np.zeros((0, 2)),
            np.array([["a", "b"]]),
            "zeros",
            None,
        ],
    )
    def test_invalid_answers_never_reach_the_arm(self, answer: Any):
        """Wrong rank, wrong width, NaN, infinite, empty, no numbers: held, and asked again."""
        loop = Loop(action_dim=2)
        loop.step()
        loop.policy.exchanges[0].answer(answer)

        assert loop.steps(10) == [("hold", [10, 20])] * 10
        assert loop.player.outages == 1
        assert len(loop.policy.exchanges) >= 2

    def test_width_is_learnt_from_the_first_chunk(self):
        """A server that changes its width in mid-run is refused."""
        loop = Loop()
        loop.step()
        loop.policy.exchanges[0].answer(rows(0, 4))
        loop.steps(4)
        loop.policy.exchanges[1].answer(np.zeros((4, 7)))

        assert loop.step()[0] == "hold"

    def test_outage_runs_the_chunk_out_then_holds_then_recovers(self, caplog):
        """One line when it begins, one when it ends, however long it lasts."""
        loop = Loop()
        loop.step()
        loop.policy.exchanges[0].answer(rows(0, 5))
        caplog.set_level(logging.INFO)
        loop.steps(2)
        loop.policy.down = ConnectionLost("the cable is out")
        during = loop.steps(60)
        loop.policy.down = None
        loop.step()
        loop.policy.exchanges[-1].answer(rows(50, 5))

        assert during[:3] == [("chunk", [2, 2]), ("chunk", [3, 3]), ("chunk", [4, 4])]
        assert during[3:] == [("hold", [4, 4])] * 57
        assert loop.step() == ("chunk", [50, 50])
        warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert [text.split()[0] for text in warnings] == ["no", "STOP"]
        assert "the cable is out" in warnings[0]
        assert "actions again after 1.9 s without, 58 held ticks" in caplog.text  # at 30 Hz

    def test_an_outage_that_rows_outlast_holds_nothing(self, caplog):
        """And its end says so: how long the link was away is the link's own line."""
        loop = Loop()
        loop.step()
        loop.policy.exchanges[0].answer(rows(0, 40))
        caplog.set_level(logging.INFO)
        for outcome in (lambda exchange: exchange.fail(PolicyError("out of memory")), None):
            count = len(loop.policy.exchanges)
            while len(loop.policy.exchanges) == count:
                assert loop.step()[0] == "chunk"
            if outcome is not None:
                outcome(loop.policy.exchanges[-1])
        loop.policy.exchanges[-1].answer(rows(30, 40))
        loop.step()
        assert "out of memory" in caplog.text
        assert "answers again; no tick was held" in caplog.text

    def test_how_long_it_has_been_without_actions_counts_from_the_first_tick_without(self, caplog):
        """In every line of an outage: rows went on for a while after the link was lost."""
        loop = Loop()
        loop.step()
        loop.policy.exchanges[0].answer(rows(0, 50))
        loop.steps(2)
        caplog.set_level(logging.INFO)
        loop.policy.down = ConnectionLost("the cable is out")
        loop.steps(50 + 65)

        told = [r.getMessage() for r in caplog.records]
        assert [line.partition(":")[0] for line in told if "without actions" in line] == [
            "STOP after 1.0 s without actions",
            "still without actions after 2 s",
        ]

    def test_late_reply_is_an_outage_but_still_used(self, caplog):
        """A reply after the limit is reported, and executed when its observation is not too old."""
        loop = Loop(scheduler=SchedulerConfig(max_age_ticks=300))
        loop.steps(160)
        loop.policy.exchanges[0].answer(rows(0))

        assert loop.player.outages == 1
        assert loop.step() == ("chunk", [0, 0])

    def test_reply_to_a_world_long_gone_is_asked_anew(self):
        """After a compile of minutes the first answer is dropped and a fresh observation sent."""
        loop = Loop(scheduler=SchedulerConfig(max_age_ticks=30))
        loop.steps(100)
        loop.policy.exchanges[0].answer(rows(0))

        assert loop.step() == ("hold", [10, 20])
        assert len(loop.policy.exchanges) == 2
        loop.policy.exchanges[1].answer(rows(7))
        assert loop.step() == ("chunk", [7, 7])

    def test_rows_that_run_out_are_told_once(self, caplog):
        """A policy that is merely too slow for its chunk is no outage, but no secret either."""
        loop = Loop()
        loop.step()
        loop.policy.exchanges[0].answer(rows(0, 3))
        steps = loop.steps(20)

        told = [r for r in caplog.records if "no row for this tick" in r.getMessage()]
        assert [source for source, _ in steps].count("hold") == 17
        assert len(told) == 1
        assert loop.player.outages == 0

    def test_before_the_first_command_it_is_the_measured_pose_that_is_held(self, caplog):
        """The log line says what is really held."""
        loop = Loop()
        loop.step()
        loop.policy.exchanges[0].fail(PolicyError("server error: KeyError"))
        loop.step()

        assert "Holding the measured pose until it recovers" in caplog.text

    def test_failing_requests_are_paced(self):
        """A server that refuses every observation is not flooded with them."""
        loop = Loop()
        for _ in range(300):  # ten seconds
            loop.step()
            if not loop.policy.exchanges[-1].done():
                loop.policy.exchanges[-1].fail(PolicyError("server error: KeyError", detail="…"))

        assert 8 <= len(loop.policy.exchanges) <= 16
        assert loop.player.outages == 1

    def test_plan_from_before_the_zeros_is_not_executed(self):
        """Zeros moved the arm away from where that plan begins; the next observation is of where it is."""
        loop = Loop(fallback="zero", action_dim=2)
        loop.steps(5)
        loop.policy.exchanges[0].answer(rows(60))

        assert loop.step() == ("zero", [0, 0])
        loop.policy.exchanges[1].answer(rows(1))
        assert loop.step() == ("chunk", [1, 1])

    def test_unsendable_observation_does_not_block_the_next(self):
        """An error while sending leaves nothing behind."""
        loop = Loop()
        submit, calls = loop.policy.submit, []

        def fail_once(observation):
            calls.append(observation)
            if len(calls) == 1:
                raise EncodeError("cannot send prompt")
            return submit(observation)

        loop.policy.submit = fail_once  # type: ignore[method-assign]
        with pytest.raises(EncodeError):
            loop.step()
        loop.step()

        assert len(loop.policy.exchanges) == 1

    def test_cause_of_a_failed_request_outlives_the_closed_link(self):
        """A stock server closes after every error; what is waited for is still the error's cause."""
        loop = Loop()
        loop.step()
        loop.policy.exchanges[0].fail(PolicyError("server error: KeyError: 'state'"))
        loop.policy.down = ConnectionLost("the server closes after an error")
        loop.steps(20)

        assert "KeyError" in loop.player.cause

    def test_the_same_in_mid_run(self):
        """After the first chunk too: the closed link does not hide what the policy failed on."""
        loop = Loop()
        loop.step()
        loop.policy.exchanges[0].answer(rows(0, 3))
        loop.steps(2)
        loop.policy.exchanges[-1].fail(PolicyError("server error: KeyError: 'state'"))
        loop.policy.down = ConnectionLost("the server closes after an error")
        loop.steps(20)

        assert "KeyError" in loop.player.cause
        assert loop.player.outages == 1

    def test_zero_only_where_chosen(self):
        """Zeros are a motion for absolute joints: they are the user's explicit choice."""
        loop = Loop(fallback="zero", action_dim=2)

        assert loop.step() == ("zero", [0, 0])

    def test_raise_names_the_cause(self):
        """With fallback="raise" the tick without an action is an error that says why."""
        loop = Loop(fallback="raise")
        loop.policy.down = ConnectionLost("the cable is out")

        with pytest.raises(NoValidAction, match="the cable is out"):
            loop.step()

    def test_hopeless_server_stops_before_the_first_motion(self):
        """A refused key cannot mend itself: better an error than an arm that holds for ever."""
        loop = Loop()
        loop.policy.down = AccessRefused("HTTP 401")

        with pytest.raises(AccessRefused):
            loop.step()

    def test_hopeless_server_in_mid_run_is_held(self):
        """Stopping the loop would let the arm fall; it holds and says so."""
        loop = Loop()
        loop.step()
        loop.policy.exchanges[0].answer(rows(0, 2))
        loop.policy.down = AccessRefused("HTTP 401")
        loop.steps(2)

        assert loop.step() == ("hold", [1, 1])
        assert loop.player.outages == 1

    def test_unreachable_server_at_the_start_shows_progress(self, caplog):
        """A person sees what is being waited for, more and more seldom."""
        caplog.set_level(logging.INFO)
        loop = Loop()
        loop.policy.down = ConnectFailed("connection refused")
        loop.steps(150)  # five seconds

        lines = [r.getMessage() for r in caplog.records if "still without actions" in r.message]
        assert len(lines) == 2  # after two seconds, after four, then after eight
        assert "connection refused" in lines[0]

    def test_nothing_to_hold_is_an_error(self):
        """Without a measured pose there is nothing to command before the first chunk."""
        loop = Loop()

        with pytest.raises(NoValidAction):
            loop.step(measured=None)


class TestTrace:
    def test_every_tick_and_exchange_is_a_line(self, tmp_path: Path):
        """The trace tells the whole story, one JSON object a line."""
        trace = Trace(tmp_path / "deep" / "trace.jsonl")
        loop = Loop(trace=trace)
        loop.step()
        loop.policy.exchanges[0].answer(rows(0))
        loop.steps(2)
        trace.close()

        text = (tmp_path / "deep" / "trace.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line["kind"] for line in lines] == ["episode", "tick", "exchange", "tick", "tick"]
        assert [line["source"] for line in lines if line["kind"] == "tick"] == [
            "hold",
            "chunk",
            "chunk",
        ]

    def test_an_exchange_says_how_its_images_were_sent(self, tmp_path: Path):
        """Raw ones have no quality."""
        trace = Trace(tmp_path / "trace.jsonl")
        loop = Loop(trace=trace)
        loop.step()
        loop.policy.exchanges[0].answer(rows(0))
        loop.steps(40)
        loop.policy.exchanges[1].quality = 85
        loop.policy.exchanges[1].answer(rows(40))
        loop.steps(2)
        trace.close()

        lines = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
        told = [(e["encoding"], e["quality"]) for e in lines if e["kind"] == "exchange"]
        assert told == [("raw", None), ("jpeg", 85)]
        assert loop.player.last_exchange.encoding == "jpeg"

    def test_closing_twice_is_harmless(self, tmp_path: Path):
        """And another trace may go on with the file."""
        trace = Trace(tmp_path / "trace.jsonl")
        trace.write("one")
        trace.close()
        trace.close()
        again = Trace(tmp_path / "trace.jsonl", append=True)
        again.write("two")
        again.close()

        lines = (tmp_path / "trace.jsonl").read_text().splitlines()
        assert [json.loads(line)["kind"] for line in lines] == ["one", "two"]

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_device_without_space(self, caplog):
        """The first failed write ends the trace with a warning."""
        loop = Loop(trace=Trace("/dev/full"))

        assert loop.steps(2)[1][0] == "hold"
        assert "the trace ends here" in caplog.text


def test_repr_shows_scheduler_and_outages():
    """One line for the log."""
    assert "outages=0" in repr(Loop().player)


def test_wait_returns_when_the_reply_does_not_come():
    """A wait is bounded, and an open request stays open."""
    loop = Loop()
    loop.step()

    loop.player.wait(0.01)

    assert loop.player.waiting
    assert loop.player.cause
