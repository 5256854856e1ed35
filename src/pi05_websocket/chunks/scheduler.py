# SPDX-License-Identifier: Apache-2.0
"""Chunk scheduler: which action belongs to which tick, and when to ask for more.

In: tick numbers, requests sent, chunks received. Out: one action for each tick, or None (starved).
Pure: no thread, no clock, no I/O. Owned by the control thread.

The tick rule:

    tick             0   1   2   3   4   5   6   7   8   9
    old chunk        o0  o1  o2  o3  o4  o5  o6  o7              first_tick 0
    new chunk                n0  n1  n2  n3  n4  n5  n6  n7      first_tick 2: observed at tick 2
    executed         o0  o1  o2  o3  o4  n3  n4  n5  n6  n7      merged before tick 5: inference delay 3

Row i is for tick `first_tick + i`, the tick its observation was taken plus i. So the inference delay is a
subtraction, and a late, repeated or reordered reply cannot put a row at the wrong time.

Held ticks do not count: while nothing is executed the arm stands still, so a chunk observed at tick h and
merged after n held ticks starts n ticks later than the rule above says. Otherwise the first chunk of an
episode would begin with a jump over the rows that "passed" while the arm had not moved at all
(huggingface/lerobot#4454):

    tick             0   1   2   3   4   5
    chunk            n0  n1  n2  n3 ...                          observed at tick 0, merged before tick 3
    executed         -   -   -   n0  n1  n2                      3 held ticks: shifted by 3

When a chunk takes over: after `action_horizon` executed rows of the chunk before it, or as soon as that one
has run out; without an `action_horizon`, as soon as it is there. How it is joined: `seam`.

When to ask: so early that the reply is there by then (`delay`, plus a margin), and, without an
`action_horizon`, that one which takes twice as long still finds rows to follow; but not before
`min_execution_ticks` after the last observation that was sent: plans that change their mind every few ticks
finish less often (BridgeQuant-Async: 54 % at 1 row, 89 % at 8). Where the two rules conflict, not starving
wins.

One action from chunk to motor, with H = 50 rows, a delay of 6 ticks and `action_horizon` 25:

    tick 18   `request_due`: the handover is due at 25, and 25 - 6 - 1 = 18; the observation is taken and sent
    tick 24   the reply arrives; `merge` notes its delay of 6 and lets it wait
    tick 25   `action_at` takes over: row 25 - 18 = 7 of the new chunk, joined to what was commanded at 24
    then      the player hands the row to the limits, the limits to the robot
    late      had the reply come at 30, rows 25 to 29 of the old chunk would have been executed meanwhile

So all positions are kept in *active ticks*: ticks minus held ticks so far. They advance only while the arm
executes rows; a stall of the loop beyond `max_skip_ticks` counts as held too, because its arm stood still.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from pi05_websocket.chunks.config import SchedulerConfig
from pi05_websocket.chunks.delay import DelayEstimator
from pi05_websocket.chunks.seam import join
from pi05_websocket.data import Action, ActionChunk, Float32Array

__all__ = ["ChunkScheduler", "MergeOutcome", "Request", "SchedulerConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request that is under way."""

    seq: int
    episode: int
    tick: int
    """When its observation was taken."""

    active_tick: int
    """The same without the held ticks before it."""


class MergeOutcome(Enum):
    """What became of a received chunk."""

    ACCEPTED = "accepted"
    OLDER_EPISODE = "belongs to an earlier episode"
    SUPERSEDED = "a newer chunk is already here"
    UNKNOWN = "answers no request of this scheduler"
    TOO_OLD = "its observation is too old"
    TOO_LATE = "all its rows lie in the past"


@dataclass(frozen=True, slots=True)
class _Run:
    """A chunk and where it lies in active time."""

    chunk: ActionChunk
    first: int
    """Active tick of its observation: row i is for active tick `first + i`."""

    started: int = 0
    """Active tick of its takeover; 0 while it waits."""

    preempted: bool = False
    """Whether the next chunk takes over at once."""

    plan: Float32Array | None = None
    """The rows as the policy gave them, once the chunk has been joined to the one before."""

    counts: tuple[int, ...] = ()
    """For each row from the takeover on, how many chunks it is the mean of; empty: one."""

    @property
    def end(self) -> int:
        """First active tick it has no row for any more."""
        return self.first + len(self.chunk.actions)

    def handover(self, started: int, action_horizon: int | None) -> int:
        """Return the active tick by which the next chunk should take over from this one."""
        if self.preempted:
            return started
        return self.end if action_horizon is None else min(started + action_horizon, self.end)

    def rows(self, begin: int, end: int) -> Float32Array:
        """Return the rows for the active ticks `begin` to `end`, as far as there are any."""
        return self.chunk.actions[max(0, begin - self.first) : max(0, end - self.first)]


