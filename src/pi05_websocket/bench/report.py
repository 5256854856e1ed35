# SPDX-License-Identifier: Apache-2.0
"""The benchmark's figures as people look at them: a table, a plot, `results.json`.

In: summaries of cells. Out: text and files. Pure but for writing.
"""

from __future__ import annotations

import itertools
import json
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pi05_websocket.bench.cells import COMPUTE_MS, CONTROL_HZ
from pi05_websocket.bench.commit import present_commit
from pi05_websocket.bench.links import LINKS
from pi05_websocket.sim.stats import wilson_interval
from pi05_websocket.sim.tasks import BELT_SPEED

__all__ = [
    "aim",
    "draw",
    "facts",
    "measured_at",
    "paired_difference",
    "plot",
    "table",
    "write_results",
]

_NAMES = {
    "openpi": "OpenPI ActionChunkBroker",
    "lerobot": "LeRobot sync",
    "lerobot-rtc": "LeRobot rtc engine",
    "ours": "ours",
}
_COLOURS = {
    ("openpi", "raw"): "#cc6677",
    ("lerobot", "raw"): "#ddaa33",
    ("lerobot-rtc", "raw"): "#44aa99",
    ("ours", "raw"): "#4477aa",
    ("ours", "jpeg"): "#aa3377",
}
"""Of a rule and how its images are sent."""
_TOLERANCE_M = 0.0125
"""How far off the cube the jaws may be and still close around it: half of its edge."""

Figures = Mapping[str, Any]


def table(figures: Sequence[Figures], task: str, horizon: int) -> str:
    """Return a Markdown table of one task and horizon: rules down, links across.

    Of several policies each has all rows; what one cannot do is n/a.
    """
    chosen = [f for f in figures if (f["task"], f["horizon"]) == (task, horizon)]
    links = sorted({(f["rtt_ms"], f["link"]) for f in chosen})
    rules = list(dict.fromkeys((f["rule"], f["seam"], _images(f)) for f in chosen))
    policies = list(dict.fromkeys(_policy(f) for f in chosen))
    lines = [
        "| | " + " | ".join(f"{name} ({rtt:g} ms)" for rtt, name in links) + " |",
        "|---|" + "---|" * len(links),
    ]
    rules.sort(key=lambda row: (list(_NAMES).index(row[0]), row[1], row[2] != "raw"))
    for policy, (rule, seam, images) in itertools.product(policies, rules):
        cells = []
        for _, link in links:
            wanted = (policy, rule, seam, images, link)
            found = [f for f in chosen if (*_row(f), f["link"]) == wanted]
            cells.append(_cell(found[0]) if found else "n/a")
        name = f"{_NAMES[rule]}, {seam}" if rule == "ours" else _NAMES[rule]
        if images != "raw":
            name = f"{name}, {images}"
        if policies != ["expert"]:
            name = f"{policy}: {name}"
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _policy(figures: Figures) -> str:
    """Return whose figures these are; files from before there were several do not say."""
    return str(figures.get("policy", "expert"))


def _images(figures: Figures) -> str:
    """Return how the images were sent; older files know raw ones only."""
    return str(figures.get("images", "raw"))


def _row(figures: Figures) -> tuple[str, str, str, str]:
    return _policy(figures), figures["rule"], figures["seam"], _images(figures)


def _cell(figures: Figures) -> str:
    share = figures["successes"] / max(1, figures["episodes"])
    held = figures["held_ticks"] / max(1, figures["ticks"])
    time = figures["time_to_success_s"]
    seam = figures["seam_velocity_ratio"]
    words = (
        f"{share:.0%}, {'-' if time is None else f'{time:.1f} s'}, {held:.0%} held, "
        f"seam {'-' if seam is None else f'{seam:.1f}'}"
    )
    if figures["task"] != "moved":
        return words
    reaction = figures["reaction_s"]
    return f"{words}, reacts in {'-' if reaction is None else f'{reaction:.2f} s'}"


def paired_difference(pairs: Sequence[tuple[bool, bool]]) -> tuple[float, float, float]:
    """Return how much more often the second succeeds than the first, with a 95 % interval.

    Args:
        pairs: Success of both, seed by seed.

    Source: R. G. Newcombe, Improved confidence intervals for the difference between binomial proportions based
    on paired data, 1998, method 10 with the correlation taken as zero: wider than needed, never narrower.
    """
    n = len(pairs)
    first, second = (sum(pair[i] for pair in pairs) for i in (0, 1))
    if not n:
        return 0.0, -1.0, 1.0
    p, q = first / n, second / n
    (p_low, p_high), (q_low, q_high) = wilson_interval(first, n), wilson_interval(second, n)
    down = math.hypot(q - q_low, p_high - p)
    up = math.hypot(q_high - q, p - p_low)
    return q - p, q - p - down, q - p + up


def aim(figures: Sequence[Figures]) -> list[str]:
    """Return whether the aim is met, a line for each task and link: 98 % of local at 200 ms, 90 % at 400 ms.

    It is stated for the expert, whose plans are as good here as there, and for the tasks `cube` and `belt`.
    """
    lines = []
    at = {
        (f["task"], _images(f), f["link"]): f
        for f in figures
        if (*_row(f)[:3], f["horizon"]) == ("expert", "ours", "blend", 50) and f["task"] != "moved"
    }
    for task, images in sorted({key[:2] for key in at}):
        local = at.get((task, images, "local"))
        for link, share in (("wan", 0.98), ("far", 0.90)):
            here = at.get((task, images, link))
            if local is None or here is None or not local["successes"]:
                continue
            ratio = (here["successes"] / here["episodes"]) / (
                local["successes"] / local["episodes"]
            )
            low, high = here["wilson_95"]
            lines.append(
                f"{task}, {images}, {here['rtt_ms']:g} ± {here['jitter_ms']:g} ms, {here['loss']:.0%} loss: "
                f"{ratio:.1%} of local (aim {share:.0%}; {here['successes']} of {here['episodes']}, "
                f"95 % {low:.1%} to {high:.1%}; local {local['successes']} of {local['episodes']}), "
                f"{here['held_ticks']} of {here['ticks']} ticks held, seam {here['seam_velocity_ratio']}"
            )
    return lines


