# SPDX-License-Identifier: Apache-2.0
"""Which upstream is asked, how long it may take, and whether another one is asked after it. Pure.

In: what became of each request, the time. Out: an upstream's number, seconds, yes or no.

    cold ──────► sound ──────► ejected ──────► on trial ──────► sound
         answers       late, lost,    some             a copy of
                       or errors      seconds          a request is answered
                       in a row

Robots are given to sound upstreams, to the one that will probably answer first. One that is not sound gets a
copy of a request now and then, whose answer nobody waits for: no robot pays for finding out. While no upstream
is sound there is no choice, and those that are not are asked.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from pi05_websocket.retry_budget import RetryBudget

__all__ = ["BalanceSettings", "Balancer", "Standing", "Turnaround"]

_SMOOTHING = 0.3
_HALF_LIFE_S = 10.0
"""An upstream that was slow and has not been asked since is thought half as slow after this time."""

_PATIENCE = 3.0
"""So many times its usual turnaround an upstream may take, before another is asked."""

_SPARED = 0.25
"""Share of the time until a deadline that is left for another upstream, at least."""

_ERRORS = 3
"""So many errors in a row are an upstream's own fault: one is as likely a fault of the request."""

_EJECTED_S = 1.0
_LONGEST_EJECTED_S = 30.0

_RETRY_SHARE = 0.1
"""More than this share of all requests is not asked for twice: a storm would make a slow pool slower."""
_RETRY_BURST = 64.0
"""What may be asked for again at once: as many requests as a server had under way when it died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceSettings:
    """How patient to be. Seconds."""

    timeout_s: float = 1.0
    first_timeout_s: float = 600.0


class Turnaround:
    """How long an upstream takes from being sent a request to its reply: a mean that forgets.

    The first is dropped once there is a second: a model compiles, allocates and reads weights in it.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._at = 0.0

    def __repr__(self) -> str:
        return f"<Turnaround {self._mean:.4f} s of {self._count}>"

    def add(self, now: float, seconds: float) -> None:
        """Record one."""
        self._count += 1
        if self._count <= 2:
            self._mean = seconds
        else:
            self._mean += _SMOOTHING * (seconds - self._mean)
        self._at = now

    def expected_s(self, now: float) -> float:
        """Return what to expect; 0 before anything was measured, so that it is tried."""
        return self._mean * math.exp2(-max(now - self._at, 0.0) / _HALF_LIFE_S)

    @property
    def usual_s(self) -> float:
        """What it took lately, for patience; 0 while only the first is known."""
        return self._mean if self._count > 1 else 0.0


@dataclass(slots=True, kw_only=True)
class Standing:
    """What is known of one upstream."""

    turnaround: Turnaround = field(default_factory=Turnaround)
    under_way: int = 0
    """Requests of robots."""

    warm: bool = False
    """Whether it has answered since it came."""

    strikes: int = 0
    """How often it failed since it last answered in time."""

    errors: int = 0
    """How many errors or refusals it gave in a row."""

    ejected_until: float = 0.0
    probing: bool = False
    """Whether a copy of a request is under way to it."""

    last_asked: int = 0

    @property
    def sound(self) -> bool:
        """Whether robots may rely on it."""
        return self.warm and self.strikes == 0


