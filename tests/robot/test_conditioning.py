# SPDX-License-Identifier: Apache-2.0
"""RTC from the robot's side: what a server is told of the running chunk, and what its answer is taken for."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from pi05_websocket.chunks.config import SchedulerConfig
from pi05_websocket.chunks.hold import HoldState
from pi05_websocket.chunks.seam import SeamConfig
from pi05_websocket.data import Observation
from pi05_websocket.errors import EncodeError, RequestRefused
from pi05_websocket.robot.player import ActionPlayer, PlayerConfig
from pi05_websocket.testing import FakeClock, ScriptedExchange, ScriptedPolicy
from pi05_websocket.wire.realtime import (
    REALTIME_KEY,
    RealtimeReply,
    RealtimeSupport,
    announcement,
    split_realtime,
    with_realtime_reply,
)

ROWS = np.arange(40, dtype=np.float32)[:, None] + np.arange(2)


def rtc_reply(seq: int, delay: int, prefix: str = "guided") -> dict[str, Any]:
    """Return what a server that conditions adds to its answer."""
    reply = RealtimeReply(seq=seq, delay=delay, prefix=prefix, queue_ms=0.0, infer_ms=10.0)
    return {REALTIME_KEY: with_realtime_reply({}, reply)[REALTIME_KEY]}


class Drive:
    """A player at 30 Hz whose server answers when the test says so."""

    def __init__(self, *, announced: bool = True, use_rtc: bool = True) -> None:
        self.clock = FakeClock()
        self.policy = ScriptedPolicy(self.clock)
        if announced:
            self.policy.metadata = announcement(RealtimeSupport())
        scheduler = SchedulerConfig(
            action_horizon=20, margin_ticks=1, max_age_ticks=60, seam=SeamConfig(kind="rtc")
        )
        config = PlayerConfig(scheduler=scheduler, use_rtc=use_rtc)
        self.player = ActionPlayer(self.policy, config, clock=self.clock)
        self.player.start_episode()
        self.tick = 0
        self.commanded: list[float] = []

    def run(self, ticks: int) -> None:
        """Execute so many ticks."""
        for _ in range(ticks):
            self.player.collect(self.tick)
            self.player.ask(self.tick, lambda: {"prompt": "go"})
            step = self.player.act(self.tick, np.zeros(2, np.float32))
            self.commanded.append(float(step.values[0]))
            self.tick += 1
            self.clock.sleep(1 / 30)

    @property
    def last(self) -> ScriptedExchange:
        """The newest exchange."""
        return self.policy.exchanges[-1]


def first_chunk(drive: Drive) -> None:
    """Give it a chunk to execute, and let it ask for the next."""
    drive.run(1)
    drive.last.answer(ROWS)
    while len(drive.policy.exchanges) < 2:
        drive.run(1)


def test_a_server_that_conditions_is_sent_what_is_still_to_be_executed():
    """Raw rows, the first one for the observation's tick, and what it needs to place its answer."""
    drive = Drive()
    first_chunk(drive)

    observation, said = split_realtime(drive.last.observation)

    assert observation == {"prompt": "go"}
    assert said is not None
    held = drive.player.scheduler.held_ticks
    row = drive.tick - 1 - held
    assert np.array_equal(said.leftover, ROWS[row:])
    assert (said.seq, said.execution_horizon, said.control_hz) == (1, 20, 30.0)
    assert said.delay == drive.player.scheduler.delay.ticks()
    assert said.leftover_ms == pytest.approx(len(said.leftover) * 1000 / 30)
    assert said.deadline_ms == pytest.approx(2000)


@pytest.mark.parametrize(
    ("support", "use_rtc", "said"),
    [
        (RealtimeSupport(), True, "joined by: rtc"),
        (RealtimeSupport(), False, "joined by: blend, as rtc was asked for and not in this run"),
        (
            RealtimeSupport(prefix="none", refusals=True),
            True,
            "joined by: blend, as rtc was asked for and the server does not condition",
        ),
        (None, True, "joined by: blend, as rtc was asked for and the server does not condition"),
    ],
)
def test_what_joins_chunks_is_said_as_it_is(support, use_rtc, said, caplog):
    """Once, with the first chunk: what is asked for is not what a server can do."""
    drive = Drive(announced=False, use_rtc=use_rtc)
    if support is not None:
        drive.policy.metadata = announcement(support)
    with caplog.at_level(logging.INFO, "pi05_websocket.robot.player"):
        first_chunk(drive)

    (line,) = (text for text in caplog.messages if "first chunk" in text)
    assert line.endswith(said)


def test_before_the_first_chunk_there_is_nothing_left_over():
    """The first request says so with no rows, never with zeros."""
    drive = Drive()
    drive.run(1)

    _, said = split_realtime(drive.last.observation)

    assert said is not None
    assert len(said.leftover) == 0
    assert (said.deadline_ms, said.leftover_ms) == (pytest.approx(2000), 0.0)


