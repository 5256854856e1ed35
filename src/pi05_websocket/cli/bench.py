# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket bench latency`: success against distance, ours beside every peer's rule.

In: words. Out: a table on the terminal; `episodes.jsonl`, `results.json`, `report.md` and `success.png` in a
folder. `bench real` is in `bench_real`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from pi05_websocket.bench.cells import (
    BENCH_TASKS,
    HORIZONS,
    IMAGES,
    RULES,
    Cell,
    Episode,
    Images,
    cells,
    is_aim,
    summary,
)
from pi05_websocket.bench.links import LINKS, make_link
from pi05_websocket.bench.policies import MeasuredPolicy
from pi05_websocket.bench.report import aim, plot, table, write_results
from pi05_websocket.bench.runner import Store
from pi05_websocket.bench.runner import run as run_cells
from pi05_websocket.chunks.seam import SEAMS
from pi05_websocket.cli import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from pi05_websocket.errors import ConfigError

__all__ = ["LatencyBench", "run", "show_progress"]

_DESCRIPTION = """\
Measure what distance costs: the simulated arm picks up cubes while its policy is far away.

The links are modelled and time is virtual, so an episode takes a fifth of a second; the policy is the
simulator's own, from pixels, or a learned one, which computes in this process. Every rule sees the same cubes
and the same network. A run that is interrupted goes on where it was: the same --out again.

examples:
  pi05-websocket bench latency                   two minutes: 20 episodes here, at 200 and at 400 ms
  pi05-websocket bench latency --full            the whole matrix, about an hour on two cores
  pi05-websocket bench latency --links wan --rtt-ms 300 --loss 0.02 --horizons 50
  pi05-websocket bench latency --links wan far --rules ours --images raw jpeg
  pi05-websocket bench latency --policy lerobot:CHECKPOINT --out outputs/bench-learned
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyBench:
    """What to measure."""

    full: bool = False
    """Every link, horizon, rule and seam; 100 episodes each, 500 where the aim is stated."""

    episodes: int | None = None
    """Seeds of each cell; None: 20, with --full 100 and 500."""

    policy: tuple[str, ...] = ("expert",)
    """expert, and what else `serve --policy` can load: lerobot:PATH. Another checkpoint wants another --out."""

    tasks: tuple[str, ...] = BENCH_TASKS
    """cube: at rest. belt: carried along. moved: at rest, until somebody moves it under the arm's eyes."""

    horizons: tuple[int, ...] | None = None
    """Rows of a chunk; None: as many as the policy's have, with --full and the expert 10 25 50."""

    links: tuple[str, ...] | None = None
    """local, lan, wifi, 5g, 4g, wan, far; None: local wan far, with --full all."""

    rtt_ms: float | None = None
    """Round trip in place of the links' own."""

    jitter_ms: float | None = None
    """Its standard deviation in place of the links' own."""

    loss: float | None = None
    """Share of lost segments in place of the links' own."""

    mbit: float | None = None
    """Megabits per second in place of the links' own."""

    rules: tuple[str, ...] = RULES
    """openpi, lerobot, lerobot-rtc, ours."""

    seams: tuple[str, ...] | None = None
    """For ours: replace, blend, ensemble, and rtc with a policy that can do it; None: blend with the expert,
    replace blend rtc with another; with --full all."""

    images: tuple[Images, ...] = IMAGES
    """For ours: raw, jpeg. jpeg: what is sent is really encoded, its bytes are charged, the policy sees what
    is left; the front image is padded to 224x224 first. Peers cannot."""

    processes: int = os.cpu_count() or 1
    """How many at once."""

    out: Path = Path("outputs/bench-latency")
    """Folder for the results; what is there already is not measured again."""


def run(argv: list[str]) -> int:
    """Run the command."""
    if argv and argv[0] in ("-h", "--help"):
        run(["latency", "--help"])
        return run(["real", "--help"])
    if argv and argv[0] == "real":
        from pi05_websocket.cli import bench_real

        return bench_real.run(argv[1:])
    if not argv or argv[0] != "latency":
        print(
            "usage: pi05-websocket bench (latency | real) [--help] ...\n\n"
            "latency   success of the simulated arm against the distance to its policy\n"
            "real      a sample of it over real sockets on the machine's clock, beside the same seeds",
            file=sys.stderr,
        )
        return EXIT_USAGE
    try:
        command = tyro.cli(
            LatencyBench,
            args=argv[1:],
            prog="pi05-websocket bench latency",
            description=_DESCRIPTION,
        )
    except SystemExit as exc:  # tyro has printed its help or what is wrong
        return exc.code if isinstance(exc.code, int) else EXIT_FAILED
    wanted = _wanted(command)
    store = Store(command.out / "episodes.jsonl")
    try:
        _run_all(wanted, store, command.processes)
    finally:  # what is there is reported, whatever ended the run
        figures = _figures(wanted, store)
        _report(command.out, figures)
    return EXIT_OK


