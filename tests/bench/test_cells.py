# SPDX-License-Identifier: Apache-2.0
"""The matrix, and what a cell's episodes add up to."""

from __future__ import annotations

import pytest

from pi05_websocket.bench.cells import Cell, Episode, cells, is_aim, summary
from pi05_websocket.bench.links import LINKS
from pi05_websocket.errors import ConfigError

CELL = Cell(task="cube", horizon=50, link=LINKS["wan"], rule="ours", seam="blend")


def episode(seed: int, **facts: object) -> Episode:
    """Return an episode of `CELL`."""
    usual: dict[str, object] = {
        "success": True,
        "time_s": 2.0 + seed,
        "ticks": 70,
        "held_ticks": 1,
        "requests": 4,
    }
    return Episode(cell=CELL.key, seed=seed, **{**usual, **facts})


def test_the_matrix_begins_with_the_aim():
    """Both tasks, 50 rows, blended: here, at 200 and at 400 ms come first."""
    found = cells()

    assert len([cell for cell in found if is_aim(cell)]) == 6
    assert all(is_aim(cell) for cell in found[:6])
    assert len({cell.key for cell in found}) == len(found)


def test_ensembles_are_measured_only_where_they_are_allowed():
    """Up to two ticks of delay; rtc never with the expert."""
    found = cells(rules=["ours"], seams=["ensemble", "rtc"])

    assert {cell.link.name for cell in found} == {"local", "lan", "wifi"}
    assert {cell.seam for cell in found} == {"ensemble"}


def test_a_policy_that_conditions_is_measured_with_rtc_too():
    """Under its own name, in cells of its own; the aim is not stated for it."""
    found = cells(rules=["ours"], seams=["blend", "rtc"], policy="smolvla", conditions=True)

    assert {cell.seam for cell in found} == {"blend", "rtc"}
    assert {cell.key.rsplit("/")[-1] for cell in found} == {"smolvla"}
    assert not any(is_aim(cell) for cell in found)
    assert summary(found[0], [])["policy"] == "smolvla"


def test_peers_have_one_seam():
    """They replace."""
    assert {cell.seam for cell in cells(rules=["openpi", "lerobot", "lerobot-rtc"])} == {"replace"}


def test_only_ours_sends_jpeg():
    """In cells of its own; raw ones are called what they were called before."""
    found = cells(rules=["openpi", "ours"], seams=["blend"], images=["raw", "jpeg"])

    kinds = {(cell.rule, cell.images) for cell in found}
    assert kinds == {("openpi", "raw"), ("ours", "raw"), ("ours", "jpeg")}
    keys = {cell.images: cell.key for cell in found if cell.rule == "ours"}
    assert keys["raw"].endswith("/ours/blend")
    assert keys["jpeg"].endswith("/ours/blend/jpeg")
    assert {cell.horizon for cell in found if cell.images == "jpeg"} == {50}
    assert {cell.images for cell in found if is_aim(cell)} == {"raw", "jpeg"}
    assert not any(is_aim(cell) for cell in found if cell.task == "moved")
    assert {cell.images for cell in cells(images=["jpeg"], rules=["lerobot"])} == {"raw"}


@pytest.mark.parametrize(
    "wrong", [{"rules": ["mine"]}, {"seams": ["smooth"]}, {"images": ["webp"]}]
)
def test_unknown_names_are_refused(wrong: dict[str, list[str]]):
    """With those there are."""
    with pytest.raises(ConfigError, match="expected some of"):
        cells(**wrong)


def test_half_of_a_chunk_is_executed():
    """Where the rule lets one choose."""
    assert (CELL.execute, CELL.key) == (25, "cube/50/wan/ours/blend")


def test_a_summary_has_the_fields_of_the_results_file():
    """Counts, the interval, the median time, the seams' 95th percentile against the rows' 99th."""
    found = summary(
        CELL,
        [
            episode(0, seam_jumps=[1.0, 2.0], row_jumps=2.0, reaction_s=0.4),
            episode(1, seam_jumps=[3.0], row_jumps=2.0, reaction_s=0.6),
            episode(2, success=False),
        ],
    )

    assert found["policy"] == "expert"
    assert (found["task"], found["horizon"], found["link"]) == ("cube", 50, "wan")
    assert (found["rtt_ms"], found["jitter_ms"], found["loss"]) == (200.0, 50.0, 0.01)
    assert (found["rule"], found["seam"], found["images"]) == ("ours", "blend", "raw")
    assert (found["episodes"], found["successes"], found["held_ticks"]) == (3, 2, 3)
    assert found["time_to_success_s"] == 3.0
    assert found["seam_velocity_ratio"] == 1.0
    assert found["reaction_s"] == 0.5
    assert found["wilson_95"][0] < 2 / 3 < found["wilson_95"][1]


def test_a_cell_without_successes_or_seams_says_so():
    """Nothing is made up."""
    found = summary(CELL, [episode(0, success=False)])

    assert found["time_to_success_s"] is None
    assert found["seam_velocity_ratio"] is None
    assert found["reaction_s"] is None
