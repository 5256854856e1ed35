# SPDX-License-Identifier: Apache-2.0
"""Leftovers of several robots side by side, and how long a pass of theirs will take."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.lerobot

from lerobot_policy_pi05_websocket.serving_prefix import ExpectedTime, padded  # noqa: E402
from pi05_websocket.wire.realtime import RealtimeRequest  # noqa: E402


def following(leftover: np.ndarray) -> RealtimeRequest:
    """Ask to follow these rows."""
    return RealtimeRequest(
        seq=1,
        leftover=leftover.astype(np.float32),
        delay=1,
        execution_horizon=1,
        control_hz=30.0,
    )


def test_shorter_leftovers_repeat_their_last_row() -> None:
    """Zeros would be a pose."""
    both = padded([following(np.array([[1, 2], [3, 4], [5, 6]])), following(np.array([[7, 8]]))])
    assert both.tolist() == [[[1, 2], [3, 4], [5, 6]], [[7, 8], [7, 8], [7, 8]]]


def test_a_leftover_alone_is_a_copy() -> None:
    """What came over the wire may be read-only."""
    leftover = np.ones((2, 2), np.float32)
    leftover.flags.writeable = False
    padded([following(leftover)])[0, 0, 0] = 9.0
    assert leftover.max() == 1.0


def test_nothing_measured_nothing_expected() -> None:
    """The robot's own estimate stands then."""
    assert ExpectedTime().ms(follows=True, rows=1) is None


@pytest.mark.parametrize(
    ("follows", "rows", "expected"),
    [
        (True, 1, 30.0),  # measured
        (True, 2, 30.0),  # the nearest with a prefix
        (True, 9, 90.0),
        (True, 5, 90.0),  # between two, the larger: rather pin a row too many
        (True, 64, 90.0),
        (False, 16, 50.0),  # measured
        (False, 1, 50.0),  # the nearest without one, not the one with as many rows
    ],
)
def test_the_pass_most_like_it_counts(follows: bool, rows: int, expected: float) -> None:
    """With a prefix before without, then by the number of rows."""
    times = ExpectedTime()
    times.add(30.0, follows=True, rows=1)
    times.add(90.0, follows=True, rows=9)
    times.add(50.0, follows=False, rows=16)
    assert times.ms(follows=follows, rows=rows) == expected


def test_a_pass_of_the_other_kind_is_better_than_none() -> None:
    """Until there is one with a prefix, one without says how long it takes."""
    times = ExpectedTime()
    times.add(50.0, follows=False, rows=4)
    assert times.ms(follows=True, rows=1) == 50.0
    assert repr(times).startswith("<ExpectedTime {(False, 4)")
