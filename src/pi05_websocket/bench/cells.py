# SPDX-License-Identifier: Apache-2.0
"""What is measured: cells of task, horizon, link and rule, and what one episode of a cell yields. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pi05_websocket.bench.links import LINKS, Link
from pi05_websocket.chunks.seam import ENSEMBLE_MAX_DELAY, SEAMS
from pi05_websocket.errors import ConfigError
from pi05_websocket.sim.stats import wilson_interval

__all__ = [
    "BENCH_TASKS",
    "COMPUTE_MS",
    "CONTROL_HZ",
    "HORIZONS",
    "IMAGES",
    "PEERS",
    "RULES",
    "Cell",
    "Episode",
    "Images",
    "cells",
    "is_aim",
    "summary",
]

CONTROL_HZ = 30.0
COMPUTE_MS = 50.0
"""What every policy is given to compute, in virtual time: pi0.5 on a desktop GPU takes 30 to 50 ms."""

HORIZONS = (10, 25, 50)
RuleName = Literal["openpi", "lerobot", "lerobot-rtc", "ours"]
PEERS: tuple[RuleName, ...] = ("openpi", "lerobot", "lerobot-rtc")
RULES: tuple[RuleName, ...] = (*PEERS, "ours")

Images = Literal["raw", "jpeg"]
IMAGES: tuple[Images, ...] = ("raw", "jpeg")

_SEAMS = ("replace", "blend", "ensemble")
BENCH_TASKS = ("cube", "belt", "moved")
_AIM_TASKS = ("cube", "belt")
_AIM_LINKS = ("local", "wan", "far")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One setting of the benchmark."""

    task: str
    horizon: int
    """Rows of a chunk, H."""
    link: Link
    rule: RuleName
    seam: str = "replace"
    policy: str = "expert"
    """What tables call the policy."""
    spec: str = "expert"
    """What loads it, as after `serve --policy`."""
    images: Images = "raw"
    """How the robot sends its images."""

    @property
    def execute(self) -> int:
        """Rows executed of each chunk by a rule that wants to be told: half of them."""
        return self.horizon // 2

    @property
    def key(self) -> str:
        """Name of the cell in files."""
        key = f"{self.task}/{self.horizon}/{self.link.name}/{self.rule}/{self.seam}"
        if self.images != "raw":
            key = f"{key}/{self.images}"
        return key if self.policy == "expert" else f"{key}/{self.policy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """What came of one seed in one cell."""

    cell: str
    seed: int
    success: bool
    time_s: float
    """From the first motion to success, or to the end."""
    ticks: int
    held_ticks: int
    """Ticks without a row after the first chunk."""
    requests: int
    seam_jumps: list[float] = field(default_factory=list)
    """At each takeover the largest change of velocity of an arm joint, degrees per tick and tick."""
    row_jumps: float = 0.0
    """The 99th percentile of the same between the rows of the chunks as the policy gave them."""
    reaction_s: float | None = None
    """From a change of the scene to the first command planned from an observation that shows it: of the moved
    cube, or, where nothing is moved, on average over all moments of the motion at which it could change."""
    round_trips_ms: list[float] = field(default_factory=list)
    """Of each request, from sending to the reply's arrival, inference included."""


