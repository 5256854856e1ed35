# SPDX-License-Identifier: Apache-2.0
"""Tables, the aim, the plot and the results file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pi05_websocket.bench.cells import Cell, Episode, summary
from pi05_websocket.bench.links import LINKS
from pi05_websocket.bench.report import aim, draw, paired_difference, plot, table, write_results


def figures(link: str, rule: str, successes: int, task: str = "belt") -> dict[str, Any]:
    """Return a cell's summary with so many successes of ten."""
    seam = "blend" if rule == "ours" else "replace"
    cell = Cell(task=task, horizon=50, link=LINKS[link], rule=rule, seam=seam)  # type: ignore[arg-type]
    return summary(
        cell,
        [
            Episode(
                cell=cell.key,
                seed=i,
                success=i < successes,
                time_s=2.0,
                ticks=70,
                held_ticks=7,
                requests=4,
                seam_jumps=[1.0],
                row_jumps=2.0,
            )
            for i in range(10)
        ],
    )


ALL = [
    figures("local", "ours", 10),
    figures("wan", "ours", 9),
    figures("wan", "openpi", 4),
    figures("wan", "lerobot", 0),
]


def test_a_table_has_rules_down_and_links_across():
    """What was not measured is n/a."""
    text = table(ALL, "belt", 50)

    lines = text.splitlines()
    assert lines[0] == "| | local (0.1 ms) | wan (200 ms) |"
    assert lines[2].startswith("| OpenPI ActionChunkBroker | n/a | 40%, 2.0 s, 10% held, seam 0.5")
    assert lines[4].startswith("| ours, blend | 100%")
    assert "0%, -," in lines[3]


def test_several_policies_have_rows_of_their_own():
    """Each has all of them; the aim is the expert's alone."""
    learned = {**figures("wan", "ours", 8), "policy": "smolvla", "seam": "rtc"}

    lines = table([*ALL, learned], "belt", 50).splitlines()

    assert len(lines) == 2 + 2 * 4
    assert lines[4].startswith("| expert: ours, blend | 100%")
    assert lines[5] == "| expert: ours, rtc | n/a | n/a |"
    assert lines[9].startswith("| smolvla: ours, rtc | n/a | 80%")
    assert aim([*ALL, {**learned, "seam": "blend"}]) == aim(ALL)


def test_images_as_jpeg_have_a_row_of_their_own():
    """Below the raw ones, and lines of their own about the aim; a file from before JPEG knows no others."""
    jpeg = {**figures("wan", "ours", 8), "images": "jpeg"}
    old = [{key: value for key, value in f.items() if key != "images"} for f in ALL]

    lines = table([*old, jpeg], "belt", 50).splitlines()

    assert lines[4].startswith("| ours, blend | 100%")
    assert lines[5].startswith("| ours, blend, jpeg | n/a | 80%")
    assert aim([jpeg, *old]) == aim(ALL), "there is no local cell to hold it against"
    local = {**figures("local", "ours", 10), "images": "jpeg"}
    assert aim([jpeg, local, *old])[0].startswith(
        "belt, jpeg, 200 ± 50 ms, 1% loss: 80.0% of local"
    )


def test_the_aim_is_held_against_local():
    """Nine of ten of local is 90 %."""
    lines = aim(ALL)

    assert len(lines) == 1
    assert "90.0% of local (aim 98%; 9 of 10" in lines[0]


def test_a_paired_difference_has_an_interval():
    """Four of ten against nine of ten."""
    difference, low, high = paired_difference([(i < 4, i < 9) for i in range(10)])

    assert difference == pytest.approx(0.5)
    assert low < 0.5 < high
    assert paired_difference([]) == (0.0, -1.0, 1.0)


def test_the_plot_is_a_picture(tmp_path: Path):
    """With both tasks and a rule that never succeeded."""
    pytest.importorskip("matplotlib")
    jpeg = {**figures("wan", "ours", 8), "images": "jpeg"}
    plot([*ALL, jpeg, figures("wan", "ours", 10, task="cube")], tmp_path / "success.png")

    assert (tmp_path / "success.png").read_bytes().startswith(b"\x89PNG")


def test_bounds_are_explained_below_the_plot():
    """No note stands in the axes, where its own line and the curves would cross it."""
    pytest.importorskip("matplotlib")
    figure = draw([*ALL, figures("wan", "ours", 10, task="belt")])

    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words[-2].startswith("half a chunk, 0.83 s")
    assert words[-1] == "1.25 s: the belt has carried the cube out of the jaws"
    assert [len(axes.texts) for axes in figure.axes] == [0] * len(figure.axes)


def test_results_name_commit_and_machine(tmp_path: Path):
    """A list of cells, readable by anybody."""
    write_results(tmp_path / "results.json", ALL)

    facts = json.loads((tmp_path / "results.json").read_text())
    assert len(facts["cells"]) == 4
    assert facts["commit"]
    assert "cores" in facts["machine"]
