# SPDX-License-Identifier: Apache-2.0
"""Whether a connection still carries anything: for how long the other kernel has acknowledged nothing. Pure.

A kernel acknowledges while its server computes, and while that does not read: only a path that is cut, or a
machine that is gone, is silent while something is on the way. TCP itself then waits twice as long each time
before it tries again, 0.2, 0.4, … 3.2 s, so that after a cut of some seconds it notices late that the path is
whole; a new connection notices at once.
"""

from __future__ import annotations

import math
from typing import Final

from pi05_websocket.tcp_facts import Sent

__all__ = ["Patience", "Progress"]

_TRIPS: Final = 4.0
"""A kernel that loses segments now and then has sent them again twice in so many round trips and a second."""
_MOST_DOUBLINGS: Final = 6


class Progress:
    """What the last looks have shown of one connection."""

    def __init__(self) -> None:
        self._acknowledged = -1
        self._since = 0.0

    def __repr__(self) -> str:
        return f"<Progress acknowledged={self._acknowledged} since={self._since:.3f}>"

    def look(self, now: float, sent: Sent) -> float:
        """Return for how many seconds something was on the way and nothing was acknowledged.

        Args:
            now: Monotonic seconds; never earlier than at the last look.
            sent: What has become of what was sent.
        """
        if not sent.in_flight or sent.acknowledged != self._acknowledged:
            self._acknowledged, self._since = sent.acknowledged, now
        return now - self._since


class Patience:
    """How long a connection may be silent before it is renewed.

    Twice as long after each renewal that no answer followed: a path on which only small packets arrive needs
    the kernel's own remedies, which take some seconds.

    Args:
        first_s: Seconds beyond four round trips; None: as long as it takes.
    """

    def __init__(self, first_s: float | None) -> None:
        self._first_s = first_s
        self._doublings = 0

    def __repr__(self) -> str:
        return f"<Patience {self.limit_s(0.0):g} s>"

    def limit_s(self, round_trip_s: float) -> float:
        """Return it for a path with this round trip, in seconds."""
        if self._first_s is None:
            return math.inf
        return float((self._first_s + _TRIPS * round_trip_s) * 2**self._doublings)

    def renewed(self) -> None:
        """Note that a connection was renewed because it was silent."""
        self._doublings = min(self._doublings + 1, _MOST_DOUBLINGS)

    def answered(self) -> None:
        """Note that a request was answered."""
        self._doublings = 0
