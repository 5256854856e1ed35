# SPDX-License-Identifier: Apache-2.0
"""Which of several servers is asked, which one stands by, and when a second one is asked as well. Pure.

In: what became of each request, the time, the rows left. Out: a server's number, yes or no.

    cold ──────► sound ─────────────────► ejected ──────► on trial ──────► sound
         answers       lost, or two late          some             a copy of
                       or wrong in a row          seconds          a request is answered

One server is asked, the primary, for as long as it is sound: a plan is best continued by whoever made it. One
that is not sound gets a copy of a request now and then, whose answer nobody waits for. While none is sound
there is no choice, and those that are not are asked.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from pi05_websocket.retry_budget import RetryBudget

__all__ = ["Failover", "FailoverSettings", "Standing"]

_SMOOTHING = 0.3
_ERROR_SMOOTHING = 0.1
_WINDOW = 64
_FEWEST = 4
"""Answers before anybody knows what is late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverSettings:
    """How patient to be. Seconds."""

    quantile: float = 0.95
    """An answer is late when it takes longer than this share of the server's answers did."""

    safety_s: float = 0.15
    """Of rows that shall be left when the second server has answered."""

    hedge_share: float = 0.05
    """Of all requests may be sent to a second server before the first one has failed."""

    hedge_burst: float = 2.0
    """So many may be in a row: what it takes to eject a server that is frozen."""

    strikes: int = 2
    """Answers in a row that did not come in time, until a server is ejected."""

    ejected_s: float = 1.0
    """Time until an ejected server is tried; doubles with each failed trial."""

    longest_ejected_s: float = 30.0

    much_faster: float = 0.5
    """A sound server replaces a sound primary if it takes less than this share of its time,"""

    worthwhile_s: float = 0.02
    """and so much less: among servers that are near, chance decides who is the fastest."""


@dataclass(slots=True)
class Standing:
    """What is known of one server."""

    times: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    """Seconds that its last answers took."""

    mean_s: float = 0.0
    """The same smoothed; 0 before the first."""

    error_rate: float = 0.0
    """Share of its requests that failed, smoothed."""

    warm: bool = False
    """Whether it has answered since it came."""

    strikes: int = 0
    ejections: int = 0
    """How often in a row; 0: it is not ejected."""

    ejected_until: float = 0.0
    probing: bool = False
    """Whether a copy of a request is under way to it."""

    @property
    def sound(self) -> bool:
        """Whether it can be relied on."""
        return self.warm and self.ejections == 0

    def late_s(self, quantile: float) -> float | None:
        """Return after how long an answer is late; None: not known yet."""
        if len(self.times) < _FEWEST:
            return None
        return sorted(self.times)[min(len(self.times) - 1, int(quantile * len(self.times)))]


