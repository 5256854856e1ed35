# SPDX-License-Identifier: Apache-2.0
"""One request to a pool, and in time the first valid reply of whoever answers it.

In: an observation, the rows left. Out: what `Exchange` gives, whichever server it comes from.
Completed on the servers' loop threads, read from any; `done` and `result` are what lets the pool look at it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pi05_websocket.client.exchange import Exchange, Reply
from pi05_websocket.errors import DeadlineExceeded, DecodeError
from pi05_websocket.wire.realtime import REALTIME_KEY, split_realtime, with_realtime

if TYPE_CHECKING:
    from pi05_websocket.client.pool import PolicyPool

__all__ = ["Asked", "PoolExchange", "kept", "said_to"]

_LOOK_EVERY_S = 0.005
"""How often somebody who waits looks whether another server has to be asked."""


@dataclass(slots=True, eq=False)
class Asked:
    """One server that was asked."""

    number: int
    exchange: Exchange
    overdue: bool = False
    """Whether its not answering has been noted."""


class PoolExchange:
    """One request and, in time, its reply."""

    def __init__(self, pool: PolicyPool, observation: dict[str, Any]) -> None:
        self.observation = observation
        self.asked: list[Asked] = []
        """In order."""
        self.passed_over: dict[int, Exception] = {}
        """Who could not be sent the observation, and why."""
        self.left_s: float | None = None
        """How long the rows last that are left; None: nobody says."""
        self.server: str | None = None
        """Whose reply counts."""
        self.sent_at = time.monotonic()
        self.limit = 0.0
        """Seconds after which the reply counts as late."""
        self.nbytes = 0
        self.quality: int | None = None
        self.future: Future[Reply] = Future()
        self._pool = pool

    def __repr__(self) -> str:
        state = "done" if self.future.done() else f"waiting {self.age():.2f} s"
        return f"<PoolExchange {state} asked={[asked.number for asked in self.asked]}>"

    def rows_last(self, seconds: float) -> None:
        """Note how long the rows last that are left; `done` decides by it."""
        self.left_s = seconds

    def age(self) -> float:
        """Return the seconds since the request was handed over."""
        return time.monotonic() - self.sent_at

    def done(self) -> bool:
        """Say whether `result` returns or raises at once; ask another server where it is time to."""
        if not self.future.done():
            self._pool.look_after(self)
        return self.future.done()

    def result(self, timeout: float | None = None) -> Reply:
        """Wait for the reply.

        Raises:
            DeadlineExceeded: It did not come within `timeout`; it may still come.
            Pi05WebsocketError: It will not come, and why.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.done():
            left = _LOOK_EVERY_S if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise self.late(timeout)
            try:
                return self.future.result(min(left, _LOOK_EVERY_S))
            except TimeoutError as exc:
                if isinstance(exc, DeadlineExceeded):  # a connection's own verdict, not ours
                    raise
        return self.future.result()

    def late(self, allowed_s: float | None = None) -> DeadlineExceeded:
        """Return the error that says it is late, and which setting allows more time."""
        if self.asked:
            return self.asked[-1].exchange.late(self.limit if allowed_s is None else allowed_s)
        return DeadlineExceeded("request", allowed_s or 0.0, "No server could be asked.")

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the exchange is done, on a loop thread, or at once if it is."""
        self.future.add_done_callback(lambda _: callback())


def kept(observation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the observation as it is now: the robot may write into its arrays before it is asked again."""
    return {
        key: value.copy() if isinstance(value, np.ndarray) else value
        for key, value in observation.items()
    }


def said_to(observation: dict[str, Any], *, realtime: bool, waited_s: float) -> dict[str, Any]:
    """Return the observation for a server that is asked `waited_s` after it was made for another.

    Args:
        observation: It, with `_rt` where the first one announces that.
        realtime: Whether this one does.
        waited_s: 0 for the first.
    """
    if REALTIME_KEY not in observation:
        return observation
    if realtime and waited_s == 0.0:
        return observation
    try:
        stock, said = split_realtime(observation)
    except DecodeError:  # not ours: as its maker wants it
        return observation
    if said is None or not realtime:
        return stock
    waited_ms = 1000 * waited_s
    aged = replace(
        said,
        age_ms=said.age_ms + waited_ms,
        deadline_ms=None if said.deadline_ms is None else max(said.deadline_ms - waited_ms, 1.0),
        leftover_ms=None if said.leftover_ms is None else max(said.leftover_ms - waited_ms, 0.0),
    )
    return with_realtime(stock, aged)
