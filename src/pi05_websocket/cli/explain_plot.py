# SPDX-License-Identifier: Apache-2.0
"""A recording's story as one picture: commands, pauses coloured by cause, borders of chunks, jumps, requests.

In: a `Story`. Out: a PNG. Needs matplotlib, without a display.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pi05_websocket.recording.story import Story

__all__ = ["CAUSE_COLOURS", "draw_story"]

_JOINT_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
"""Distinguishable without full colour vision (Paul Tol, bright)."""

CAUSE_COLOURS = {
    "first_chunk": "#dddddd",
    "link_down": "#ee8866",
    "server_error": "#ffaabb",
    "server_busy": "#eedd88",
    "chunk_rejected": "#aa99cc",
    "reply_late": "#77aadd",
    "horizon_too_short": "#99ddff",
    "asked_late": "#bbcc33",
    "stopped": "#bb6655",
    "unknown": "#bbbbbb",
}
"""Cause of a pause to its colour (Paul Tol, light)."""

_BORDER = "#8a8f98"
_MOST_BORDERS = 400
"""More lines than that are grey paint."""


def draw_story(story: Story, joints: Sequence[str], path: Path) -> None:
    """Write the picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    origin = float(story.ticks[0]["time_s"])
    figure, (above, below) = pyplot.subplots(
        2, 1, sharex=True, figsize=(14, 8), height_ratios=(3, 1.1), layout="constrained"
    )
    held = sum(story.held_by_cause.values())
    figure.suptitle(
        f"{story.seconds:.1f} s, {len(story.ticks)} ticks, {len(story.exchanges)} answers; held {held} ticks "
        f"in {len(story.pauses)} pauses",
        fontsize=13,
    )
    _commands(above, story, joints, origin)
    for axes in (above, below):
        _pauses(axes, story, origin, named=axes is above)
    _jumps(above, story, origin)
    _requests(below, story, origin)
    for axes in (above, below):
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        axes.grid(alpha=0.25)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _commands(axes: Any, story: Story, joints: Sequence[str], origin: float) -> None:
    times = np.array([tick["time_s"] for tick in story.ticks]) - origin
    width = min(len(tick["values"]) for tick in story.ticks)
    for joint in range(width):
        name = joints[joint] if joint < len(joints) else f"joint {joint}"
        axes.plot(
            times,
            [tick["values"][joint] for tick in story.ticks],
            color=_JOINT_COLOURS[joint % len(_JOINT_COLOURS)],
            ls="-" if joint < len(_JOINT_COLOURS) else "--",
            lw=1.6,
            label=name,
        )
    borders = [
        float(new["time_s"]) - origin
        for old, new in itertools.pairwise(story.ticks)
        if new["seq"] != old["seq"] and new["seq"] >= 0
    ]
    if len(borders) <= _MOST_BORDERS:
        for border in borders:
            axes.axvline(border, color=_BORDER, lw=0.8, ls=(0, (4, 3)), zorder=1)
        axes.plot([], [], color=_BORDER, lw=0.8, ls=(0, (4, 3)), label="a new chunk takes over")
    axes.set_ylabel("commands, action units")
    axes.margins(x=0.01)


def _pauses(axes: Any, story: Story, origin: float, *, named: bool) -> None:
    """Paint each held tick in the colour of its cause."""
    told: set[str] = set()
    held = story.held_by_cause
    for old, new in itertools.pairwise([*story.ticks, None]):
        assert old is not None  # only the last of the pairs has a None, and that on its right
        if old["source"] not in ("hold", "zero"):
            continue
        cause = str(old.get("cause") or "unknown")
        begin = float(old["time_s"]) - origin
        end = begin + 0.03 if new is None else float(new["time_s"]) - origin
        label = f"held: {cause.replace('_', ' ')} ({held.get(cause, 0)})"
        axes.axvspan(
            begin,
            end,
            facecolor=CAUSE_COLOURS.get(cause, CAUSE_COLOURS["unknown"]),
            edgecolor="none",
            alpha=0.6,
            zorder=0,
            label=label if named and cause not in told else None,
        )
        told.add(cause)


def _jumps(axes: Any, story: Story, origin: float) -> None:
    if not story.jumps:
        return
    axes.plot(
        [jump.at_s - origin for jump in story.jumps],
        [jump.after["values"][jump.joint] for jump in story.jumps],
        "o",
        ms=11,
        mfc="none",
        mec="black",
        mew=1.4,
        label="large steps",
    )


def _requests(axes: Any, story: Story, origin: float) -> None:
    answered = [line for line in story.exchanges if line.get("round_trip_ms") is not None]
    times = np.array([line["time_s"] for line in answered]) - origin
    trips = [float(line["round_trip_ms"]) for line in answered]
    inside = [float(line.get("server_ms") or 0.0) for line in answered]
    axes.vlines(times, 0, trips, color="#4477aa", lw=3, alpha=0.35, label="on the way")
    axes.vlines(times, 0, inside, color="#aa3377", lw=3, alpha=0.8, label="inference")
    axes.plot(times, trips, "o", color="#4477aa", ms=5, label="answer")
    if story.failed:
        moments = [float(line["time_s"]) - origin for line in story.failed]
        axes.plot(moments, [0.0] * len(moments), "x", color="#cc3311", ms=9, mew=2, label="failed")
    axes.set_ylim(0, max([*trips, 1.0]) * 1.2)
    axes.set_ylabel("milliseconds")
    axes.set_xlabel("seconds since the first command")