def plot(
    figures: Sequence[Figures], path: Path, *, horizon: int = 50, policy: str = "expert"
) -> None:
    """Write what `draw` draws as a PNG."""
    figure = draw(figures, horizon=horizon, policy=policy)
    from matplotlib import pyplot  # after its backend was chosen

    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw(figures: Sequence[Figures], *, horizon: int = 50, policy: str = "expert") -> Any:
    """Return success and time to success against the round trip, for all tasks, with the bounds of physics."""
    figures = [f for f in figures if _policy(f) == policy]
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tasks = sorted({f["task"] for f in figures}, reverse=True)
    figure, axes = pyplot.subplots(
        2, len(tasks), figsize=(6.2 * len(tasks), 7), sharex=True, squeeze=False
    )
    for column, task in enumerate(tasks):
        for (rule, images), colour in _COLOURS.items():
            seam = "blend" if rule == "ours" else "replace"
            points = sorted(
                (
                    (f.get("turnaround_ms") or f["rtt_ms"] + COMPUTE_MS, f)
                    for f in figures
                    if (f["task"], f["horizon"]) == (task, horizon)
                    and _row(f) == (policy, rule, seam, images)
                ),
                key=lambda point: point[0],
            )
            name = _NAMES[rule] if images == "raw" else f"{_NAMES[rule]}, {images}"
            _draw_rule(axes[0][column], axes[1][column], points, colour, name)
        for each in axes[:, column]:
            _draw_bounds(each, task, horizon)
        axes[1][column].set_ylim(bottom=0)
        axes[0][column].set_title(f"{policy}, {task}, {horizon} rows at {CONTROL_HZ:g} Hz")
        axes[1][column].set_xlabel("from an observation to its chunk, median of each link, ms")
    axes[0][0].set_ylabel("success, 95 % interval")
    axes[1][0].set_ylabel("median time to success, s")
    rows = _legend_below(figure, axes[0])
    figure.tight_layout(rect=(0, 0.02 + 0.03 * rows, 1, 1))
    return figure


def _legend_below(figure: Any, axes: Sequence[Any]) -> int:
    """Explain rules and bounds below all: notes beside the lines would be crossed by them. Return its rows."""
    shown: dict[str, Any] = {}
    for each in axes:
        handles, names = each.get_legend_handles_labels()
        shown |= dict(zip(names, handles, strict=True))
    names = sorted(shown, key=lambda name: not isinstance(shown[name], tuple))  # bounds last
    columns = len(axes)
    figure.legend(
        [shown[name] for name in names], names, loc="lower center", ncol=columns, frameon=False
    )
    return math.ceil(len(names) / columns)


def _draw_rule(
    upper: Any, lower: Any, points: Sequence[tuple[float, Figures]], colour: str, name: str
) -> None:
    if not points:
        return
    trips = [trip for trip, _ in points]
    shares = [f["successes"] / f["episodes"] for _, f in points]
    errors = [
        [share - f["wilson_95"][0] for share, (_, f) in zip(shares, points, strict=True)],
        [f["wilson_95"][1] - share for share, (_, f) in zip(shares, points, strict=True)],
    ]
    upper.errorbar(trips, shares, yerr=errors, marker="o", capsize=3, color=colour, label=name)
    times = [(trip, f["time_to_success_s"]) for trip, f in points if f["time_to_success_s"]]
    if times:
        lower.plot(*zip(*times, strict=True), marker="o", color=colour, label=name)
    upper.set_ylim(-0.03, 1.05)


def _draw_bounds(axes: Any, task: str, horizon: int) -> None:
    """Draw where every chunk ends in a pause, and where a belt outruns a plan that does not foresee it."""
    half_s = horizon / 2 / CONTROL_HZ
    bounds = [(half_s, "--", f"half a chunk, {half_s:.2f} s: beyond, every chunk ends in a pause")]
    if task == "belt":
        late_s = _TOLERANCE_M / BELT_SPEED
        bounds.append(
            (late_s, ":", f"{late_s:.2f} s: the belt has carried the cube out of the jaws")
        )
    for seconds, style, text in bounds:
        axes.axvline(1000 * seconds, color="#555555", linestyle=style, linewidth=1.4, label=text)


def write_results(path: Path, figures: Sequence[Figures]) -> None:
    """Write `results.json`: the cells, with commit and machine."""
    path.write_text(json.dumps({**facts(), "cells": [dict(f) for f in figures]}, indent=1) + "\n")


def measured_at() -> dict[str, str]:
    """Return by which commit and on which machine figures are measured."""
    return {
        "commit": present_commit(),
        "machine": f"{platform.system()} {platform.machine()}, {_cores()} cores, "
        f"Python {platform.python_version()}",
    }


def facts() -> dict[str, Any]:
    """Return by what, where and under which conditions figures are measured."""
    return {
        **measured_at(),
        "control_hz": CONTROL_HZ,
        "compute_ms": COMPUTE_MS,
        "belt_speed": BELT_SPEED,
        "links": {name: repr(link) for name, link in LINKS.items()},
    }


def _cores() -> int:
    import os

    return os.cpu_count() or 1
