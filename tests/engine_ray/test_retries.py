# SPDX-License-Identifier: Apache-2.0
"""Slowness must not be answered with more load."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.engine_ray.retries import replica_retries


def test_a_handful_at_once_then_a_share() -> None:
    """Sixteen robots of a frozen replica; after them one retry for ten requests."""
    budget = replica_retries(0.1)
    assert [budget.spend() for _ in range(17)] == [True] * 16 + [False]
    for _ in range(10):
        budget.earn()
    assert not budget.spend() or not budget.spend()
    assert repr(budget) == "<RetryBudget 1.0>"


def test_none_at_all() -> None:
    """A share of 0 turns it off."""
    budget = replica_retries(0.0)
    budget.earn()
    assert not budget.spend()


@given(st.lists(st.booleans(), max_size=300))
def test_no_more_than_the_share_and_a_handful(happened: list[bool]) -> None:
    """In any stretch, whatever the order."""
    budget, requests, retries = replica_retries(0.1), 0, 0
    for is_request in happened:
        if is_request:
            budget.earn()
            requests += 1
        else:
            retries += budget.spend()
        assert retries <= 16 + 0.1 * requests + 1e-6
