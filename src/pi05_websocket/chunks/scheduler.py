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
has run out. When to ask: early enough that the reply is there by then.

So all positions are kept in *active ticks*: ticks minus held ticks so far. They advance only while the arm
executes rows; a stall of the loop beyond `max_skip_ticks` counts as held too, because its arm stood still.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from pi05_websocket.chunks.delay import DelayEstimator
from pi05_websocket.data import Action, ActionChunk
from pi05_websocket.errors import ConfigError

__all__ = ["ChunkScheduler", "MergeOutcome", "Request", "SchedulerConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """How far to trust a chunk and how early to ask for the next."""

    action_horizon: int | None = None
    """Execution horizon: rows executed before the next chunk takes over; None: the whole chunk."""

    margin_ticks: int = 1
    """Ticks to ask earlier than the estimated inference delay requires."""

    max_age_ticks: int | None = None
    """Oldest observation, in ticks, whose chunk may still take over; None: any age."""

    max_skip_ticks: int = 3
    """Longest stall of the loop that is made up by skipping rows; after a longer one the arm goes on where it
    stood."""

    def __post_init__(self) -> None:
        if self.action_horizon is not None and self.action_horizon < 1:
            raise ConfigError(f"action_horizon={self.action_horizon}: must be 1 or more")
        for name in ("margin_ticks", "max_age_ticks", "max_skip_ticks"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name}={value}: must be 0 or more")


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

    @property
    def end(self) -> int:
        """First active tick it has no row for any more."""
        return self.first + len(self.chunk.actions)

    def handover(self, started: int, action_horizon: int | None) -> int:
        """Return the active tick at which the next chunk should take over from this one."""
        if self.preempted:
            return started
        return self.end if action_horizon is None else min(started + action_horizon, self.end)


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
        self._starved = True
        self._last_tick = None
        return self.episode

    def preempt(self) -> None:
        """Give up what is under way or waits; the next accepted chunk takes over at once.

        For a changed task: the running chunk still serves the old one, but is better than standing still
        in the middle of a motion.
        """
        self.in_flight = self._waiting = None
        self._newest_merged = self._next_seq - 1
        if self._running is not None:
            self._running = replace(self._running, preempted=True)

    def remaining(self, tick: int) -> int:
        """Return how many rows are left to execute from `tick` on."""
        newest = self._waiting or self._running
        return 0 if newest is None else max(0, newest.end - self._active(tick))

    def request_due(self, tick: int) -> bool:
        """Say whether an observation taken at `tick` should be sent now. One request at a time."""
        if self.in_flight is not None:
            return False
        handover = self._uncovered_handover(tick)
        lead = self.delay.ticks() + self.config.margin_ticks
        return handover is None or self._active(tick) >= handover - lead

    def request(self, tick: int) -> Request:
        """Open a request for the observation taken at `tick`; it replaces one that is still open."""
        self.in_flight = Request(
            seq=self._next_seq, episode=self.episode, tick=tick, active_tick=self._advance(tick)
        )
        self._next_seq += 1
        return self.in_flight

    def request_ended(self, seq: int) -> None:
        """Note that request `seq` will not be answered. Any other number is ignored."""
        if self.in_flight is not None and self.in_flight.seq == seq:
            self.in_flight = None

    def merge(self, chunk: ActionChunk, request: Request, tick: int) -> MergeOutcome:
        """Take the chunk that answers `request`, received before `tick` is executed.

        It takes over when its time has come (see `action_at`); an older chunk that waits is replaced.
        """
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
            return Action(values=run.chunk.actions[row], tick=tick, seq=run.chunk.seq, row=row)
        self._running = None
        self._starved = True
        return None

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
        if waiting is None:
            return
        horizon = self.config.action_horizon
        if running is not None and active < running.handover(running.started, horizon):
            return
        self._waiting = None
        if not self._expired(waiting, tick):
            self._running = _Run(waiting.chunk, waiting.first, started=active)

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
