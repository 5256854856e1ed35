# SPDX-License-Identifier: Apache-2.0
"""The tick rule, one behaviour at a time, and as a state machine over arbitrary interleavings."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from pi05_websocket.chunks.config import SchedulerConfig
from pi05_websocket.chunks.scheduler import ChunkScheduler, MergeOutcome, Request
from pi05_websocket.chunks.seam import SeamConfig
from pi05_websocket.data import ActionChunk
from pi05_websocket.errors import ConfigError


def chunk_for(request: Request, rows: int = 8) -> ActionChunk:
    """Return a chunk whose values say where they come from: 1000 times the request plus the row."""
    values = (1000 * request.seq + np.arange(rows, dtype=np.float32))[:, None]
    return ActionChunk(
        actions=values, first_tick=request.tick, episode=request.episode, seq=request.seq
    )


def started(**config: int | None) -> ChunkScheduler:
    """Return a scheduler in its first episode."""
    scheduler = ChunkScheduler(SchedulerConfig(**config))
    scheduler.start_episode()
    return scheduler


def value_at(scheduler: ChunkScheduler, tick: int) -> int | None:
    """Return the executed value as an int, None when starved."""
    action = scheduler.action_at(tick)
    return None if action is None else int(action.values[0])


class TestTickRule:
    def test_row_belongs_to_the_tick_its_observation_was_taken_plus_its_number(self):
        """The picture of the docstring: merged before tick 5, the new chunk goes on with its row 3."""
        scheduler = started(action_horizon=5)
        first = scheduler.request(0)
        scheduler.merge(chunk_for(first), first, 0)
        executed = [value_at(scheduler, 0), value_at(scheduler, 1)]
        second = scheduler.request(2)
        executed += [value_at(scheduler, tick) for tick in (2, 3, 4)]
        scheduler.merge(chunk_for(second), second, 5)

        executed += [value_at(scheduler, tick) for tick in range(5, 10)]

        assert executed == [0, 1, 2, 3, 4, 1003, 1004, 1005, 1006, 1007]

    def test_held_ticks_do_not_count(self):
        """The first chunk starts at its first row however long the arm stood still waiting for it."""
        scheduler = started()
        request = scheduler.request(0)
        waited = [value_at(scheduler, tick) for tick in range(3)]
        scheduler.merge(chunk_for(request), request, 3)

        executed = [value_at(scheduler, tick) for tick in (3, 4)]

        assert waited == [None, None, None]
        assert executed == [0, 1]
        assert scheduler.held_ticks == 3

    def test_only_the_held_part_of_a_delay_is_given_back(self):
        """Two rows were executed before the chunk ran out, so the next one starts at its row 2."""
        scheduler = started()
        first = scheduler.request(0)
        scheduler.merge(chunk_for(first), first, 0)
        for tick in range(6):
            scheduler.action_at(tick)
        second = scheduler.request(6)
        executed = [value_at(scheduler, tick) for tick in range(6, 12)]
        scheduler.merge(chunk_for(second), second, 12)

        assert executed == [6, 7, None, None, None, None]
        assert value_at(scheduler, 12) == 1002

    def test_late_loop_skips_rows(self):
        """A loop that comes three periods late executes the row of the tick it comes at."""
        scheduler = started(max_skip_ticks=3)
        request = scheduler.request(0)
        scheduler.merge(chunk_for(request), request, 0)
        scheduler.action_at(0)

        assert value_at(scheduler, 4) == 4

    def test_stalled_loop_goes_on_where_the_arm_stood(self):
        """After a stall beyond max_skip_ticks the next row follows the last one: no jump."""
        scheduler = started(max_skip_ticks=3)
        request = scheduler.request(0)
        scheduler.merge(chunk_for(request), request, 0)
        scheduler.action_at(0)

        assert value_at(scheduler, 40) == 1

    def test_the_same_tick_twice_gives_the_same_row(self):
        """A loop faster than the control rate repeats, it does not run ahead."""
        scheduler = started()
        request = scheduler.request(0)
        scheduler.merge(chunk_for(request), request, 0)

        assert [value_at(scheduler, tick) for tick in (0, 0, 1, 1)] == [0, 0, 1, 1]

    def test_action_says_where_it_comes_from(self):
        """An action names its tick, request and row."""
        scheduler = started()
        request = scheduler.request(7)
        scheduler.merge(chunk_for(request), request, 7)
        scheduler.action_at(7)

        action = scheduler.action_at(8)

        assert action is not None
        assert (action.tick, action.seq, action.row) == (8, request.seq, 1)


class TestHandover:
    def test_next_chunk_waits_for_the_execution_horizon(self):
        """A reply that is early is not executed before action_horizon rows of the running chunk."""
        scheduler = started(action_horizon=4)
        first = scheduler.request(0)
        scheduler.merge(chunk_for(first), first, 0)
        scheduler.action_at(0)
        second = scheduler.request(1)
        scheduler.merge(chunk_for(second), second, 1)

        executed = [value_at(scheduler, tick) for tick in range(1, 6)]

        assert executed == [1, 2, 3, 1003, 1004]

    def test_running_chunk_goes_on_while_the_next_one_is_late(self):
        """Rows beyond the execution horizon are better than standing still."""
        scheduler = started(action_horizon=2)
        request = scheduler.request(0)
        scheduler.merge(chunk_for(request, rows=5), request, 0)

        assert [value_at(scheduler, tick) for tick in range(6)] == [0, 1, 2, 3, 4, None]

    def test_newer_chunk_replaces_one_that_waits(self):
        """Of two replies for one handover the newer observation wins."""
        scheduler = started(action_horizon=4)
        first = scheduler.request(0)
        scheduler.merge(chunk_for(first), first, 0)
        scheduler.action_at(0)
        second = scheduler.request(1)
        scheduler.merge(chunk_for(second), second, 1)
        executed = [value_at(scheduler, 1)]
        third = scheduler.request(2)
        scheduler.merge(chunk_for(third), third, 2)

        executed += [value_at(scheduler, tick) for tick in range(2, 5)]

        assert executed == [1, 2, 3, 2002]

    def test_preempt_hands_over_at_once(self):
        """After a changed task the next chunk does not wait for the execution horizon."""
        scheduler = started(action_horizon=6)
        first = scheduler.request(0)
        scheduler.merge(chunk_for(first), first, 0)
        scheduler.action_at(0)

        scheduler.preempt()

        assert scheduler.request_due(1)
        second = scheduler.request(1)
        assert value_at(scheduler, 1) == 1
        scheduler.merge(chunk_for(second), second, 2)
        assert value_at(scheduler, 2) == 1001

    def test_preempt_drops_the_answer_under_way(self):
        """An answer to the old task never takes over."""
        scheduler = started()
        request = scheduler.request(0)
        scheduler.preempt()

        assert scheduler.merge(chunk_for(request), request, 1) is MergeOutcome.SUPERSEDED


class TestAsking:
    def test_asks_at_the_start_and_only_once(self):
        """With nothing to execute a request is due; with one under way it is not."""
        scheduler = started()
        before = scheduler.request_due(0)
        scheduler.request(0)

        assert (before, scheduler.request_due(1)) == (True, False)

    def test_asks_early_by_the_delay_and_the_margin(self):
        """With a delay of 3 ticks and a margin of 1 the request for a handover at 8 goes out at 4."""
        scheduler = started(margin_ticks=1)
        scheduler.delay.add(3)
        scheduler.delay.add(3)
        request = scheduler.request(0)
        scheduler.merge(chunk_for(request), request, 0)
        scheduler.delay.add(3)
        due = []
        for tick in range(8):
            due.append(scheduler.request_due(tick))
            scheduler.action_at(tick)

        assert due.index(True) == 8 - 1 - scheduler.delay.ticks()

    def test_asks_again_after_a_request_that_ended_without_reply(self):
        """A failed request makes room for the next one."""
        scheduler = started()
        request = scheduler.request(0)

        scheduler.request_ended(request.seq)

        assert scheduler.request_due(1)

    def test_an_older_end_does_not_end_the_present_request(self):
        """The late failure of a replaced request says nothing about the one under way."""
        scheduler = started()
        old = scheduler.request(0)
        scheduler.request(1)

        scheduler.request_ended(old.seq)

        assert not scheduler.request_due(2)

    def test_asks_for_the_chunk_after_the_waiting_one(self):
        """With one chunk running and one waiting, the next request is for the handover after both."""
        scheduler = started(action_horizon=4, margin_ticks=0)
        first = scheduler.request(0)
        scheduler.merge(chunk_for(first), first, 0)
        scheduler.action_at(0)
        second = scheduler.request(1)
        scheduler.merge(chunk_for(second), second, 1)
        due = []
        for tick in range(1, 9):
            due.append(scheduler.request_due(tick))
            scheduler.action_at(tick)

        # second takes over at 4 and hands over 4 rows later at 8; the delay seen was 0
        assert due == [False] * 7 + [True]

    def test_a_quarter_of_a_whole_chunk_is_kept_in_reserve(self):
        """Without an action_horizon the reply may be a quarter of the chunk late before the arm stops."""
        config = SchedulerConfig()

        assert [config.margin(rows) for rows in (50, 10, 1)] == [13, 3, 1]

    def test_rows_beyond_the_execution_horizon_are_reserve_too(self):
        """Half the chunk lies behind the handover, so that only the usual margin is needed."""
        assert SchedulerConfig(action_horizon=25).margin(50) == 3

    def test_plans_are_given_their_chance(self):
        """A chunk that is here is not replaced by a newer one before min_execution_ticks."""
        scheduler = started(min_execution_ticks=6, margin_ticks=40)
        first = scheduler.request(0)
        scheduler.merge(chunk_for(first, rows=40), first, 0)
        due = []
        for tick in range(8):
            due.append(scheduler.request_due(tick))
            scheduler.action_at(tick)

        assert due == [False] * 6 + [True] * 2

    def test_not_starving_wins_over_the_minimum(self):
        """With as many rows left as a reply takes, the next request goes out however new the plan is."""
        scheduler = started(min_execution_ticks=8)
        for _ in range(2):
            scheduler.delay.add(5)
        first = scheduler.request(0)
        scheduler.merge(chunk_for(first, rows=8), first, 0)
        scheduler.delay.add(5)
        due = []
        for tick in range(4):
            due.append(scheduler.request_due(tick))
            scheduler.action_at(tick)

        assert due == [False, False, True, True]

    def test_an_asked_for_horizon_below_the_minimum_is_kept(self):
        """Who sets action_horizon=3 gets a new plan every three ticks."""
        scheduler = started(action_horizon=3, margin_ticks=0)
        first = scheduler.request(0)
        scheduler.merge(chunk_for(first), first, 0)
        due = []
        for tick in range(4):
            due.append(scheduler.request_due(tick))
            scheduler.action_at(tick)

        assert due == [False, False, False, True]

    def test_without_a_horizon_a_chunk_takes_over_when_it_comes(self):
        """The newest plan is executed as soon as it is there."""
        scheduler = started()
        first = scheduler.request(0)
        scheduler.merge(chunk_for(first), first, 0)
        scheduler.action_at(0)
        second = scheduler.request(1)
        executed = [value_at(scheduler, 1)]
        scheduler.merge(chunk_for(second), second, 2)

        executed += [value_at(scheduler, 2), value_at(scheduler, 3)]

        assert executed == [1, 1001, 1002]

    def test_remaining_counts_the_rows_left(self):
        """Rows from the present tick on, of the newest chunk."""
        scheduler = started()
        nothing = scheduler.remaining(0)
        request = scheduler.request(0)
        scheduler.merge(chunk_for(request), request, 0)
        scheduler.action_at(0)

        assert (nothing, scheduler.remaining(0), scheduler.remaining(3)) == (0, 8, 5)

    def test_looking_changes_nothing(self):
        """Asking about a tick far ahead does not make the ticks before it held ones."""
        scheduler = started()
        request = scheduler.request(0)
        scheduler.merge(chunk_for(request), request, 0)
        scheduler.action_at(0)

        scheduler.remaining(50)
        scheduler.request_due(50)

        assert value_at(scheduler, 1) == 1

    def test_while_starved_there_is_no_plan(self):
        """Nothing runs: there are no rows to compare with."""
        assert ChunkScheduler(SchedulerConfig()).running_plan.size == 0

    def test_starved_says_so(self):
        """Before the first chunk there is nothing to execute."""
        assert started().starved


class TestLeftover:
    def test_leftover_is_what_will_be_executed(self):
        """Row 0 is for the asked tick; the rows go on to the end of the chunk."""
        scheduler = started()
        nothing = scheduler.leftover(0)
        request = scheduler.request(0)
        scheduler.merge(chunk_for(request), request, 0)
        waiting = scheduler.leftover(0)
        scheduler.action_at(0)

        assert nothing.shape == (0, 0)
        assert waiting[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
        assert scheduler.leftover(3)[:, 0].tolist() == [3, 4, 5, 6, 7]

    def test_leftover_passes_into_the_chunk_that_waits(self):
        """A chunk that takes over later is part of the plan."""
        scheduler = started(action_horizon=4)
        first = scheduler.request(0)
        scheduler.merge(chunk_for(first), first, 0)
        scheduler.action_at(0)
        second = scheduler.request(1)
        scheduler.merge(chunk_for(second), second, 1)

        leftover = scheduler.leftover(2)[:, 0].tolist()

        assert leftover == [2, 3, 1003, 1004, 1005, 1006, 1007]
        assert [value_at(scheduler, tick) for tick in range(2, 9)] == leftover


class TestSeams:
    """How the scheduler hands its past to `chunks.seam`."""

    def executed(self, kind: str, **facts: int) -> list[float]:
        """Return what is commanded when a flat chunk at 0 meets a flat one at 10, takeover at tick 10."""
        scheduler = ChunkScheduler(
            SchedulerConfig(action_horizon=10, seam=SeamConfig(kind=kind, max_blend_ticks=8))
        )
        scheduler.start_episode()
        out: list[float] = []
        for tick in range(25):
            if tick in (0, 9):
                request = scheduler.request(tick)
                value = np.full((20, 1), 0.0 if tick == 0 else 10.0, np.float32)
                chunk = ActionChunk(
                    actions=value,
                    first_tick=tick,
                    episode=request.episode,
                    seq=request.seq,
                    **facts,
                )
                scheduler.merge(chunk, request, tick)
            action = scheduler.action_at(tick)
            assert action is not None
            out.append(float(action.values[0]))
        return out

    def test_replace_steps(self):
        """The new rows as they are."""
        assert self.executed("replace")[8:12] == [0, 0, 10, 10]

    def test_blend_has_no_step(self):
        """From 0 to 10 over eight ticks, and never beyond."""
        values = self.executed("blend")

        assert values[9] == 0
        assert values[17] == 10
        assert max(np.abs(np.diff(values))) < 2.5
        assert all(a <= b for a, b in itertools.pairwise(values))

    def test_ensemble_averages_what_both_chunks_have(self):
        """Old rows last until tick 20; the oldest weighs a little more, as in ACT."""
        values = self.executed("ensemble")

        assert values[9] == 0
        assert values[10:20] == pytest.approx([10 * math.exp(-0.01) / (1 + math.exp(-0.01))] * 10)
        assert values[20:] == [10] * 5

    def test_a_conditioned_chunk_that_does_not_fit_is_blended(self):
        """RTC's guidance is soft: what it leaves of a difference still makes no step."""
        values = self.executed("rtc", pinned_rows=1)

        assert max(np.abs(np.diff(values))) < 2.5

    def test_a_seam_goes_on_from_what_limits_made_of_the_last_action(self):
        """What was really sent is where the arm is."""
        scheduler = ChunkScheduler(
            SchedulerConfig(action_horizon=1, seam=SeamConfig(kind="blend", max_blend_ticks=8))
        )
        scheduler.start_episode()
        scheduler.commanded(
            np.array([9.0], np.float32)
        )  # nothing was commanded yet: nothing to change
        for tick in range(2):
            request = scheduler.request(tick)
            scheduler.merge(chunk_for(request), request, tick)
            action = scheduler.action_at(tick)
            if tick == 0:
                scheduler.commanded(np.array([500.0], np.float32))

        assert action is not None
        assert 400 < float(action.values[0]) < 600

    def test_after_a_pause_the_arm_counts_as_standing_still(self):
        """The speed before a hold is no speed to go on with."""
        scheduler = ChunkScheduler(SchedulerConfig(seam=SeamConfig(kind="blend")))
        scheduler.start_episode()
        request = scheduler.request(0)
        scheduler.merge(chunk_for(request), request, 0)
        for tick in range(12):
            scheduler.action_at(tick)
        request = scheduler.request(12)
        still = np.full((20, 1), 7.0, np.float32)
        scheduler.merge(
            ActionChunk(actions=still, first_tick=12, episode=1, seq=request.seq), request, 12
        )

        assert [value_at(scheduler, tick) for tick in range(12, 20)] == [7] * 8

    def test_a_repeated_tick_is_no_standstill(self):
        """A loop that calls twice per tick does not halve the speed a seam goes on with."""
        scheduler = ChunkScheduler(SchedulerConfig(action_horizon=6, seam=SeamConfig(kind="blend")))
        scheduler.start_episode()
        first = scheduler.request(0)
        scheduler.merge(chunk_for(first, rows=20), first, 0)
        for tick in range(6):
            scheduler.action_at(tick)
            scheduler.action_at(tick)
        second = scheduler.request(6)
        on_course = np.arange(6, 20, dtype=np.float32)[:, None]
        scheduler.merge(
            ActionChunk(actions=on_course, first_tick=6, episode=1, seq=second.seq), second, 6
        )

        assert [value_at(scheduler, tick) for tick in range(6, 12)] == [6, 7, 8, 9, 10, 11]


