# SPDX-License-Identifier: Apache-2.0
"""A policy behind a modelled network, on a clock that is set by hand.

In: observations. Out: exchanges that are done when the link's model says so. The policy computes at once in
real time and is charged a fixed time in the virtual one; it is told the virtual durations only, so a busy
machine changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pi05_websocket.bench.cells import COMPUTE_MS
from pi05_websocket.bench.links import Link, Path
from pi05_websocket.clock import Clock
from pi05_websocket.data import Float32Array, Observation, ServerMetadata
from pi05_websocket.errors import DeadlineExceeded, Pi05WebsocketError

__all__ = ["OBSERVATION_BYTES", "REPLY_BYTES", "Infer", "VirtualExchange", "VirtualPolicy"]

Infer = Callable[[Observation, float], Mapping[str, Any]]
"""An observation and the milliseconds it waited at the server, to what the policy answers."""

OBSERVATION_BYTES = 1_072_400
"""The mission's observation on the wire: 480x640 and 224x224 pixels, raw."""
REPLY_BYTES = 1400
"""50 rows of six float32 and the keys around them."""
_LIMIT_S = 5.0


class _Reply:
    """What a finished exchange holds."""

    def __init__(self, value: dict[str, Any], received_at: float) -> None:
        self.value = value
        self.nbytes = REPLY_BYTES
        self.received_at = received_at


class VirtualExchange:
    """A request under way in virtual time."""

    def __init__(
        self, clock: Clock, nbytes: int, result: Mapping[str, Any], arrives_at: float
    ) -> None:
        self.limit = _LIMIT_S
        self.nbytes = nbytes
        self.sent_at = clock.now()
        self.arrives_at = arrives_at
        self.rows: Float32Array = np.asarray(result["actions"])
        self._result = result
        self._clock = clock

    def __repr__(self) -> str:
        return f"<VirtualExchange {self.sent_at:.3f} to {self.arrives_at:.3f}>"

    def done(self) -> bool:
        """Say whether it has arrived; a hair before counts, for rounding."""
        return self._clock.now() >= self.arrives_at - 1e-9

    def late(self) -> DeadlineExceeded:
        """Return the error that says it is late."""
        return DeadlineExceeded("request", self.limit)

    def age(self) -> float:
        """Return the virtual seconds since it was sent."""
        return self._clock.now() - self.sent_at

    def result(self, timeout: float | None = None) -> _Reply:
        """Return the reply. Virtual time does not pass while anybody waits here."""
        if not self.done():
            raise DeadlineExceeded("request", timeout or 0.0)
        infer = {"server_timing": {"infer_ms": COMPUTE_MS}}
        return _Reply({**self._result, **infer}, self.arrives_at)


class VirtualPolicy:
    """Answers after the link's time, in the order of the requests, as one WebSocket does.

    Args:
        policy: What computes.
        link: The network.
        seed: Of its randomness.
        nbytes: Size of a request on the wire.
        metadata: What the server says first.
    """

    def __init__(
        self,
        policy: Infer,
        link: Link,
        clock: Clock,
        *,
        seed: int,
        nbytes: int = OBSERVATION_BYTES,
        metadata: ServerMetadata | None = None,
    ) -> None:
        self.metadata: ServerMetadata = metadata or {}
        self.exchanges: list[VirtualExchange] = []
        self._policy = policy
        self._clock = clock
        self._up, self._down = Path(link, 2 * seed), Path(link, 2 * seed + 1)
        self._nbytes = nbytes
        self._idle_at = 0.0

    def submit(self, observation: Observation, /) -> VirtualExchange:
        """Send an observation."""
        at_server = self._up.arrival(self._clock.now(), self._nbytes)
        begins = max(at_server, self._idle_at)
        self._idle_at = begins + COMPUTE_MS / 1000
        arrives = self._down.arrival(self._idle_at, REPLY_BYTES)
        result = self._policy(observation, (begins - at_server) * 1000)
        self.exchanges.append(VirtualExchange(self._clock, self._nbytes, result, arrives))
        return self.exchanges[-1]

    def unavailable(self) -> Pi05WebsocketError | None:
        """Return nothing: the link is slow, not away."""
        return None
