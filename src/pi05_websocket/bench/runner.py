# SPDX-License-Identifier: Apache-2.0
"""Runs many episodes on all cores, remembers each in a file, goes on where it was interrupted.

In: cells and how many seeds of each. Out: episodes, as they end. Each process has arms of its own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from pi05_websocket.bench.cells import Cell, Episode
from pi05_websocket.bench.episodes import Bench
from pi05_websocket.bench.policies import MeasuredPolicy

__all__ = ["Store", "run"]

_AT_ONCE = 10
"""Seeds of one cell that a process takes at a time."""

_benches: dict[tuple[str, str], Bench] = {}
"""This process's arms, by task and policy."""

_policies: dict[str, MeasuredPolicy] = {}
"""This process's policies, by what loads them."""


class Store:
    """Episodes in a JSON-lines file: appended one by one, so that nothing is lost to an interruption.

    Args:
        path: The file.
        kind: What its lines become.
    """

    def __init__(self, path: Path, kind: type[Episode] = Episode) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.episodes: dict[tuple[str, int], Episode] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError, TypeError):  # the last line of an interrupted run
                self._keep(kind(**json.loads(line)))

    def __repr__(self) -> str:
        return f"<Store {self._path} {len(self.episodes)} episodes>"

    def _keep(self, episode: Episode) -> None:
        self.episodes[episode.cell, episode.seed] = episode

    def add(self, episode: Episode) -> None:
        """Remember an episode."""
        self._keep(episode)
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(episode)) + "\n")

    def of(self, cell: Cell, seeds: int) -> list[Episode]:
        """Return the episodes of a cell, seeds 0 to `seeds`, as far as they are there."""
        wanted = ((cell.key, seed) for seed in range(seeds))
        return [self.episodes[key] for key in wanted if key in self.episodes]


def run(wanted: Mapping[Cell, int], store: Store, *, processes: int) -> Iterator[Episode]:
    """Run what is missing; yield each episode once it is stored.

    Args:
        wanted: Cells and the number of seeds of each.
        store: What is there already, and where the rest goes.
        processes: How many at once; 1 runs in this one.
    """
    jobs: list[tuple[Cell, Sequence[int]]] = []
    for cell, seeds in wanted.items():
        missing = [seed for seed in range(seeds) if (cell.key, seed) not in store.episodes]
        jobs += [(cell, missing[i : i + _AT_ONCE]) for i in range(0, len(missing), _AT_ONCE)]
    if processes == 1:
        for job in jobs:
            yield from _stored(_run(job), store)
        return
    # Spawned: a forked OpenGL context is a dead one.
    context = multiprocessing.get_context("spawn")
    with context.Pool(max(1, min(processes, len(jobs))), initializer=_prepare) as pool:
        for episodes in pool.imap_unordered(_run, jobs):
            yield from _stored(episodes, store)


def _stored(episodes: Iterable[Episode], store: Store) -> Iterator[Episode]:
    for episode in episodes:
        store.add(episode)
        yield episode


def _prepare() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted and ends the pool
    if sys.platform.startswith(
        "linux"
    ):  # other systems have one way to render, and refuse this one
        os.environ.setdefault("MUJOCO_GL", "egl")
    # One thread each: the renderer's and the linear algebra's own would only wait for each other.
    for name in ("LP_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    with contextlib.suppress(OSError, AttributeError):  # Windows has none
        os.nice(10)
    logging.disable(logging.WARNING)  # a held tick is what is counted here


def _run(job: tuple[Cell, Sequence[int]]) -> list[Episode]:
    cell, seeds = job
    policy = _policies.get(cell.spec)
    if policy is None:
        policy = _policies[cell.spec] = MeasuredPolicy(cell.spec)
    bench = _benches.get((cell.task, cell.spec))
    if bench is None:
        bench = _benches[cell.task, cell.spec] = Bench(cell.task, policy=policy)
    return [bench.run(cell, seed) for seed in seeds]