class TestRefusals:
    def test_older_episode_never_executes(self):
        """A reply to a request from before the reset is dropped."""
        scheduler = started()
        request = scheduler.request(0)
        scheduler.start_episode()

        assert scheduler.merge(chunk_for(request), request, 1) is MergeOutcome.OLDER_EPISODE
        assert value_at(scheduler, 1) is None

    def test_second_copy_of_a_reply_changes_nothing(self):
        """Duplicates are harmless."""
        scheduler = started()
        request = scheduler.request(0)
        scheduler.merge(chunk_for(request), request, 0)

        assert scheduler.merge(chunk_for(request), request, 1) is MergeOutcome.SUPERSEDED

    def test_older_reply_after_a_newer_one_is_dropped(self):
        """Reordered replies are harmless."""
        scheduler = started()
        old = scheduler.request(0)
        new = scheduler.request(1)
        scheduler.merge(chunk_for(new), new, 2)

        assert scheduler.merge(chunk_for(old), old, 2) is MergeOutcome.SUPERSEDED

    def test_foreign_chunk_is_refused(self):
        """A chunk that answers another request than it claims to is not executed."""
        scheduler = started()
        request = scheduler.request(0)
        foreign = ActionChunk(actions=np.zeros((3, 1), np.float32), first_tick=0, episode=1, seq=9)

        assert scheduler.merge(foreign, request, 1) is MergeOutcome.UNKNOWN

    def test_too_old_observation_is_refused(self):
        """A reply that took longer than allowed describes a world that is gone."""
        scheduler = started(max_age_ticks=10)
        request = scheduler.request(0)
        for tick in range(12):
            scheduler.action_at(tick)

        assert scheduler.merge(chunk_for(request), request, 11) is MergeOutcome.TOO_OLD

    def test_too_late_rows_are_refused(self):
        """A chunk shorter than the executed delay has no row left."""
        scheduler = started()
        first = scheduler.request(0)
        scheduler.merge(chunk_for(first, rows=20), first, 0)
        scheduler.action_at(0)
        second = scheduler.request(1)
        for tick in range(1, 10):
            scheduler.action_at(tick)

        assert scheduler.merge(chunk_for(second, rows=4), second, 10) is MergeOutcome.TOO_LATE

    def test_chunk_expires_over_a_long_pause(self):
        """A loop that comes back after a minute does not go on with the old plan."""
        scheduler = started(max_age_ticks=10)
        request = scheduler.request(0)
        scheduler.merge(chunk_for(request), request, 0)
        scheduler.action_at(0)

        assert value_at(scheduler, 1800) is None

    def test_waiting_chunk_expires_over_a_long_pause(self):
        """The same for a chunk that had not taken over yet."""
        scheduler = started(max_age_ticks=10, action_horizon=4)
        first = scheduler.request(0)
        scheduler.merge(chunk_for(first), first, 0)
        scheduler.action_at(0)
        second = scheduler.request(1)
        scheduler.merge(chunk_for(second), second, 1)

        assert value_at(scheduler, 1800) is None

    @pytest.mark.parametrize(
        "wrong", [{"action_horizon": 0}, {"margin_ticks": -1}, {"max_age_ticks": -1}]
    )
    def test_impossible_settings_are_refused(self, wrong: dict[str, int]):
        """Settings are checked and quoted before anything runs."""
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            SchedulerConfig(**wrong)

    def test_repr_shows_the_state(self):
        """One line for the log."""
        scheduler = started()
        request = scheduler.request(0)
        scheduler.merge(chunk_for(request), request, 0)

        assert repr(scheduler) == "<ChunkScheduler episode=1 running=None waiting=0 delay=0 held=0>"