class Failover:
    """Knows how each server stands. Servers are numbered from 0; times are monotonic seconds."""

    def __init__(self, count: int, settings: FailoverSettings | None = None) -> None:
        self.standings = tuple(Standing() for _ in range(count))
        self.primary: int | None = None
        """Who was asked last."""
        self._settings = settings or FailoverSettings()
        self._budget = RetryBudget(self._settings.hedge_share, self._settings.hedge_burst)

    def __repr__(self) -> str:
        sound = sum(standing.sound for standing in self.standings)
        return f"<Failover primary={self.primary} sound={sound} of {len(self.standings)}>"

    # ------------------------------------------------------------------------------------------ who is asked

    def choose(self, there: Sequence[int]) -> int | None:
        """Return whom to ask; None: nobody is there.

        Args:
            there: Those that are connected and serve the policy.
        """
        best = min(there, key=self._rank, default=None)
        kept = self.primary
        if best is None or kept is None or kept not in there:
            return best
        if self._rank(kept)[0] > self._rank(best)[0]:
            return best
        new_s, old_s, settings = self._cost_s(best), self._cost_s(kept), self._settings
        faster = new_s < settings.much_faster * old_s and old_s - new_s > settings.worthwhile_s
        return best if faster else kept

    def standby(self, there: Sequence[int], asked: Collection[int]) -> int | None:
        """Return who is asked if those that were do not answer; None: there is nobody else."""
        return min((n for n in there if n not in asked), key=self._rank, default=None)

    def trial(self, there: Sequence[int], asked: int, now: float) -> int | None:
        """Return who is to get a copy of a request, to find out whether it answers; None: nobody."""
        if not self.standings[asked].sound:
            return None  # one thing at a time: nobody knows whether the primary answers
        for number in there:
            standing = self.standings[number]
            waits = standing.sound or standing.probing or now < standing.ejected_until
            if number != asked and not waits:
                return number
        return None

    def is_late(self, number: int, elapsed_s: float) -> bool:
        """Say whether a server takes longer than its answers do; not while nobody knows how long that is."""
        late_s = self.standings[number].late_s(self._settings.quantile)
        return late_s is not None and elapsed_s > late_s

    def hedge(self, asked: int, standby: int, elapsed_s: float, left_s: float) -> bool:
        """Say whether to ask a second server now, and take that out of the budget.

        Args:
            asked: Who has not answered.
            standby: Who would be asked.
            elapsed_s: Since when.
            left_s: How long the rows last that are left.
        """
        second, settings = self.standings[standby], self._settings
        if not self.is_late(asked, elapsed_s) or not second.sound:
            return False
        if left_s - second.mean_s >= settings.safety_s:
            return False
        return self._budget.spend()

    # --------------------------------------------------------------------------------------- what became of it

    def came(self, number: int) -> None:
        """Note a new connection: it may be another process, with all to compile."""
        standing = self.standings[number]
        standing.warm = standing.probing = False
        standing.strikes = standing.ejections = 0
        standing.mean_s = 0.0
        standing.times.clear()

    def asked(self, number: int) -> None:
        """Note a request to whom `choose` named."""
        self.primary = number
        self._budget.earn()

    def tried(self, number: int) -> None:
        """Note that a copy of a request is under way to it."""
        self.standings[number].probing = True

    def answered(self, number: int, seconds: float) -> None:
        """Note an answer in time, also to a copy."""
        standing = self.standings[number]
        if not standing.warm or standing.ejections:
            # What it took to compile, or to come back, says nothing about the next.
            standing.times.clear()
            standing.mean_s = seconds
        else:
            weight = 1.0 if len(standing.times) == 0 else _SMOOTHING
            standing.mean_s += weight * (seconds - standing.mean_s)
            standing.times.append(seconds)
        standing.warm, standing.probing = True, False
        standing.strikes = standing.ejections = 0
        standing.error_rate -= _ERROR_SMOOTHING * standing.error_rate

    def late(self, number: int, now: float) -> bool:
        """Note no answer in time, or one that does not count; return whether that ejects it."""
        standing = self.standings[number]
        standing.strikes += 1
        self._failed(standing)
        if standing.strikes < self._settings.strikes and not standing.probing:
            return False
        return self._eject(standing, now)

    def lost(self, number: int, now: float) -> bool:
        """Note that it hung up; return whether that ejects it: once is enough."""
        standing = self.standings[number]
        self._failed(standing)
        return self._eject(standing, now)

    # -----------------------------------------------------------------------------------------------------

    def _failed(self, standing: Standing) -> None:
        standing.error_rate += _ERROR_SMOOTHING * (1.0 - standing.error_rate)

    def _eject(self, standing: Standing, now: float) -> bool:
        was_sound = standing.sound
        standing.ejections += 1
        settings = self._settings
        seconds = settings.ejected_s * math.exp2(min(standing.ejections - 1, 16))
        standing.ejected_until = now + min(seconds, settings.longest_ejected_s)
        standing.probing = False
        return was_sound

    def _cost_s(self, number: int) -> float:
        """Return what an answer takes, with what its failures cost."""
        standing = self.standings[number]
        return standing.mean_s / (1.0 - min(standing.error_rate, 0.9))

    def _rank(self, number: int) -> tuple[int, float, int]:
        standing = self.standings[number]
        state = 0 if standing.sound else 1 if standing.ejections == 0 else 2
        return state, self._cost_s(number) if standing.sound else standing.ejections, number
