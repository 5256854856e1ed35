# SPDX-License-Identifier: Apache-2.0
"""A demo as one picture: joints with chunk borders, and the latency of each exchange below.

In: both traces and the story they tell. Out: a PNG. Needs matplotlib, without a display.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from pi05_websocket.cli.demo_story import Story, TraceLine
from pi05_websocket.presets import SO101_JOINTS

__all__ = ["JOINT_COLOURS", "chunk_borders", "draw_episodes", "draw_plot"]

JOINT_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
"""One for each joint, distinguishable without full colour vision (Paul Tol, bright)."""

_BORDER = "#8a8f98"
_HELD_COLOURS = ("#d62728", "#ff7f0e", "#9467bd", "#8c564b", "#1f77b4")
_SUCCESS, _FAILURE = "#d3efdb", "#fbd9dc"


def chunk_borders(ticks: list[TraceLine]) -> list[float]:
    """Return the moments at which a new chunk took over, from `tick` lines in order."""
    pairs = itertools.pairwise(ticks)
    return [new["time_s"] for old, new in pairs if new["seq"] != old["seq"] and new["seq"] >= 0]


def draw_plot(
    policy: list[TraceLine], robot: list[TraceLine], story: Story, path: Path, *, title: str
) -> None:
    """Write the picture.

    Args:
        policy: Lines of the policy's trace.
        robot: Lines of the robot's trace.
        story: What both tell.
        path: Where the PNG goes.
        title: What stands above it.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    ticks = [line for line in policy if line["kind"] == "tick"]
    origin = ticks[0]["time_s"] if ticks else 0.0
    figure, (above, below) = pyplot.subplots(
        2, 1, sharex=True, figsize=(14, 8), height_ratios=(3, 1.25), layout="constrained"
    )
    figure.suptitle(title, fontsize=14)
    draw_episodes(above, story, origin)
    _joints(above, ticks, robot, origin)
    above.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    _latency(below, story, origin)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_episodes(axes: Any, story: Story, origin: float) -> None:
    """Draw a band for each episode, with its verdict above and what its colour means in the legend."""
    for outcome in story.outcomes:
        begin, end = outcome.began_s - origin, outcome.ended_s - origin
        axes.axvspan(
            begin, end, facecolor=_SUCCESS if outcome.success else _FAILURE, edgecolor="white", lw=3
        )
        verdict = f"picked up, {outcome.duration_s:.1f} s" if outcome.success else "not picked up"
        axes.text(
            (begin + end) / 2,
            1.01,
            f"episode {outcome.episode + 1}: {verdict}",
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=9,
        )
    kinds = {outcome.success for outcome in story.outcomes}
    for success, colour, words in (
        (True, _SUCCESS, "episode: cube picked up"),
        (False, _FAILURE, "episode: not picked up"),
    ):
        if success in kinds:
            axes.plot([], [], "s", ms=12, color=colour, markeredgecolor=_BORDER, label=words)


def _joints(axes: Any, ticks: list[TraceLine], robot: list[TraceLine], origin: float) -> None:
    times = np.array([line["time_s"] for line in ticks]) - origin
    for border in chunk_borders(ticks):
        axes.axvline(border - origin, color=_BORDER, lw=0.8, ls=(0, (4, 3)), zorder=1)
    measured = [line for line in robot if line["kind"] == "joints"]
    seen_at = np.array([line["time_s"] for line in measured]) - origin
    for joint, (name, colour) in enumerate(zip(SO101_JOINTS, JOINT_COLOURS, strict=True)):
        axes.plot(
            times, [line["values"][joint] for line in ticks], color=colour, lw=1.8, label=name
        )
        axes.plot(
            seen_at, [line["values"][joint] for line in measured], color=colour, lw=0.8, alpha=0.6
        )
    _held(axes, ticks, origin)
    axes.plot([], [], color=_BORDER, lw=0.8, ls=(0, (4, 3)), label="a new chunk takes over")
    axes.plot([], [], color="black", lw=0.8, alpha=0.6, label="thin: measured")
    axes.set_ylabel("commanded joints, degrees\n(gripper: 0 closed … 100 open)")
    axes.grid(alpha=0.25)
    axes.margins(x=0.01)


def _held(axes: Any, ticks: list[TraceLine], origin: float) -> None:
    """Mark each held tick at the bottom, a row and a colour for each cause."""
    held: dict[str, list[float]] = {}
    for line in ticks:
        if line["source"] != "chunk":
            held.setdefault(line.get("cause") or "unknown", []).append(line["time_s"] - origin)
    for row, (cause, times) in enumerate(sorted(held.items())):
        axes.plot(
            times,
            [0.012 + 0.024 * row] * len(times),
            "|",
            color=_HELD_COLOURS[row % len(_HELD_COLOURS)],
            ms=9,
            transform=axes.get_xaxis_transform(),
            label=f"held: {cause.replace('_', ' ')} ({len(times)})",
        )


def _latency(axes: Any, story: Story, origin: float) -> None:
    times = np.array([line["time_s"] for line in story.exchanges]) - origin
    trips = [line["round_trip_ms"] for line in story.exchanges]
    inside = [line.get("server_ms") or 0.0 for line in story.exchanges]
    axes.vlines(times, 0, trips, color="#4477aa", lw=3, alpha=0.35, label="on the way")
    axes.vlines(times, 0, inside, color="#aa3377", lw=3, alpha=0.8, label="inference")
    axes.plot(times, trips, "o", color="#4477aa", ms=6, label="round trip")
    for moment, trip, line in zip(times, trips, story.exchanges, strict=True):
        axes.annotate(
            f"{line['delay_ticks']}",
            (moment, trip),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.plot([], [], " ", marker="$3$", color="black", label="inference delay, ticks")
    axes.set_ylim(0, max([*trips, 1.0]) * 1.25)
    axes.set_ylabel("milliseconds")
    axes.set_xlabel("seconds since the first tick")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes.grid(alpha=0.25)