class AnyInterleaving(RuleBasedStateMachine):
    """Requests, replies, duplicates, losses, resets, pauses and task changes in any order."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = ChunkScheduler(
            SchedulerConfig(action_horizon=5, max_age_ticks=40, max_skip_ticks=2)
        )
        self.scheduler.start_episode()
        self.tick = 0
        self.last: tuple[int, int, int] | None = None  # episode, seq, row
        self.barrier = 0  # requests below it serve another task or episode

    @rule(target=requests, early=st.booleans())
    def ask(self, early: bool) -> Request | None:
        """Send a request, whether due or not."""
        if not early and not self.scheduler.request_due(self.tick):
            return None
        return self.scheduler.request(self.tick)

    @rule(request=requests, rows=st.integers(1, 12))
    def reply(self, request: Request | None, rows: int) -> None:
        """Deliver a reply, possibly again, possibly much later."""
        if request is not None:
            self.scheduler.merge(chunk_for(request, rows), request, self.tick)

    @rule(request=consumes(requests))
    def lose(self, request: Request | None) -> None:
        """Let a request end without reply."""
        if request is not None:
            self.scheduler.request_ended(request.seq)

    @rule(step=st.sampled_from([0, 1, 1, 1, 1, 2, 3, 30]))
    def execute(self, step: int) -> None:
        """Execute the present tick, then let time pass; check what came out."""
        action = self.scheduler.action_at(self.tick)
        if action is None:
            self.last = None
        else:
            seq, row = divmod(int(action.values[0]), 1000)
            assert (seq, row) == (action.seq, action.row)
            episode = self.scheduler.episode
            if self.last is not None and self.last[0] == episode:
                # never an older chunk again, never back within one
                assert (seq, row) >= (self.last[1], self.last[2])
            self.last = (episode, seq, row)
        self.tick += step

    @rule()
    def reset(self) -> None:
        """Begin a new episode."""
        self.scheduler.start_episode()
        self.last = None
        self.barrier = self.scheduler._next_seq

    @invariant()
    def nothing_of_another_episode(self) -> None:
        """What runs was asked in the present episode."""
        if self.last is not None:
            assert self.last[1] >= self.barrier


AnyInterleaving.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
TestAnyInterleaving = AnyInterleaving.TestCase
