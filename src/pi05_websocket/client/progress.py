# SPDX-License-Identifier: Apache-2.0
"""Whether a connection still carries anything: for how long the other kernel has acknowledged nothing. Pure.

A kernel acknowledges while its server computes, and while that does not read: only a path that is cut, or a
machine that is gone, is silent while something is on the way. TCP itself then waits twice as long each time
before it tries again, 0.2, 0.4, … 3.2 s, so that after a cut of some seconds it notices late that the path is
whole; a new connection notices at once.
"""

from __future__ import annotations

from pi05_websocket.tcp_facts import Sent

__all__ = ["Progress"]


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
