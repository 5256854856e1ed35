# SPDX-License-Identifier: Apache-2.0
"""From measured round trips to settings."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.chunks.budget import Budget, Measured, budget, percentile
from pi05_websocket.errors import ConfigError


def measured(*round_trips_ms: float, **facts: object) -> Measured:
    """Return a measurement of the mission's observation over a quiet network."""
    usual: dict[str, object] = {
        "infer_s": 0.05,
        "ping_s": 0.1,
        "bytes_out": 1_072_400,
        "rows": 50,
    }
    return Measured(
        round_trips_s=[value / 1000 for value in round_trips_ms],
        **{**usual, **facts},
    )


def value(found: Budget, setting: str) -> str:
    """Return what is advised for a setting."""
    return next(item.value for item in found.advice if item.setting == setting)


def test_the_worked_example_of_the_topic_page():
    """200 ms round trips at 30 Hz: 6 ticks, 25 of 50 rows, blended, 25 rows in reserve."""
    found = budget(measured(*[200.0] * 20), control_hz=30)

    assert (found.delay, found.action_horizon, found.reserve_ticks) == (6, 25, 25)
    assert found.feasible
    assert value(found, "seam") == "blend"


def test_a_spread_of_round_trips_becomes_margin():
    """One in twenty replies takes twice as long: asked for so much earlier."""
    found = budget(measured(*[200.0] * 19, 400.0), control_hz=30)

    assert (found.delay, found.worst_delay, found.margin_ticks) == (6, 12, 6)


def test_a_chunk_too_short_for_the_delay_says_so():
    """With 10 rows and 8 ticks of delay no setting keeps the arm moving."""
    found = budget(measured(250.0, rows=10), control_hz=30)

    assert not found.feasible
    assert "hold for a part" in found.advice[0].why


@pytest.mark.parametrize(
    ("kind", "rtc", "seam"),
    [("absolute", True, "rtc"), ("absolute", False, "blend"), ("delta", False, "replace")],
)
def test_the_best_seam_there_is(kind: str, rtc: bool, seam: str):
    """RTC where the server has it, blending where targets are absolute, else as it comes."""
    found = budget(measured(100.0), control_hz=30, action_kind=kind, offers_rtc=rtc)

    assert value(found, "seam") == seam


@pytest.mark.parametrize(
    ("round_trip", "facts", "advised"),
    [
        (160.0, {}, "as they are"),
        (400.0, {}, "pad 224x224"),  # 250 ms of 400 for the images
        (400.0, {"infer_s": None}, "as they are"),  # it cannot be told
        (400.0, {"ping_s": None}, "as they are"),
    ],
)
def test_images_are_the_problem_only_where_they_are(
    round_trip: float, facts: dict[str, object], advised: str
):
    """A smaller image is advised when sending it takes more than a quarter of the round trip."""
    assert value(budget(measured(round_trip, **facts), control_hz=30), "cameras") == advised


def test_nothing_measured_is_an_error():
    """No number is made up."""
    with pytest.raises(ConfigError):
        percentile([], 0.5)


@given(
    round_trips=st.lists(st.floats(0.1, 5000), min_size=1, max_size=40),
    rows=st.integers(1, 100),
    hz=st.floats(1, 100),
)
def test_what_is_advised_is_possible(round_trips: list[float], rows: int, hz: float):
    """The horizon lies within the chunk, and within d <= s <= H - d where such a horizon exists."""
    found = budget(measured(*round_trips, rows=rows), control_hz=hz)

    assert 1 <= found.action_horizon <= rows
    assert found.reserve_ticks == rows - found.action_horizon
    assert found.feasible == (found.delay <= rows // 2)
    if found.worst_delay + found.margin_ticks <= rows - found.delay:
        assert found.delay <= max(found.action_horizon, 1)
        assert found.action_horizon <= max(1, rows - found.worst_delay)
    assert math.isfinite(float(value(found, "timeout")))
