# SPDX-License-Identifier: Apache-2.0
"""A share of all requests, and a burst."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.retry_budget import RetryBudget


def test_a_tenth_of_all_requests_and_a_burst() -> None:
    """64 at once, then one in ten."""
    budget = RetryBudget(0.1, 64)
    assert [budget.spend() for _ in range(65)] == [True] * 64 + [False]
    for _ in range(9):
        budget.earn()
    assert not budget.spend()
    for _ in range(2):
        budget.earn()
    assert budget.spend()
    assert repr(budget) == "<RetryBudget 0.1>"


@given(st.lists(st.booleans(), max_size=400))
def test_retries_never_exceed_their_share(asked: list[bool]) -> None:
    """However requests and retries come: no more than a burst and a tenth of the requests."""
    budget = RetryBudget(0.1, 64)
    requests = retries = 0
    for request in asked:
        if request:
            budget.earn()
            requests += 1
        else:
            retries += budget.spend()
        assert retries <= 64 + requests * 0.1 + 1e-6
