# SPDX-License-Identifier: Apache-2.0
"""All robots together, second by second."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from told import answered, refused

from pi05_websocket.ops.fleet import Fleet


def test_nothing_happened() -> None:
    """Every rate is 0, and the history has its sixty seconds."""
    totals = Fleet().totals(1000.0)
    assert (totals.per_second, totals.busy, totals.batches) == (0.0, 0.0, {})
    assert totals.history == [0] * 60


def test_rates_are_of_the_last_ten_whole_seconds() -> None:
    """The second that has just begun would pull them down."""
    fleet = Fleet()
    for second in range(80, 101):
        fleet.add([answered(second + 0.5)])
    totals = fleet.totals(100.9)
    assert (totals.per_second, totals.asked) == (1.0, 10)
    assert totals.bytes_in_per_second == 1000.0
    assert totals.bytes_out_per_second == 100.0
    assert totals.busy == pytest.approx(0.05)
    assert sum(totals.history) == 20
    assert totals.history[-1] == 1


def test_a_shared_inference_is_one_inference() -> None:
    """Four requests report the same 50 ms; the policy was at work for 50 ms, not 200."""
    fleet = Fleet()
    for _ in range(4):
        fleet.add([answered(99.5, batch=4)])
    fleet.add([answered(99.5)])
    totals = fleet.totals(100.0)
    assert totals.batches == {1: 1, 4: 1}
    assert totals.busy == pytest.approx(0.01)


def test_a_gateway_infers_nothing() -> None:
    """What its upstreams do is neither its batches nor its policy's time."""
    fleet = Fleet()
    fleet.add([answered(99.5, batch=0)])
    totals = fleet.totals(100.0)
    assert (totals.asked, totals.batches, totals.busy) == (1, {}, 0.0)


def test_what_is_told_too_late_is_left_out() -> None:
    """Its second has been given to another."""
    fleet = Fleet()
    fleet.add([answered(100.5)])
    fleet.add([answered(39.5)])
    assert sum(fleet.totals(101.0).history) == 1


def test_outcomes() -> None:
    """Refused, failed and late are counted apart."""
    fleet = Fleet()
    fleet.add([refused("busy", 99.5)])
    fleet.add([refused("KeyError", 99.5, outcome="failed")])
    fleet.add([answered(99.5, due_ms=1.0)])
    totals = fleet.totals(100.0)
    assert (totals.asked, totals.refused, totals.failed, totals.missed) == (3, 1, 1, 1)
    assert repr(fleet) == "<Fleet seconds=1>"


@given(st.lists(st.integers(0, 300), max_size=100))
def test_history_counts_the_last_minute(times: list[int]) -> None:
    """However long ago it began: each of the last sixty seconds has what came in it."""
    fleet = Fleet()
    for at in sorted(times):
        fleet.add([answered(at + 0.5, total_ms=0.0)])
    now = max(times, default=0) + 1
    expected = [times.count(second) for second in range(now - 60, now)]
    assert fleet.totals(now).history == expected
