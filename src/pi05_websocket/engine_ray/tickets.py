# SPDX-License-Identifier: Apache-2.0
"""What the calls of an ingress and Ray's routers in its process know of each other.

Ray sends the router's class as a copy, its module's variables with it: what has to be shared is here. On the
event loop of the ingress.
"""

from __future__ import annotations

import contextvars
import itertools
import time
from dataclasses import dataclass

from pi05_websocket.engine_ray.ejection import Replicas

__all__ = [
    "Ticket",
    "chosen",
    "gone",
    "issue",
    "replicas_of",
    "share",
    "ticket_numbered",
    "withdraw",
]


@dataclass(slots=True, eq=False)
class Ticket:
    """One call: which replicas are not to be chosen again, and which one was."""

    number: int = 0
    """Travels with the call."""

    tried: tuple[str, ...] = ()
    before: str | None = None
    """Who answered this robot's last request."""

    replica: str | None = None
    asked_at: float = 0.0
    """Monotonic seconds."""


_numbers = itertools.count(1)
_replicas: dict[str, Replicas] = {}
_tickets: dict[int, Ticket] = {}

# Ray tells its router who was chosen, but not for whom; each call is a task of its own.
_current: contextvars.ContextVar[Ticket | None] = contextvars.ContextVar("ticket", default=None)


def share(application: str, replicas: Replicas) -> None:
    """Let the routers of an application choose by this."""
    _replicas[application] = replicas


def replicas_of(application: str) -> Replicas | None:
    """Return what was shared; None for an application that is not ours."""
    return _replicas.get(application)


def issue(ticket: Ticket) -> None:
    """Number a ticket, for the call that this task is about to make."""
    ticket.number = next(_numbers)
    _tickets[ticket.number] = ticket
    _current.set(ticket)


def withdraw(ticket: Ticket) -> None:
    """Forget it: the call is over."""
    _tickets.pop(ticket.number, None)


def ticket_numbered(number: int) -> Ticket | None:
    """Return the ticket of a call."""
    return _tickets.get(number)


def chosen(application: str, replica: str) -> None:
    """Note that the call of this task is sent to a replica."""
    ticket, replicas = _current.get(), _replicas.get(application)
    if ticket is None or replicas is None:
        return
    if ticket.replica is not None:  # Ray asks another one by itself where the first refuses
        replicas.done(ticket.replica)
    ticket.replica, ticket.asked_at = replica, time.monotonic()
    replicas.asked(replica, ticket.asked_at)


def gone(application: str, replica: str) -> None:
    """Note that the replica to which the call of this task was sent is not there: Ray tries again by itself."""
    ticket, replicas = _current.get(), _replicas.get(application)
    if ticket is not None and replicas is not None and ticket.replica == replica:
        replicas.failed(replica, ticket.asked_at, time.monotonic())
