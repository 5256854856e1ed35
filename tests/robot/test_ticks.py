# SPDX-License-Identifier: Apache-2.0
"""Which tick a call is, and whether the loop keeps its rate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi05_websocket.errors import ConfigError
from pi05_websocket.robot.ticks import RateMonitor, WallTicks

PERIOD = 1 / 30


@given(st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=200))
def test_jitter_gives_consecutive_ticks(jitter: list[float]):
    """Calls up to a fifth of a period early or late are still one tick each."""
    ticks = WallTicks(30)
    ticks.at(0.0)

    seen = [ticks.at((i + shift) * PERIOD) for i, shift in enumerate(jitter, start=1)]

    assert seen == list(range(1, len(jitter) + 1))


@pytest.mark.parametrize(
    ("rate", "expected"), [(30, 300), (20, 300), (28, 300), (60, 300), (31, 300)]
)
def test_ticks_follow_the_clock(rate: float, expected: int):
    """After ten seconds 300 ticks have passed, whatever the loop's rate."""
    ticks = WallTicks(30)
    last = [ticks.at(i / rate) for i in range(int(10 * rate) + 1)][-1]

    assert abs(last - expected) <= 1


@given(st.lists(st.floats(0, 3), max_size=60))
def test_ticks_never_go_back(gaps: list[float]):
    """Time only adds ticks, and never more than have passed."""
    ticks, now, last = WallTicks(30), 0.0, 0
    ticks.at(0.0)
    for gap in gaps:
        now += gap
        tick = ticks.at(now)
        assert last <= tick <= now * 30 + 1
        last = tick


def test_impossible_rate_is_refused():
    """A control rate of nothing cannot be kept."""
    with pytest.raises(ConfigError, match="control_hz=0"):
        WallTicks(0)


@pytest.mark.parametrize(("rate", "told"), [(30, False), (27, False), (50, True), (15, True)])
def test_wrong_rate_is_told_once(rate: float, told: bool):
    """LeRobot's usual 27 Hz at 30 are fine, half the rate is not."""
    monitor = RateMonitor(30, window=20)

    reports = [monitor.observe(i / rate) for i in range(100)]

    observed = [report for report in reports if report is not None]
    assert observed == ([pytest.approx(rate)] if told else [])


def test_pause_between_episodes_is_no_rate():
    """After a restart the gap before it does not count."""
    monitor = RateMonitor(30, window=5)
    monitor.observe(0.0)
    monitor.restart()

    assert [monitor.observe(60 + i * PERIOD) for i in range(10)] == [None] * 10


def test_calls_at_the_same_moment_are_infinitely_fast():
    """A clock that stands still is reported, not divided by."""
    monitor = RateMonitor(30, window=3)

    assert [monitor.observe(1.0) for _ in range(4)][-1] == float("inf")
