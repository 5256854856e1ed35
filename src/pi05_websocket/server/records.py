# SPDX-License-Identifier: Apache-2.0
"""What a server tells whoever watches it: who came and went, what became of each request. Pure.

Told on the event loop, once each, to callables that must return at once. What they want to keep of an
observation or a chunk they copy: its memory is used again two requests later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Closed", "Listener", "Opened", "Record", "RequestRecord"]


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
class RequestRecord:
    """What became of one request. Durations in milliseconds."""

    connection: int
    number: int
    """Which request of its connection, from 1."""

    outcome: Literal["answered", "refused", "failed"]
    why: str = ""
    """Kind of the refusal, or the failure in one line; partly the client's words."""

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

    observation: dict[str, Any] | None = None
    """As the policy got it; None where it was not decoded."""
    actions: Any = None
    """The chunk, as the policy returned it; None where there is none."""

    @property
    def missed(self) -> bool:
        """Whether the arm had to hold because the reply left too late; not where it could not be in time."""
        return self.due_ms is not None and 0 < self.due_ms < self.total_ms


Record = Opened | Closed | RequestRecord

Listener = Callable[[Record], None]
