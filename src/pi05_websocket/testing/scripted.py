# SPDX-License-Identifier: Apache-2.0
"""A clock and a policy that do as they are told, for tests of whatever asks a policy and follows a clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pi05_websocket.data import Observation, ServerMetadata
from pi05_websocket.errors import DeadlineExceeded, Pi05WebsocketError

__all__ = ["FakeClock", "ScriptedExchange", "ScriptedPolicy", "ScriptedReply"]


class FakeClock:
    """A virtual clock: `sleep` advances it and returns at once."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now

    def __repr__(self) -> str:
        return f"<FakeClock {self._now:.6f}>"

    def now(self) -> float:
        """Return the virtual seconds."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Advance by `seconds`; zero and negative durations do nothing."""
        self._now += max(0.0, seconds)


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """What came back."""

    value: Any
    nbytes: int
    received_at: float


class ScriptedExchange:
    """A request that is answered when the test says so."""

    def __init__(self, observation: Observation, clock: FakeClock, limit: float) -> None:
        self.observation = observation
        self.limit = limit
        self.nbytes = 0
        self.quality: int | None = None
        self.sent_at = clock.now()
        self._clock = clock
        self._outcome: ScriptedReply | Pi05WebsocketError | None = None

    def answer(self, actions: Any, **others: Any) -> None:
        """Answer with these actions; an array, a list, or anything a bad server may send.

        Args:
            actions: The actions.
            others: Further keys of the reply.
        """
        rows = np.asarray(actions, np.float64) if isinstance(actions, list) else actions
        self._outcome = ScriptedReply({"actions": rows, **others}, 0, self._clock.now())

    def fail(self, error: Pi05WebsocketError) -> None:
        """Let it end without an answer."""
        self._outcome = error

    def done(self) -> bool:
        """Say whether it has been answered or has failed."""
        return self._outcome is not None

    def late(self) -> DeadlineExceeded:
        """Return the error that says it is late."""
        return DeadlineExceeded("request", self.limit)

    def age(self) -> float:
        """Return the virtual seconds since it was sent."""
        return self._clock.now() - self.sent_at

    def result(self, timeout: float | None = None) -> ScriptedReply:
        """Return the answer or raise; an open exchange raises `DeadlineExceeded` at once."""
        if self._outcome is None:
            raise DeadlineExceeded("request", self.limit if timeout is None else timeout)
        if isinstance(self._outcome, Pi05WebsocketError):
            raise self._outcome
        return self._outcome


class ScriptedPolicy:
    """A remote policy without a network: collects exchanges for the test to answer."""

    def __init__(self, clock: FakeClock, *, limit: float = 5.0) -> None:
        self.exchanges: list[ScriptedExchange] = []
        self.metadata: ServerMetadata = {}
        """What the server announces; set it."""
        self.down: Pi05WebsocketError | None = None
        """Set it, and no request can be sent."""
        self._clock = clock
        self._limit = limit

    def submit(self, observation: Observation, /) -> ScriptedExchange:
        """Take a request."""
        self.exchanges.append(ScriptedExchange(observation, self._clock, self._limit))
        return self.exchanges[-1]

    def unavailable(self) -> Pi05WebsocketError | None:
        """Return what the test set."""
        return self.down
