# SPDX-License-Identifier: Apache-2.0
"""The order in which waiting requests are taken."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.server.mailbox import Mailbox


def test_connections_take_turns() -> None:
    """The docstring's picture."""
    mailbox: Mailbox[str] = Mailbox()
    for request in ("a1", "a2", "a3", "b1", "c1", "b2"):
        mailbox.push(request[0], request)
    assert repr(mailbox) == "<Mailbox requests=6 connections=3>"
    assert [mailbox.pop() for _ in range(7)] == ["a1", "b1", "c1", "a2", "b2", "a3", None]


def test_dropping_forgets_one_connection() -> None:
    """What waits for a connection that is gone is never taken."""
    mailbox: Mailbox[int] = Mailbox()
    mailbox.push("a", 1)
    mailbox.push("b", 2)
    mailbox.push("a", 3)
    assert mailbox.drop("a") == 2
    assert mailbox.drop("a") == 0
    assert [mailbox.pop(), mailbox.pop()] == [2, None]


@given(st.lists(st.one_of(st.sampled_from("abc"), st.none()), max_size=60))
def test_order_within_and_fairness_between_connections(steps: list[str | None]) -> None:
    """Requests of one connection come in order, and nobody is passed over twice by the same other."""
    mailbox: Mailbox[tuple[str, int]] = Mailbox()
    waiting: dict[str, list[int]] = defaultdict(list)
    served_since: dict[str, dict[str, int]] = {}
    for number, step in enumerate(steps):
        if step is not None:
            mailbox.push(step, (step, number))
            if not waiting[step]:
                served_since[step] = defaultdict(int)
            waiting[step].append(number)
            continue
        taken = mailbox.pop()
        if taken is None:
            assert not any(waiting.values())
            continue
        connection, first = taken
        assert waiting[connection].pop(0) == first
        served_since[connection] = defaultdict(int)
        for other, requests in waiting.items():
            if requests and other != connection:
                served_since[other][connection] += 1
                assert served_since[other][connection] <= 1
    assert len(mailbox) == sum(map(len, waiting.values()))