@pytest.mark.parametrize("prefix", ["none", "guided"])
def test_a_server_that_plans_is_told_when_the_arm_runs_out_of_rows(prefix: str):
    """Without the rows themselves, where it cannot follow them or the user wants no RTC."""
    drive = Drive(announced=False, use_rtc=prefix == "none")
    drive.policy.metadata = announcement(RealtimeSupport(prefix=prefix, refusals=True))
    first_chunk(drive)

    observation, said = split_realtime(drive.last.observation)

    assert observation == {"prompt": "go"}
    assert said is not None
    left = 40 - (drive.tick - 1 - drive.player.scheduler.held_ticks)
    assert len(said.leftover) == 0
    assert said.leftover_ms == pytest.approx(left * 1000 / 30)
    assert said.deadline_ms == pytest.approx(2000)


@pytest.mark.parametrize(("asked_s", "waited_ticks"), [(0.5, 15), (60.0, 150), (None, 3)])
def test_a_busy_server_is_asked_again_when_it_says(asked_s: float | None, waited_ticks: int):
    """Not before, and never later than five seconds; while rows are left nothing stops."""
    drive = Drive()
    drive.run(1)
    drive.last.answer(np.zeros((400, 2), np.float32))
    while len(drive.policy.exchanges) < 2:
        drive.run(1)
    error = RequestRefused(
        "the server refused the request (busy)", kind="busy", retry_after_s=asked_s
    )
    drive.last.fail(error)
    refused_at = drive.tick
    while len(drive.policy.exchanges) < 3:
        drive.run(1)

    assert drive.tick - 1 - refused_at == pytest.approx(waited_ticks, abs=1)
    assert drive.player.outages == 0
    assert drive.player.state is HoldState.RUN


@pytest.mark.parametrize(("announced", "use_rtc"), [(False, True), (True, False)])
def test_nobody_else_is_sent_anything(announced: bool, use_rtc: bool):
    """A stock server sees stock bytes, and so does any server if the user wants no RTC."""
    drive = Drive(announced=announced, use_rtc=use_rtc)
    first_chunk(drive)

    assert all(REALTIME_KEY not in exchange.observation for exchange in drive.policy.exchanges)


def test_a_conditioned_chunk_is_executed_as_it_is():
    """It goes on where the running chunk is, so nothing is blended into it."""
    drive = Drive()
    first_chunk(drive)
    begins = drive.tick - 1 - drive.player.scheduler.held_ticks
    new = ROWS[begins:] + np.float32(0.01)
    drive.last.answer(new, **rtc_reply(1, 3))

    drive.run(6)

    assert drive.player.scheduler.in_flight is None
    expected = new[drive.tick - 1 - drive.player.scheduler.held_ticks - begins, 0]
    assert drive.commanded[-1] == float(np.float32(expected))


@pytest.mark.parametrize(
    "reply",
    [{}, {REALTIME_KEY: "?"}, rtc_reply(1, 0, "none"), rtc_reply(7, 3)],
    ids=["says nothing", "says nonsense", "could not", "answers another"],
)
def test_what_was_not_conditioned_is_blended(reply: dict[str, Any]):
    """Whatever else the server says, a chunk that begins elsewhere makes no step."""
    drive = Drive()
    first_chunk(drive)
    before = drive.commanded[-1]
    drive.last.answer(np.full((40, 2), before + 30, np.float32), **reply)

    drive.run(25)

    assert drive.commanded[-1] == pytest.approx(before + 30)
    assert max(np.abs(np.diff(drive.commanded))) < 8


def test_the_way_to_the_server_is_learnt_from_what_its_policy_did_not_take():
    """Half of the round trip without the inference, the shortest seen."""
    drive = Drive()
    drive.run(1)
    drive.clock.sleep(0.1)
    drive.last.answer(ROWS, server_timing={"infer_ms": 50.0})
    while len(drive.policy.exchanges) < 2:
        drive.run(1)

    _, said = split_realtime(drive.last.observation)

    assert said is not None
    assert said.age_ms == pytest.approx((1000 / 30 + 100 - 50) / 2, abs=1)


def test_an_observation_that_cannot_be_sent_leaves_no_request_behind():
    """The error is the user's, and the next tick may ask again."""

    class Refuses(ScriptedPolicy):
        def submit(self, observation: Observation, /) -> ScriptedExchange:
            raise EncodeError("an object")

    clock = FakeClock()
    player = ActionPlayer(Refuses(clock), PlayerConfig(), clock=clock)
    player.start_episode()

    with pytest.raises(EncodeError):
        player.ask(0, dict)

    assert player.scheduler.in_flight is None


def test_without_a_bound_on_age_any_answer_is_of_use():
    """Nothing is said then: no server may refuse it."""
    clock = FakeClock()
    policy = ScriptedPolicy(clock)
    policy.metadata = announcement(RealtimeSupport(prefix="none", refusals=True))
    player = ActionPlayer(policy, PlayerConfig(), clock=clock, number=3)
    player.start_episode()
    player.ask(0, dict)

    _, said = split_realtime(policy.exchanges[-1].observation)

    assert said is not None
    assert (said.deadline_ms, said.robot) == (None, 3)
