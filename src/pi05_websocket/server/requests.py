# SPDX-License-Identifier: Apache-2.0
"""A request on its way through the server, and what can become of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from pi05_websocket.wire.protocol import ServerProtocol
from pi05_websocket.wire.realtime import RealtimeRequest
from pi05_websocket.wire.refusals import Refusal

__all__ = ["Answered", "Asker", "Done", "Failed", "Outcome", "Refused", "Request"]


class Asker(Protocol):
    """Who sent a request, compared by identity."""

    number: int
    """Which connection of this run of the server it is, from 1."""

    state: dict[str, Any]
    """What the policy remembers of this connection; see `PolicyRequest.state`."""

    def deliver(self, request: Request, outcome: Outcome, /) -> None:
        """Take the outcome of one request. Called on the event loop."""

    def __hash__(self) -> int: ...


@dataclass(slots=True, eq=False, kw_only=True)
class Request:
    """One observation that waits for its actions."""

    connection: Asker
    """Whose it is; requests of one connection are answered in order."""

    number: int
    """Which request of its connection it is, from 1."""

    protocol: ServerProtocol
    payload: bytes | bytearray | str
    arrived: float
    """`time.perf_counter()` when its last byte was there."""

    priority: int
    """Rank of its class, see `sessions.PRIORITIES`."""

    refusal: Refusal | None = None
    """What to answer instead of asking the policy. It waits for its turn all the same: the n-th answer belongs
    to the n-th request."""

    observation: dict[str, Any] = field(default_factory=dict)
    """As the policy gets it; empty until it is decoded."""

    packed: dict[str, Any] | None = None
    """The same while its images are still encoded; None: it is not read yet, or there is nothing to unpack."""

    realtime: RealtimeRequest | None = None
    """What the robot says about it; None until it is decoded, and from a stock client."""

    tag: Any = None
    """What comes back in its answer; known once it is decoded, in dialects that number requests."""

    episode: str | None = None
    """The episode it belongs to, likewise."""

    @property
    def deadline(self) -> float | None:
        """When its answer must leave to be of any use, on the clock of `arrived`; None: whenever."""
        return None if self.realtime is None else self._leaving_by(self.realtime.deadline_ms)

    @property
    def due(self) -> float | None:
        """When its answer must leave so that the arm goes on without a hold; None: the robot does not say."""
        return None if self.realtime is None else self._leaving_by(self.realtime.leftover_ms)

    def _leaving_by(self, after_sent_ms: float | None) -> float | None:
        if self.realtime is None or after_sent_ms is None:
            return None
        # The way back is taken to be as long as the way here; no clocks are compared.
        return self.arrived + (after_sent_ms - 2 * self.realtime.age_ms) / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The reply to send."""

    message: bytes
    queue_ms: float
    infer_ms: float

    batch: int = 1
    """How many requests shared the inference; 0: not known, another server did it."""

    actions: Any = None
    """The chunk, as the policy returned it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The error to send; the connection is closed after it, where the dialect closes."""

    text: str
    cause: str
    """The last line of it, for the log."""

    message: bytes | None = None
    """What is sent in the place of the text, in dialects whose errors are binary."""

    closes: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """What to send for a request that was not let through; the connection stays."""

    refusal: Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A request that asked for no actions, such as a reset."""

    message: bytes | str | None
    """What to send; None: nothing."""

    begins_episode: bool = False


Outcome = Answered | Failed | Refused | Done