def cells(
    *,
    tasks: Sequence[str] = BENCH_TASKS,
    horizons: Sequence[int] = HORIZONS,
    links: Iterable[Link] = tuple(LINKS.values()),
    rules: Sequence[str] = RULES,
    seams: Sequence[str] = _SEAMS,
    policy: str = "expert",
    spec: str = "expert",
    conditions: bool = False,
    images: Sequence[str] = ("raw",),
) -> list[Cell]:
    """Return the matrix, the cells of the aim first.

    `ensemble` is measured only where it is allowed, up to two ticks of delay: beyond them it blends. `rtc` is
    measured with policies that can do it, which the expert cannot.

    Args:
        tasks: `cube`, `belt`, `moved`; the last only with the longest chunks, whose plans live longest.
        horizons: Rows of a chunk.
        links: Networks.
        rules: Ours and the peers'.
        seams: For ours.
        policy: What tables call the policy.
        spec: What loads it.
        conditions: Whether it joins its chunks to the running one.
        images: For ours; the peers can send them raw only. JPEG with the seams that are the default somewhere,
            and the longest chunks: what bytes cost does not depend on them.

    Raises:
        ConfigError: Unknown rule, seam or kind of images.
    """
    for names, known in ((rules, RULES), (seams, SEAMS), (images, IMAGES)):
        unknown = set(names) - set(known)
        if unknown:
            raise ConfigError(f"unknown {sorted(unknown)}: expected some of {', '.join(known)}")
    found = []
    for task, horizon, link, rule in itertools.product(tasks, horizons, links, rules):
        if task == "moved" and horizon != max(horizons):
            continue
        ours = rule == "ours"
        for seam, sent in itertools.product(
            seams if ours else ("replace",), images if ours else ("raw",)
        ):
            delay = (link.rtt_ms + COMPUTE_MS) / 1000 * CONTROL_HZ
            if seam == "rtc" and not conditions:
                continue
            if sent == "jpeg" and (seam not in ("blend", "rtc") or horizon != max(horizons)):
                continue
            if seam == "ensemble" and delay > ENSEMBLE_MAX_DELAY:
                continue
            cell = Cell(
                task=task,
                horizon=horizon,
                link=link,
                rule=rule,  # type: ignore[arg-type]
                seam=seam,
                policy=policy,
                spec=spec,
                images=sent,  # type: ignore[arg-type]
            )
            found.append(cell)
    return sorted(found, key=lambda cell: not is_aim(cell))


def is_aim(cell: Cell) -> bool:
    """Say whether the benchmark's aim is stated for a cell: 50 rows, blended, here, at 200 and at 400 ms.

    With raw images for servers that read no others, as OpenPI's, and with JPEG for ours.
    """
    return (
        cell.policy == "expert"
        and cell.task in _AIM_TASKS
        and cell.horizon == 50
        and cell.rule == "ours"
        and cell.seam == "blend"
        and cell.link.name in _AIM_LINKS
    )


def summary(cell: Cell, episodes: Sequence[Episode]) -> dict[str, Any]:
    """Return a cell's figures, in the fields of `results.json`."""
    times = sorted(episode.time_s for episode in episodes if episode.success)
    jumps = sorted(jump for episode in episodes for jump in episode.seam_jumps)
    rows = sorted(episode.row_jumps for episode in episodes if episode.row_jumps > 0)
    trips = sorted(trip for episode in episodes for trip in episode.round_trips_ms)
    reactions = [episode.reaction_s for episode in episodes if episode.reaction_s is not None]
    low, high = wilson_interval(len(times), len(episodes))
    seam_ratio = None
    if jumps and rows:
        seam_ratio = round(jumps[int(0.95 * (len(jumps) - 1))] / rows[len(rows) // 2], 3)
    link = {key: value for key, value in asdict(cell.link).items() if key != "name"}
    return {
        "policy": cell.policy,
        "task": cell.task,
        "horizon": cell.horizon,
        "link": cell.link.name,
        **link,
        "rule": cell.rule,
        "seam": cell.seam,
        "images": cell.images,
        "episodes": len(episodes),
        "successes": len(times),
        "wilson_95": [round(low, 4), round(high, 4)],
        "held_ticks": sum(episode.held_ticks for episode in episodes),
        "ticks": sum(episode.ticks for episode in episodes),
        "turnaround_ms": round(trips[len(trips) // 2]) if trips else None,
        "requests": sum(episode.requests for episode in episodes),
        "time_to_success_s": times[len(times) // 2] if times else None,
        "seam_velocity_ratio": seam_ratio,
        "reaction_s": round(sum(reactions) / len(reactions), 3) if reactions else None,
    }
