# SPDX-License-Identifier: Apache-2.0
"""The token bucket, over tables and over any course of time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.server.rate import TokenBucket


@pytest.mark.parametrize(
    ("rate", "times", "let_through"),
    [
        (2, [0, 0, 0], [True, True, False]),
        (2, [0, 0, 0.4, 0.5, 0.5], [True, True, False, True, False]),
        (0.5, [0, 1, 2], [True, False, True]),
        (1, [0, 100, 100], [True, True, False]),
        (1, [5, 4, 5.9, 6], [True, False, False, True]),
    ],
)
def test_requests_over_time(rate: float, times: list[float], let_through: list[bool]) -> None:
    """A second's worth at once, then as many as the rate allows; time that goes back adds nothing."""
    bucket = TokenBucket(rate, times[0])
    assert [bucket.take(now) for now in times] == let_through


def test_another_rate_gives_nothing_away() -> None:
    """What was used up stays used up, and a smaller bucket holds less."""
    bucket = TokenBucket(2, 0)
    assert [bucket.take(0), bucket.take(0)] == [True, True]
    bucket.set_rate(10, 0)
    assert [bucket.take(0), bucket.take(0.1)] == [False, True]
    bucket.set_rate(1, 100)
    assert [bucket.take(100), bucket.take(100)] == [True, False]
    assert repr(bucket) == "<TokenBucket rate=1 tokens=0.00>"


@given(
    st.floats(0.01, 1e4),
    st.lists(st.floats(-1, 10, allow_nan=False), min_size=1, max_size=60),
)
def test_never_more_than_the_rate(rate: float, steps: list[float]) -> None:
    """In any stretch: no more than a second's worth, one at least, and the rate times its length."""
    bucket, now, passed = TokenBucket(rate, 0), 0.0, [0.0]
    latest = 0.0
    for step in steps:
        now += step
        latest = max(latest, now)
        if bucket.take(now):
            passed.append(latest)
    let_through = passed[1:]
    for i, first in enumerate(let_through):
        for j in range(i, len(let_through)):
            allowed = max(rate, 1) + rate * (let_through[j] - first)
            assert j - i + 1 <= allowed * (1 + 1e-9) + 1e-6
