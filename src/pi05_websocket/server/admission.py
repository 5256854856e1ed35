# SPDX-License-Identifier: Apache-2.0
"""Whether another robot comes in, by what the server has to do already. Pure.

In: how long requests have waited, and how long others do already. Out: nothing, or HTTP 503 with a reason and
the time to try again, in the place of the WebSocket: a robot that is let in is to be served well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from statistics import median

from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.keys import Refusal

__all__ = ["FULL", "Admission"]

FULL = Refusal(
    503,
    "This policy server has as many robots as it takes (--max-connections).\n",
    "as many robots are connected as it takes",
    retry_after_s=10.0,  # somebody has to leave first, and robots stay for minutes
    reason="full",
)
"""What one robot more than `max_connections` is told."""

_WINDOW_S = 5.0
_FEW = 8
"""Fewer waits that are over say nothing about the load."""


class Admission:
    """Remembers the waits of the last seconds."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._waits: deque[tuple[float, float]] = deque(maxlen=4096)

    def __repr__(self) -> str:
        return f"<Admission waits={len(self._waits)}>"

    def waited(self, now: float, seconds: float) -> None:
        """Note how long a request waited for the policy; it was taken at `now`."""
        self._forget(now)
        self._waits.append((now, seconds))

    def queue_s(self, now: float, waiting: Sequence[float] = ()) -> float:
        """Return the median wait in seconds: of the requests of the last seconds, and of those that wait still.

        Of a policy that hangs no wait is ever over. The few that are over count for nothing: the first
        inference may have compiled, and what waited for it has its answer.

        Args:
            now: The time.
            waiting: For how long each connection with something waiting has.
        """
        self._forget(now)
        over = [seconds for _, seconds in self._waits] if len(self._waits) >= _FEW else []
        return median([*over, *waiting]) if over or waiting else 0.0

    def _forget(self, now: float) -> None:
        while self._waits and now - self._waits[0][0] > _WINDOW_S:
            self._waits.popleft()

    def refuse(self, now: float, waiting: Sequence[float] = ()) -> Refusal | None:
        """Say why one more does not come in; None: it does. The arguments are those of `queue_s`."""
        bound_s = self._config.max_queue_s
        queue_s = self.queue_s(now, waiting)
        if queue_s > bound_s:
            return Refusal(
                503,
                f"This policy server is busy: requests wait {queue_s:.2f} s for the policy, "
                f"and beyond {bound_s:g} s (--max-queue-s) nobody else comes in.\n",
                f"requests wait {queue_s:.2f} s",
                retry_after_s=_WINDOW_S,
                reason="busy",
            )
        return None
