# SPDX-License-Identifier: Apache-2.0
"""What a call and the router in its process tell each other."""

from __future__ import annotations

import contextvars
import time

import pytest

from pi05_websocket.engine_ray.ejection import Replicas
from pi05_websocket.engine_ray.tickets import (
    Ticket,
    chosen,
    gone,
    issue,
    replicas_of,
    share,
    ticket_numbered,
    withdraw,
)


@pytest.fixture
def replicas() -> Replicas:
    """Of an application of this process."""
    made = Replicas(eject_s=60.0, longest_eject_s=60.0, shuffle=lambda names: names.sort())
    share("app", made)
    return made


def test_a_call_is_told_who_was_chosen(replicas: Replicas) -> None:
    """Its own ticket, and no other's; each call is a context of its own."""
    tickets = [Ticket(), Ticket()]

    def call(ticket: Ticket, name: str) -> None:
        issue(ticket)
        assert ticket_numbered(ticket.number) is ticket
        chosen("app", name)

    for ticket, name in zip(tickets, "ab", strict=True):
        contextvars.Context().run(call, ticket, name)
    assert [ticket.replica for ticket in tickets] == ["a", "b"]
    assert [replicas.unanswered(name) for name in "ab"] == [1, 1]
    withdraw(tickets[0])
    assert ticket_numbered(tickets[0].number) is None


def test_another_choice_for_the_same_call(replicas: Replicas) -> None:
    """Where the first was full or not there, Ray asks the next by itself."""

    def call() -> None:
        ticket = Ticket()
        issue(ticket)
        chosen("app", "a")
        gone("app", "a")
        gone("app", "b")  # of another call
        chosen("app", "b")
        assert ticket.replica == "b"

    contextvars.Context().run(call)
    assert [replicas.unanswered(name) for name in "ab"] == [0, 1]
    assert replicas.order("ab", time.monotonic()) == ["b", "a"]


def test_calls_and_applications_that_are_not_ours(replicas: Replicas) -> None:
    """Nothing is noted, and nothing breaks."""
    contextvars.Context().run(chosen, "app", "a")
    contextvars.Context().run(gone, "app", "a")
    assert replicas.unanswered("a") == 0
    assert replicas_of("another") is None
