# SPDX-License-Identifier: Apache-2.0
"""How long a message travels."""

from __future__ import annotations

from pi05_websocket.chunks.travel import TravelEstimator


def test_half_of_what_the_server_did_not_use() -> None:
    """The way is what is left of the round trip, halved; the shortest of the window counts."""
    travel = TravelEstimator(window=2)
    assert travel.one_way_ms() == 0.0
    travel.add(round_trip_ms=300.0, server_ms=100.0)
    travel.add(round_trip_ms=500.0, server_ms=100.0)
    assert travel.one_way_ms() == 100.0
    assert repr(travel) == "<TravelEstimator 100.0 ms>"


def test_an_old_short_one_is_forgotten() -> None:
    """A link that became slower is noticed after the window."""
    travel = TravelEstimator(window=2)
    for round_trip_ms in (20.0, 200.0, 220.0):
        travel.add(round_trip_ms=round_trip_ms, server_ms=0.0)
    assert travel.one_way_ms() == 100.0


def test_a_server_that_claims_more_than_the_round_trip() -> None:
    """Clocks differ in speed; nothing travels in less than no time."""
    travel = TravelEstimator()
    travel.add(round_trip_ms=10.0, server_ms=11.0)
    assert travel.one_way_ms() == 0.0
