# SPDX-License-Identifier: Apache-2.0
"""`pi05-websocket bench real`: a sample of the matrix over real sockets, beside the same seeds in virtual time.

In: words. Out: tables on the terminal; `real.jsonl`, `virtual.jsonl`, `round_trips.json`, `real.json` and
`real.md` in a folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import tyro

from pi05_websocket.bench.cells import PEERS, Cell, Images, cells
from pi05_websocket.bench.links import LINKS, Link, make_link
from pi05_websocket.bench.real import RealEpisode
from pi05_websocket.bench.real_link import Kind, RealLink, kind_here
from pi05_websocket.bench.real_report import compare, comparison_table, round_trip_table
from pi05_websocket.bench.report import facts
from pi05_websocket.bench.runner import Store
from pi05_websocket.bench.runner import run as run_cells
from pi05_websocket.cli import EXIT_FAILED, EXIT_OK
from pi05_websocket.cli.bench import show_progress
from pi05_websocket.errors import ConfigError

__all__ = ["RealBenchCommand", "run"]

_DESCRIPTION = """\
Check the benchmark's clock and network: the same cubes over real sockets, in real time.

The policy's server, the robot and the cable between them are processes of this machine. Both ends have a
network of their own; the cable delays, queues and loses IP packets. So TCP is the kernel's, congestion control
included. It needs Linux and the right to make network namespaces (root, or unprivileged user namespaces and
/dev/net/tun). Without it a proxy delays whole messages as the model says, and results are labelled "modelled
loss". Nothing leaves this machine.

Each cell runs in virtual time too, with the same seeds. It is told whether the two agree: whether the 95 %
interval of the difference between their success rates contains 0. Run it on a machine with nothing else to do:
what else runs delays the robot's ticks. A run that is interrupted goes on where it was: the same --out again.

examples:
  pi05-websocket bench real                                      18 cells, 20 episodes each: half an hour
  pi05-websocket bench real --links wifi wan --peer-links --tasks belt --episodes 5        two minutes
  pi05-websocket bench real --episodes 0 --messages 100          round trips alone, against the model
  pi05-websocket bench real --links wan --congestion cubic       what the system's other algorithm makes of it
"""

_LINKS = ("local", "lan", "wifi", "5g", "4g", "wan")


@dataclass(frozen=True, slots=True, kw_only=True)
class RealBenchCommand:
    """What to measure."""

    episodes: int = 20
    """Seeds of each cell; 0: round trips alone."""

    tasks: tuple[str, ...] = ("cube", "belt")
    """cube, belt: for ours."""

    links: tuple[str, ...] = _LINKS
    """local, lan, wifi, 5g, 4g, wan, far: for ours, 50 rows, blended."""

    peer_links: tuple[str, ...] = ("wifi", "wan")
    """The same for the peers' rules."""

    peer_tasks: tuple[str, ...] = ("belt",)
    """Their tasks."""

    images: tuple[Images, ...] = ("raw",)
    """For ours: raw, jpeg; the peers send them raw."""

    messages: int = 30
    """Observations sent over each link before its first episode, to measure round trips: at least 5, for they
    bring the connection up to speed, as a robot's is after its first episode."""

    congestion: str = ""
    """Congestion control of both ends, such as bbr, cubic or reno; "": the system's."""

    link_kind: Literal["auto", "tun", "proxy"] = "auto"
    """tun: namespaces; proxy: modelled loss; auto: tun where it is permitted."""

    processes: int = os.cpu_count() or 1
    """How many at once for the virtual clock. Real time takes one after the other."""

    out: Path = Path("outputs/bench-real")
    """Folder for the results; what is there already is not measured again."""

    def __post_init__(self) -> None:
        if self.episodes < 0 or self.messages < 5:
            raise ConfigError(
                f"episodes={self.episodes} messages={self.messages}: expected 0 or more, and 5 or more"
            )


def run(argv: list[str]) -> int:
    """Run the command."""
    try:
        command = tyro.cli(
            RealBenchCommand,
            args=argv,
            prog="pi05-websocket bench real",
            description=_DESCRIPTION,
        )
    except SystemExit as exc:  # tyro has printed its help or what is wrong
        return exc.code if isinstance(exc.code, int) else EXIT_FAILED
    wanted = _wanted(command)
    links = list({cell.link.name: cell.link for cell in wanted}.values())
    sample = _Sample(command)
    try:
        if command.episodes:
            sample.run_virtual(wanted)
        print(
            f"real time: {len(links)} links, {sample.missing(wanted)} episodes; {sample.kind_text}"
        )
        show_progress(sample.run_real(wanted, links), sample.missing(wanted))
    finally:  # what is there is reported, whatever ended the run
        sample.report(wanted, links)
    return EXIT_OK


def _wanted(command: RealBenchCommand) -> list[Cell]:
    """Return the cells, those of one link together, the near ones first."""
    found = cells(
        tasks=command.tasks,
        horizons=(50,),
        links=[make_link(name) for name in command.links],
        rules=("ours",),
        seams=("blend",),
        images=command.images,
    )
    found += cells(
        tasks=command.peer_tasks,
        horizons=(50,),
        links=[make_link(name) for name in command.peer_links],
        rules=PEERS,
    )
    return sorted(found, key=lambda cell: list(LINKS).index(cell.link.name))


