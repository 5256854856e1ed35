# SPDX-License-Identifier: Apache-2.0
"""What a server tells whoever watches it: who came and went, what became of each request. Pure.

Told on the event loop, once each, to callables that must return at once. What they want to keep of an
observation or a chunk they copy: its memory is used again two requests later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

__all__ = [
    "DISCONNECTED",
    "Closed",
    "Listener",
    "Opened",
    "Record",
    "RequestRecord",
    "ServerState",
    "TurnedAway",
    "UpstreamStanding",
]

DISCONNECTED = "an operator has disconnected this robot"
"""Why a connection ended that a person closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A client has come."""

    connection: int
    """Which connection of this run of the server it is, from 1."""

    who: str
    """Name of its key; `anonymous` without."""

    peer: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A client has gone."""

    connection: int
    why: str
    """Close code and reason, or what happened. Partly the client's words: quote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnedAway:
    """A client was not let in."""

    reason: str
    """In a word: `key`, `path`, `full`, `busy`, `unready`; or the HTTP status."""

    why: str
    """What the log says of it."""


# A struct: made for each request on the robots' event loop, in a sixth of a dataclass's time (0.4 us, not 2.3).
class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one request. Durations in milliseconds."""

    connection: int
    number: int
    """Which request of its connection, from 1."""

    outcome: Literal["answered", "refused", "failed"]
    why: str = ""
    """Kind of the refusal, or the failure in one line; partly the client's words."""

    arrived: float = 0.0
    """`time.perf_counter()` when its last byte was there."""

    queue_ms: float = 0.0
    """From its last byte to the start of inference."""
    infer_ms: float = 0.0
    """At a gateway: from sending it to an upstream to the reply."""
    total_ms: float = 0.0
    """From its last byte to its reply's hand-over to the network."""

    batch: int = 1
    """How many requests shared the inference; 0: not known, another server did it."""

    bytes_in: int = 0
    bytes_out: int = 0

    age_ms: float | None = None
    """How old the observation was when it came, as the robot estimates: the way here. None: it does not say."""

    due_ms: float | None = None
    """How long after its arrival the reply had to leave so that the arm need not hold; None: the robot does not
    say. Below 0: it had nothing to execute when it asked."""

    traceparent: str | None = None
    """The robot's trace, of which this is a part, in W3C form; None: it does not say."""

    observation: dict[str, Any] | None = None
    """As the policy got it; None where it was not decoded."""
    actions: Any = None
    """The chunk, as the policy returned it; None where there is none."""

    @property
    def policy_ms(self) -> float:
        """Its share of the policy's time: everybody in a batch reports the whole inference. At a gateway 0."""
        return self.infer_ms / self.batch if self.batch else 0.0

    @property
    def missed(self) -> bool:
        """Whether the arm had to hold because the reply left too late; not where it could not be in time."""
        return self.due_ms is not None and 0 < self.due_ms < self.total_ms


Record = Opened | Closed | TurnedAway | RequestRecord

Listener = Callable[[Record], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamStanding:
    """How one of the servers behind a gateway stands."""

    url: str
    """As it was given."""

    usable: bool
    """Whether it is there and serves the policy."""

    sound: bool
    """Whether robots are given to it: it has answered, and in time."""

    trouble: str = ""
    """Why not, where that is known."""

    connections: int = 0
    under_way: int = 0
    """Requests that it is asked and has not answered."""

    turnaround_s: float = 0.0
    """What is expected of it, in seconds; 0: it has not answered yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """How a server is, for who asks."""

    at: float
    """`time.perf_counter()` on the event loop."""

    unready: str | None
    """Why nobody is let in, as the end of a sentence; None: robots are welcome."""

    paused: bool
    draining: bool
    can_pause: bool

    waiting: int
    """Requests that wait and are not being worked on."""

    unanswered: Mapping[int, int]
    """Number of each connection to how many of its requests are not answered yet."""

    metadata: Mapping[str, Any]
    """What a client that comes now is told."""

    upstreams: Sequence[UpstreamStanding] = ()
    """The servers behind it, in their order; none where a policy answers."""
