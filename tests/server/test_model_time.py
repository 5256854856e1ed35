# SPDX-License-Identifier: Apache-2.0
"""What a batch is expected to take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.server.model_time import ModelTimes


def times(*measured: tuple[int, float], group: str = "g") -> ModelTimes:
    """What was measured, in this order."""
    made = ModelTimes()
    for size, seconds in measured:
        made.add(group, size, seconds)
    return made


@pytest.mark.parametrize(
    ("measured", "size", "expected"),
    [
        ([], 4, 0.0),
        ([(1, 0.020)], 1, 0.020),
        ([(1, 0.020)], 8, 0.020),  # never tried: as quick as one, so that it is tried
        ([(8, 0.040)], 2, 0.010),  # never tried: in proportion
        ([(1, 0.020), (4, 0.080)], 2, 0.040),  # between the two
        ([(1, 0.020), (4, 0.080)], 5, 0.100),  # as it went on
        ([(2, 0.050), (4, 0.030)], 4, 0.050),  # a larger batch is never quicker
        ([(1, 9.0), (1, 0.020), (1, 0.030), (1, 0.025)], 1, 0.025),  # the first one compiled
    ],
)
def test_expected_seconds(measured: list[tuple[int, float]], size: int, expected: float) -> None:
    """Medians of what was measured, straight lines between."""
    assert times(*measured).expect("g", size) == pytest.approx(expected)


def test_groups_are_apart() -> None:
    """Following a running chunk costs a second pass through the model; the others do not pay for it."""
    made = times((1, 0.020))
    made.add("rtc", 1, 0.060)
    assert (made.expect("g", 1), made.expect("rtc", 1)) == (0.020, 0.060)
    assert made.expect("never seen", 1) == 0.0
    assert repr(made) == "<ModelTimes {'g': [(1, 0.02)], 'rtc': [(1, 0.06)]}>"


@given(
    st.lists(st.tuples(st.integers(1, 32), st.floats(0.001, 10.0)), min_size=1, max_size=40),
    st.integers(1, 63),
)
def test_a_larger_batch_is_never_expected_sooner(
    measured: list[tuple[int, float]], size: int
) -> None:
    """Whatever noise was measured; the planner may rely on it."""
    made = times(*measured)
    assert 0.0 < made.expect("g", size) <= made.expect("g", size + 1) + 1e-12


def test_groups_are_forgotten_in_the_end() -> None:
    """A client that sends images of ever other sizes costs no memory; who is served stays known."""
    made = ModelTimes()
    for number in range(1000):
        made.add("fleet", 1, 0.020)
        made.add(("size", number), 1, 0.030)
    assert (made.expect("fleet", 1), made.expect(("size", 999), 1)) == (0.020, 0.030)
    assert sum(made.expect(("size", number), 1) > 0.0 for number in range(1000)) == 63