class _Sample:
    """What is there of the sample, and how to get the rest."""

    def __init__(self, command: RealBenchCommand) -> None:
        self._command = command
        self._out = command.out
        self._virtual = Store(command.out / "virtual.jsonl")
        self._real = Store(command.out / "real.jsonl", RealEpisode)
        self._kind: Kind
        if command.link_kind == "auto":
            self._kind, reason = kind_here()
        else:
            self._kind, reason = command.link_kind, "as asked"
        self.kind_text = (
            "kernel TCP over TUN" if self._kind == "tun" else f"modelled loss, by a proxy: {reason}"
        )
        path = self._out / "round_trips.json"
        self._trips: dict[str, dict[str, Any]] = (
            json.loads(path.read_text()) if path.exists() else {}
        )

    def missing(self, wanted: Sequence[Cell]) -> int:
        """Return how many real episodes are not there yet."""
        return sum(len(self._missing(cell)) for cell in wanted)

    def _missing(self, cell: Cell) -> list[int]:
        seeds = range(self._command.episodes)
        return [seed for seed in seeds if (cell.key, seed) not in self._real.episodes]

    def run_virtual(self, wanted: Sequence[Cell]) -> None:
        """Run the same seeds on the virtual clock."""
        seeds = dict.fromkeys(wanted, self._command.episodes)
        todo = sum(
            self._command.episodes - len(self._virtual.of(cell, n)) for cell, n in seeds.items()
        )
        print(f"virtual clock: {len(wanted)} cells, {todo} episodes")
        if todo:
            runs = run_cells(seeds, self._virtual, processes=self._command.processes)
            show_progress(runs, todo)

    def run_real(self, wanted: Sequence[Cell], links: Sequence[Link]) -> Iterator[RealEpisode]:
        """Run what is missing, link by link; yield each episode once it is stored."""
        for link in links:
            todo = [
                (cell, seed) for cell in wanted if cell.link == link for seed in self._missing(cell)
            ]
            if not todo and link.name in self._trips:
                continue
            with RealLink(
                link,
                kind=self._kind,
                seed=len(
                    self._real.episodes
                ),  # a run that goes on does not repeat the network's fate
                congestion=self._command.congestion,
                policy="expert" if todo else "still",
            ) as real:
                self._measure(real)
                for cell, seed in todo:
                    episode = RealEpisode(**real.ask(do="episode", cell=asdict(cell), seed=seed))
                    self._real.add(episode)
                    yield episode
                segments = real.ask(do="counters")
            self._note_cable(real, segments)

    def _measure(self, real: RealLink) -> None:
        """Send observations alone, which also brings the connection up to speed."""
        known = self._trips.get(real.link.name)
        if known is not None and known["kind"] != real.name:
            raise ConfigError(
                f"{self._out} holds episodes over {known['kind']}, this is {real.name}: "
                "take another --out"
            )
        count = self._command.messages
        trips = real.measure(count)
        if known is None:
            self._trips[real.link.name] = {
                "kind": real.name,
                "first_ms": round(trips[0], 2),
                "round_trips_ms": [round(trip, 2) for trip in trips[3:]],
            }
            self._save_trips()

    def _note_cable(self, real: RealLink, segments: Mapping[str, Any]) -> None:
        """Keep what became of the packets: how many the cable lost, how many the robot's kernel sent again."""
        sent = {name: segments[name] for name in ("OutSegs", "RetransSegs") if name in segments}
        self._trips[real.link.name].setdefault("packets", []).append({**real.carried, **sent})
        self._save_trips()

    def _save_trips(self) -> None:
        text = json.dumps(self._trips, indent=1)
        (self._out / "round_trips.json").write_text(text + "\n")

    def report(self, wanted: Sequence[Cell], links: Sequence[Link]) -> None:
        """Print and write what is there."""
        seeds = self._command.episodes
        found = []
        for cell in wanted:
            real = cast("list[RealEpisode]", self._real.of(cell, seeds))
            if real:
                kind = self._trips[cell.link.name]["kind"]
                found.append(compare(cell, real, self._virtual.of(cell, seeds), kind=kind))
        parts = [_trips_text(self._trips, links), comparison_table(found) if found else ""]
        text = "\n\n".join(part for part in parts if part)
        print(text)
        self._out.mkdir(parents=True, exist_ok=True)
        (self._out / "real.md").write_text(text + "\n")
        results = {
            **facts(),
            "congestion_asked": self._command.congestion,
            "round_trips": self._trips,
            "cells": found,
        }
        (self._out / "real.json").write_text(json.dumps(results, indent=1) + "\n")
        print(f"\n{self._out}/real.json, real.md")


def _trips_text(trips: Mapping[str, Any], links: Sequence[Link]) -> str:
    if not any(link.name in trips for link in links):
        return ""
    return "Round trips of an observation, 50 ms of inference included:\n\n" + round_trip_table(
        trips, links
    )