class Balancer:
    """Knows how each upstream stands. Upstreams are numbered from 0; times are monotonic seconds."""

    def __init__(self, count: int, settings: BalanceSettings) -> None:
        self.standings = tuple(Standing() for _ in range(count))
        self.budget = RetryBudget(_RETRY_SHARE, _RETRY_BURST)
        self._settings = settings
        self._asked = 0

    def __repr__(self) -> str:
        sound = sum(standing.sound for standing in self.standings)
        return f"<Balancer sound={sound} of {len(self.standings)}>"

    # --------------------------------------------------------------------------------------- who is asked

    def choose(
        self,
        usable: Sequence[int],
        free: Sequence[int],
        now: float,
        avoid: Collection[int] = (),
    ) -> int | None:
        """Return whom to ask; None: wait.

        Args:
            usable: Those that are connected and serve the policy.
            free: Those of them that can take one more.
            avoid: Those that have failed this request; asked again only if there is nobody else.
        """
        others = [number for number in usable if number not in avoid] or usable
        among = [number for number in free if number in others]
        if self._any_sound(others):
            among = [number for number in among if self.standings[number].sound]
        return min(among, key=lambda number: self._rank(number, now), default=None)

    def has_alternative(self, usable: Sequence[int], number: int) -> bool:
        """Whether somebody else can be relied on."""
        return self._any_sound([other for other in usable if other != number])

    def trial(self, usable: Sequence[int], free: Sequence[int], now: float) -> int | None:
        """Return who is to get a copy of a request, to find out whether it answers; None: nobody."""
        if not self._any_sound(usable):
            return None  # they are asked for real
        for number in free:
            standing = self.standings[number]
            if not standing.sound and not standing.probing and now >= standing.ejected_until:
                return number
        return None

    def expected_s(self, usable: Sequence[int], now: float) -> float:
        """Return the seconds until a reply, from the quickest that can be relied on; 0: nobody knows."""
        sound = [number for number in usable if self.standings[number].sound]
        return min(
            (self.standings[number].turnaround.expected_s(now) for number in sound), default=0.0
        )

    def patience_s(self, number: int, now: float, deadline: float | None = None) -> float:
        """Return how long an upstream that is asked now may take before somebody else is asked.

        Args:
            deadline: When the reply must leave at the latest. Somebody else needs time too.
        """
        standing = self.standings[number]
        usual_s = _PATIENCE * standing.turnaround.usual_s
        patience_s = max(
            self._settings.timeout_s, usual_s
        )  # also of a cold one: there may be others
        if deadline is None or usual_s == 0.0:
            return patience_s
        left_s = deadline - now
        spare_s = max(1.5 * standing.turnaround.usual_s, _SPARED * left_s)
        return min(patience_s, max(left_s - spare_s, usual_s))

    def longest_s(self, number: int) -> float:
        """Return how long a reply may take where nobody waits for it, or where nobody else could answer."""
        if not self.standings[number].warm:
            return self._settings.first_timeout_s
        return self.patience_s(number, 0.0)

    # ------------------------------------------------------------------------------------- what became of it

    def came(self, number: int) -> None:
        """Note that an upstream is there that was not: it may be another process, with all to compile."""
        standing = self.standings[number]
        standing.warm, standing.probing, standing.strikes, standing.errors = False, False, 0, 0
        standing.turnaround = Turnaround()

    def asked(self, number: int) -> None:
        """Note a robot's request to it."""
        self._asked += 1
        self.budget.earn()
        standing = self.standings[number]
        standing.under_way += 1
        standing.last_asked = self._asked

    def ended(self, number: int) -> None:
        """Note that a robot's request to it is over, however."""
        self.standings[number].under_way -= 1

    def tried(self, number: int) -> None:
        """Note that a copy of a request is under way to it."""
        self.standings[number].probing = True

    def answered(self, number: int, now: float, seconds: float) -> None:
        """Note a reply in time, and how long it took."""
        standing = self.standings[number]
        standing.warm, standing.probing, standing.strikes, standing.errors = True, False, 0, 0
        standing.turnaround.add(now, seconds)

    def erred(self, number: int, now: float) -> bool:
        """Note an error or a refusal: it is there, and that says neither that it is well nor how long it takes.

        Returns:
            Whether robots could rely on it until now, and cannot any more.
        """
        standing = self.standings[number]
        standing.errors += 1
        if standing.sound and standing.errors < _ERRORS:
            return False
        return self.failed(number, now)

    def late(self, number: int, now: float, seconds: float) -> None:
        """Note a reply that nobody waits for any more: it says how long it takes, not that it is well again.

        Unless it is the first: that is allowed to be late.
        """
        standing = self.standings[number]
        standing.turnaround.add(now, seconds)
        if not standing.warm:
            standing.warm, standing.probing, standing.strikes = True, False, 0

    def failed(self, number: int, now: float) -> bool:
        """Note that it did not answer in time, or hung up.

        Returns:
            Whether robots could rely on it until now.
        """
        standing = self.standings[number]
        was_sound = standing.sound
        if (
            was_sound or standing.probing or standing.strikes == 0
        ):  # else: others of the same failure
            standing.strikes += 1
            ejected_s = _EJECTED_S * 2.0 ** min(standing.strikes - 1, 16)
            standing.ejected_until = now + min(ejected_s, _LONGEST_EJECTED_S)
        standing.probing = False
        return was_sound

    # -----------------------------------------------------------------------------------------------------

    def _any_sound(self, numbers: Sequence[int]) -> bool:
        return any(self.standings[number].sound for number in numbers)

    def _rank(self, number: int, now: float) -> tuple[int, float, int, int]:
        standing = self.standings[number]
        seconds = standing.turnaround.expected_s(now) * (standing.under_way + 1)
        return standing.strikes, seconds, standing.under_way, standing.last_asked
