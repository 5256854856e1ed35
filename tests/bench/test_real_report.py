# SPDX-License-Identifier: Apache-2.0
"""Real and virtual episodes side by side."""

from __future__ import annotations

from typing import Any

import pytest

from pi05_websocket.bench.cells import Cell, Episode
from pi05_websocket.bench.links import LINKS, Link
from pi05_websocket.bench.real import RealEpisode
from pi05_websocket.bench.real_report import (
    compare,
    comparison_table,
    modelled_round_trips,
    quantile,
    round_trip_table,
)

CELL = Cell(task="belt", horizon=50, link=LINKS["wan"], rule="ours", seam="blend")
KIND = "kernel TCP over TUN, bbr"


def facts(seed: int, success: bool, trips: list[float]) -> dict[str, Any]:
    """Return what every episode has."""
    return {
        "cell": CELL.key,
        "seed": seed,
        "success": success,
        "time_s": 2.0,
        "ticks": 50,
        "held_ticks": 5,
        "requests": len(trips),
        "round_trips_ms": trips,
    }


def real(seed: int, success: bool) -> RealEpisode:
    """Return an episode over real sockets."""
    more: dict[str, Any] = {"tick_to_send_ms": [9.0, 11.0], "infer_ms": [5.0, 60.0]}
    return RealEpisode(**facts(seed, success, [700.0, 800.0]), **more, late_ticks=1)


def virtual(seed: int, success: bool) -> Episode:
    """Return the same on the virtual clock."""
    return Episode(**facts(seed, success, [650.0, 660.0]))


def test_the_same_seeds_are_compared():
    """A seed that only one of them has does not count."""
    found = compare(
        CELL,
        [real(seed, True) for seed in range(10)],
        [virtual(seed, seed != 3) for seed in range(12)],
        kind=KIND,
    )

    assert (found["real"]["successes"], found["real"]["episodes"]) == (10, 10)
    assert (found["virtual"]["successes"], found["virtual"]["episodes"]) == (9, 10)
    assert found["difference"][0] == pytest.approx(0.1)
    assert found["agrees"]
    assert found["real"]["round_trip_ms"]["median"] == 800.0
    assert found["virtual"]["round_trip_ms"]["p90"] == 660.0
    assert found["tick_to_send_ms"] == {"median": 11.0, "p95": 11.0}
    assert found["infer_ms"] == {"median": 60.0, "max": 60.0}
    assert (found["slower_than_charged"], found["late_ticks"], found["kind"]) == (10, 10, KIND)


def test_cells_that_differ_are_told():
    """Never against always is no chance."""
    found = compare(
        CELL,
        [real(seed, False) for seed in range(20)],
        [virtual(seed, True) for seed in range(20)],
        kind=KIND,
    )

    text = comparison_table([found])
    assert not found["agrees"]
    assert "| belt/50/wan/ours/blend | 0/20 (0% to 16%) | 20/20 (84% to 100%) | -100%" in text
    assert "| 10% / 10% | - / 2.0 s | 800 ms / 660 ms | 11 ms | DIFFERS |" in text
    assert "0 of 1 cells agree" in text
    assert "20 ticks of 1020 were skipped, 20 inferences took more than the 50 ms" in text


def test_a_cell_whose_replies_never_came():
    """Nothing is made up."""
    nothing = RealEpisode(**facts(0, False, []))

    found = compare(CELL, [nothing], [virtual(0, False)], kind=KIND)

    assert found["infer_ms"] == {"median": None, "max": None}
    assert "| - / 660 ms | " not in comparison_table([found])
    assert "- ms / 660 ms" in comparison_table([found])


def test_round_trips_stand_beside_the_model():
    """For links that were measured."""
    slow = Link(name="slow", rtt_ms=100, mbit=100)
    modelled = modelled_round_trips(slow, 5)
    measured = {"slow": {"kind": KIND, "first_ms": 400.4, "round_trips_ms": [2 * modelled[0]] * 9}}

    lines = round_trip_table(measured, [slow, LINKS["lan"]]).splitlines()

    assert len(modelled) == 5
    assert len(lines) == 3
    assert lines[2].startswith("| slow (100 ms) | 400 ms | ")
    assert "| +100% |" in lines[2]
    assert lines[2].endswith(f"| {KIND} |")


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 3.0), (0.9, 5.0), (1.0, 5.0)])
def test_quantiles(share: float, expected: float):
    """Values that were measured, none between them."""
    assert quantile([5.0, 1.0, 4.0, 2.0, 3.0], share) == expected


def test_nothing_has_no_quantile():
    """None."""
    assert quantile([], 0.5) is None