class ChunkScheduler:
    """Owns the running chunk, the one that waits to take over, and the request under way.

    Call order in one tick: `merge` what has arrived, `request_due` and `request`, then `action_at`.
    """

    def __init__(self, config: SchedulerConfig, *, delay: DelayEstimator | None = None) -> None:
        self.config = config
        self.delay = DelayEstimator() if delay is None else delay
        self.episode = 0
        self.held_ticks = 0
        """Ticks without a row to execute, over all episodes."""
        self.in_flight: Request | None = None
        self._next_seq = 0
        self._newest_merged = -1
        self._running: _Run | None = None
        self._waiting: _Run | None = None
        self._asked_at: int | None = None
        """Active tick of the observation sent last, unless it came to nothing."""
        self._recent: deque[Float32Array] = deque(maxlen=3)
        """What was commanded at the last ticks, oldest first; the last one alone when the arm stood still."""
        self._remembered_at: int | None = None
        """Active tick of the last of them."""
        self._last_tick: int | None = None
        self._starved = True

    def __repr__(self) -> str:
        running = self._running.chunk.seq if self._running else None
        waiting = self._waiting.chunk.seq if self._waiting else None
        return (
            f"<ChunkScheduler episode={self.episode} running={running} waiting={waiting} "
            f"delay={self.delay.ticks()} held={self.held_ticks}>"
        )

    @property
    def starved(self) -> bool:
        """Whether the last tick had no action."""
        return self._starved

    def start_episode(self) -> int:
        """Forget every chunk and request; what was asked before can never be executed. Return its number."""
        self.episode += 1
        self.in_flight = None
        self._running = self._waiting = None
        self._asked_at = None
        self._recent.clear()
        self._remembered_at = None
        self._starved = True
        self._last_tick = None
        return self.episode

    def preempt(self) -> None:
        """Give up what is under way or waits; the next accepted chunk takes over at once.

        For a changed task: the running chunk still serves the old one, but is better than standing still
        in the middle of a motion.
        """
        self.in_flight = self._waiting = self._asked_at = None
        self._newest_merged = self._next_seq - 1
        if self._running is not None:
            self._running = replace(self._running, preempted=True)

    @property
    def running_plan(self) -> Float32Array:
        """The chunk that is executed as the policy gave it, `(H, action_dim)`; no rows while starved."""
        run = self._running
        if run is None:
            return np.zeros((0, 0), np.float32)
        return run.chunk.actions if run.plan is None else run.plan

    def remaining(self, tick: int) -> int:
        """Return how many rows are left to execute from `tick` on."""
        newest = self._waiting or self._running
        return 0 if newest is None else max(0, newest.end - self._active(tick))

    def request_due(self, tick: int) -> bool:
        """Say whether an observation taken at `tick` should be sent now. One request at a time."""
        if self.in_flight is not None:
            return False
        handover = self._uncovered_handover(tick)
        newest = self._waiting or self._running
        if handover is None or newest is None:
            return True
        now, delay, rows = self._active(tick), self.delay.ticks(), len(newest.chunk.actions)
        margin, left = self.config.margin(rows), newest.end - now
        if left <= delay + min(1, margin):
            return True
        due = now >= handover - delay - margin or left <= self.config.reserve(delay)
        return due and self._may_replan(now)

    def request(self, tick: int) -> Request:
        """Open a request for the observation taken at `tick`; it replaces one that is still open."""
        active = self._advance(tick)
        self.in_flight = Request(
            seq=self._next_seq, episode=self.episode, tick=tick, active_tick=active
        )
        self._asked_at = active
        self._next_seq += 1
        return self.in_flight

    def request_ended(self, seq: int) -> None:
        """Note that request `seq` will not be answered. Any other number is ignored."""
        if self.in_flight is not None and self.in_flight.seq == seq:
            self.in_flight = self._asked_at = None

    def leftover(self, tick: int) -> Float32Array:
        """Return the rows still to be executed, from `tick` on: what a server that does RTC is sent.

        Returns:
            `(n, action_dim)`, row 0 for `tick`; n is 0 when there are none. What was blended is blended.
        """
        active, running, waiting = self._active(tick), self._running, self._waiting
        if running is None:
            return (
                np.zeros((0, 0), np.float32)
                if waiting is None
                else waiting.rows(active, waiting.end)
            )
        if waiting is None:
            return running.rows(active, running.end)
        handover = max(active, self._takeover(running, active))
        return np.concatenate([running.rows(active, handover), waiting.rows(handover, waiting.end)])

    def merge(self, chunk: ActionChunk, request: Request, tick: int) -> MergeOutcome:
        """Take the chunk that answers `request`, received before `tick` is executed.

        It takes over when its time has come (see `action_at`); an older chunk that waits is replaced.
        """
        asked_at = self._asked_at
        self.request_ended(request.seq)
        if chunk.episode != self.episode or request.episode != self.episode:
            return MergeOutcome.OLDER_EPISODE
        if chunk.seq != request.seq or chunk.seq >= self._next_seq:
            return MergeOutcome.UNKNOWN
        if chunk.seq <= self._newest_merged:
            return MergeOutcome.SUPERSEDED
        self.delay.add(max(0, tick - chunk.first_tick))
        if self._too_old(chunk, tick):
            return MergeOutcome.TOO_OLD
        run = _Run(chunk, request.active_tick)
        if self._advance(tick) >= run.end:
            return MergeOutcome.TOO_LATE
        self._newest_merged = chunk.seq
        self._asked_at = asked_at
        self._waiting = run
        return MergeOutcome.ACCEPTED

    def action_at(self, tick: int) -> Action | None:
        """Return the action for `tick`, or None when starved. Ticks never decrease within an episode."""
        active = self._advance(tick)
        self._take_over(active, tick)
        run = self._running
        if run is not None and active < run.end:
            self._starved = False
            row = active - run.first
            values = run.chunk.actions[row]
            self._remember(run, active)
            return Action(values=values, tick=tick, seq=run.chunk.seq, row=row)
        self._running = None
        self._starved = True
        while len(self._recent) > 1:
            self._recent.popleft()
        return None

    def commanded(self, values: Float32Array) -> None:
        """Note that limits changed the last action before it was sent: the next seam goes on from there."""
        if self._recent:
            self._recent[-1] = values

    def _active(self, tick: int) -> int:
        """Return `tick` in active ticks."""
        return tick - self._held_until(tick)

    def _held_until(self, tick: int) -> int:
        """Return the held ticks up to `tick`, with those since the last one that the arm stood still."""
        gap = 0 if self._last_tick is None else max(0, tick - self._last_tick)
        if self._starved:
            return self.held_ticks + gap
        stalled = gap > self.config.max_skip_ticks + 1
        return self.held_ticks + (gap - 1 if stalled else 0)

    def _advance(self, tick: int) -> int:
        """Let `tick` be the present one, never an earlier one than before; return it in active ticks."""
        self.held_ticks = self._held_until(tick)
        self._last_tick = tick if self._last_tick is None else max(tick, self._last_tick)
        return self._last_tick - self.held_ticks

    def _too_old(self, chunk: ActionChunk, tick: int) -> bool:
        limit = self.config.max_age_ticks
        return limit is not None and tick - chunk.first_tick > limit

    def _take_over(self, active: int, tick: int) -> None:
        running, waiting = self._running, self._waiting
        if running is not None and self._expired(running, tick):
            running = self._running = None
        if waiting is None or (running is not None and active < self._takeover(running, active)):
            return
        self._waiting = None
        if not self._expired(waiting, tick):
            self._running = self._joined(replace(waiting, started=active), running)

    def _takeover(self, running: _Run, active: int) -> int:
        """Return the active tick at which a chunk that waits takes over from the running one."""
        horizon = self.config.action_horizon
        return active if horizon is None else running.handover(running.started, horizon)

    def _joined(self, new: _Run, running: _Run | None) -> _Run:
        """Return the chunk that takes over now, joined to what was commanded last."""
        old: Float32Array | None = None
        counts: tuple[int, ...] = ()
        if running is not None:
            old = running.rows(new.started, running.end)
            counts = running.counts[new.started - running.started :]
        rows, counts = join(
            new.chunk.actions,
            new.started - new.first,
            self.config.seam,
            recent=np.array(self._recent),
            running=None if running is None else running.chunk.actions,
            old=old,
            counts=counts,
            conditioned=new.chunk.pinned_rows > 0,
        )
        return replace(
            new,
            chunk=replace(new.chunk, actions=rows),
            plan=new.chunk.actions,
            counts=counts,
        )

    def _may_replan(self, now: int) -> bool:
        """Say whether the plan asked for last has been given its chance."""
        least, horizon = self.config.min_execution_ticks, self.config.action_horizon
        least = least if horizon is None else min(least, horizon)
        return self._asked_at is None or now - self._asked_at >= least

    def _remember(self, run: _Run, active: int) -> None:
        """Note what is commanded now; a skipped tick counts as if its row had been."""
        last = self._remembered_at
        begin = active if last is None else max(last + 1, run.started, active - 2)
        self._recent.extend(run.rows(begin, active + 1))
        self._remembered_at = active

    def _expired(self, run: _Run, tick: int) -> bool:
        """Say whether a pause has made the rest of a chunk stale, although the arm did not move meanwhile."""
        return self._too_old(run.chunk, tick - len(run.chunk.actions))

    def _uncovered_handover(self, tick: int) -> int | None:
        """Return the first handover for which there is no chunk yet; None when it is overdue."""
        horizon = self.config.action_horizon
        running, waiting = self._running, self._waiting
        at = self._active(tick)
        if running is not None:
            at = max(at, running.handover(running.started, horizon))
        if waiting is None:
            return None if running is None else at
        return waiting.handover(at, horizon)