def _wanted(command: LatencyBench) -> dict[Cell, int]:
    """Return the cells and how many seeds of each.

    Raises:
        ConfigError: A policy cannot be loaded, or two have the same name.
    """
    found: list[Cell] = []
    names: set[str] = set()
    for spec in command.policy:
        policy = MeasuredPolicy(spec)
        if policy.name in names:
            raise ConfigError(
                f"two policies are called {policy.name!r}: measure them with an --out for each"
            )
        names.add(policy.name)
        found += _cells(command, policy, spec)
    if command.episodes is not None:
        return dict.fromkeys(found, command.episodes)
    if not command.full:
        return dict.fromkeys(found, 20)
    return {cell: 500 if is_aim(cell) else 100 for cell in found}


def _cells(command: LatencyBench, policy: MeasuredPolicy, spec: str) -> list[Cell]:
    """Return one policy's cells."""
    is_expert = policy.name == "expert"
    links = command.links or (tuple(LINKS) if command.full else ("local", "wan", "far"))
    changes = {key: getattr(command, key) for key in ("rtt_ms", "jitter_ms", "loss", "mbit")}
    usual = HORIZONS if command.full and is_expert else (policy.action_horizon,)
    seams = ("blend",) if is_expert else ("replace", "blend", "rtc")
    horizons = command.horizons or usual
    if max(horizons) > policy.action_horizon:
        raise ConfigError(
            f"--horizons {max(horizons)}: a chunk of {policy.name} has {policy.action_horizon} rows"
        )
    return cells(
        tasks=command.tasks,
        horizons=horizons,
        links=[make_link(name, **changes) for name in links],
        rules=command.rules,
        seams=command.seams or (SEAMS if command.full else seams),
        policy=policy.name,
        spec=spec,
        conditions=policy.conditions,
        images=command.images,
    )


def _run_all(wanted: Mapping[Cell, int], store: Store, processes: int) -> None:
    there = sum(len(store.of(cell, seeds)) for cell, seeds in wanted.items())
    todo = sum(wanted.values()) - there
    print(f"{len(wanted)} cells, {sum(wanted.values())} episodes, {there} of them there already")
    show_progress(run_cells(wanted, store, processes=processes), todo)


def show_progress(episodes: Iterable[Episode], todo: int) -> None:
    """Run through episodes as they end and say how far it is, on standard error."""
    began, told = time.monotonic(), 0.0
    for done, episode in enumerate(episodes, 1):
        passed = time.monotonic() - began
        if passed - told >= 2.0 or done == todo:
            told = passed
            left = passed / done * (todo - done)
            text = f"{done}/{todo} episodes, {left / 60:.1f} min left, now {episode.cell}"
            end = "\r" if sys.stderr.isatty() and done < todo else "\n"
            if end == "\n" and done < todo and int(passed) % 60 > 2:
                continue  # into a file one line a minute is enough
            print(f"{text:100}", end=end, file=sys.stderr, flush=True)


def _figures(wanted: Mapping[Cell, int], store: Store) -> list[dict[str, Any]]:
    found = []
    for cell, seeds in wanted.items():
        episodes = store.of(cell, seeds)
        if episodes:
            found.append(summary(cell, episodes))
    return found


def _report(out: Path, figures: list[dict[str, Any]]) -> None:
    if not figures:
        return
    parts = []
    for task in sorted({f["task"] for f in figures}, reverse=True):
        for horizon in sorted({f["horizon"] for f in figures}, reverse=True):
            parts += [f"### {task}, {horizon} rows", table(figures, task, horizon)]
    parts.append("\n".join(f"- {line}" for line in aim(figures)))
    text = "\n\n".join(parts)
    print(text)
    (out / "report.md").write_text(text + "\n")
    write_results(out / "results.json", figures)
    horizon = max(f["horizon"] for f in figures)
    for policy in dict.fromkeys(f["policy"] for f in figures):
        name = "success.png" if policy == "expert" else f"success-{policy}.png"
        plot(figures, out / name, horizon=horizon, policy=policy)
    print(f"\n{out}/results.json, report.md, success*.png")
