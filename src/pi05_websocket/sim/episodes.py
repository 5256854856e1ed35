# SPDX-License-Identifier: Apache-2.0
"""When an episode of the simulated arm begins, succeeds, ends, and when somebody lays out the next cube.

In: moments, commands, and whether the cube is lifted. Out: events. Pure; owned by whoever steps the physics.

An arm is never moved by magic: between episodes only the cube changes its place. What a robot cannot know is
how the program that drives it divides time, so there are three rules (`NextEpisode`):

    done   one second after success, or when time is up: for programs without episodes
           (`lerobot-rollout --strategy.type=base`); the arm goes on from where it is
    idle   when no command has come for half a second: for programs that let the arm rest between episodes
           (`--strategy.type=episodic` returns it home and then only watches)
    never  when `begin_next` is called
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

__all__ = ["EpisodeEvent", "EpisodeKeeper", "EpisodeRules", "NextEpisode", "Phase"]

NextEpisode = Literal["done", "idle", "never"]

EventKind = Literal["began", "moved", "succeeded", "ended", "next"]


class Phase(Enum):
    """Where an episode stands."""

    WAITING = "waiting"
    """The cube lies there; nobody has moved the arm yet. Time does not count: a server may be warming up."""
    RUNNING = "running"
    OVER = "over"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRules:
    """When episodes end and the next one comes."""

    next_episode: NextEpisode = "done"
    """What the next episode waits for; see the module."""

    time_limit_s: float = 10.0
    """Seconds of motion after which an episode has failed."""

    settle_s: float = 1.0
    """Seconds between success and the episode's end: the cube is to be seen in the air."""

    idle_s: float = 0.5
    """Seconds without a command that count as rest, for the rule `idle`."""


@dataclass(frozen=True, slots=True)
class EpisodeEvent:
    """Something happened to an episode; `next` asks for its cube, `moved` for the cube's second place."""

    kind: EventKind
    episode: int
    time_s: float
    success: bool = False
    duration_s: float = 0.0
    """Seconds since the episode began: to success for a success, to the end otherwise."""


class EpisodeKeeper:
    """Follows one episode after another. Times are seconds on any one clock.

    Args:
        rules: When episodes end.
        nudge_after_s: For an episode's number, how many seconds after its beginning somebody moves the cube;
            None: nobody does.
    """

    def __init__(
        self, rules: EpisodeRules, nudge_after_s: Callable[[int], float] | None = None
    ) -> None:
        self.rules = rules
        self._nudge_after_s = nudge_after_s
        self._nudge_s: float | None = None
        """When the cube is to be moved; None: not any more."""
        self.episode = 0
        self.phase = Phase.WAITING
        self._began_s = 0.0
        self._success_s: float | None = None
        self._last_command_s = 0.0

    def __repr__(self) -> str:
        return f"<EpisodeKeeper episode={self.episode} {self.phase.value}>"

    @property
    def succeeded(self) -> bool:
        """Whether the current episode has succeeded."""
        return self._success_s is not None

    def commanded(self, now_s: float, *, moves: bool) -> list[EpisodeEvent]:
        """Note a command. The first one that moves the arm begins the episode: holding still does not."""
        self._last_command_s = now_s
        if self.phase is Phase.WAITING and moves:
            return [self._begin(now_s)]
        return []

    def observed(self, now_s: float, *, lifted: bool) -> list[EpisodeEvent]:
        """Note one step of the physics; return what follows from it."""
        events: list[EpisodeEvent] = []
        if self.phase is Phase.RUNNING:
            if self._nudge_s is not None and now_s >= self._nudge_s:
                self._nudge_s = None
                if not lifted and self._success_s is None:
                    events.append(self._event("moved", now_s))
            if lifted and self._success_s is None:
                self._success_s = now_s
                events.append(self._event("succeeded", now_s))
            if self._is_over(now_s):
                events.append(self._end(now_s))
        if self._is_next_due(now_s):
            events.extend(self.begin_next(now_s))
        return events

    def begin_next(self, now_s: float) -> list[EpisodeEvent]:
        """End what is running and go to the next episode. With the rule `done` it runs at once."""
        events = [self._end(now_s)] if self.phase is Phase.RUNNING else []
        self.episode += 1
        self.phase = Phase.WAITING
        self._success_s = None
        events.append(EpisodeEvent("next", self.episode, now_s))
        if self.rules.next_episode == "done":
            events.append(self._begin(now_s))
        return events

    def _is_over(self, now_s: float) -> bool:
        if self._success_s is not None:
            return now_s - self._success_s >= self.rules.settle_s
        return now_s - self._began_s >= self.rules.time_limit_s

    def _is_next_due(self, now_s: float) -> bool:
        if self.rules.next_episode == "done":
            return self.phase is Phase.OVER
        if self.rules.next_episode == "idle" and self.phase is not Phase.WAITING:
            return now_s - self._last_command_s >= self.rules.idle_s
        return False

    def _begin(self, now_s: float) -> EpisodeEvent:
        self.phase = Phase.RUNNING
        self._began_s = now_s
        self._success_s = None
        if self._nudge_after_s is not None:
            self._nudge_s = now_s + self._nudge_after_s(self.episode)
        return EpisodeEvent("began", self.episode, now_s)

    def _end(self, now_s: float) -> EpisodeEvent:
        self.phase = Phase.OVER
        return self._event("ended", now_s)

    def _event(self, kind: EventKind, now_s: float) -> EpisodeEvent:
        until = now_s if self._success_s is None else self._success_s
        return EpisodeEvent(kind, self.episode, now_s, self.succeeded, until - self._began_s)
