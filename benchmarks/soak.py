# SPDX-License-Identifier: Apache-2.0
"""Robots and servers for a long time, with faults: do memory, files and threads grow, do answers slow down?

In: nothing. Out: a line every few seconds, figures of each process, exit code 1 where a bound is broken; a JSON
file where asked for. Servers, gateway and robots are processes of their own; the cable that is cut is in this.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

sys.path.insert(0, str(Path(__file__).parent))  # also where a test imports this file

from round_trip import machine
from soak_analysis import (
    Bounds,
    ProcessFigures,
    Sample,
    as_dict,
    drift,
    figures_of,
    first_and_last_tenth,
    motion_verdict,
    verdict,
)
from soak_processes import Cable, Child, free_port, look_at

DESCRIPTION = """\
Robots at 30 Hz with two cameras each, half of them with JPEG, one that records, one with two servers, one
behind a gateway, some behind a cable that is cut: for minutes or for hours. Now and then something happens:
the cable is cut or silent, a server is killed, a robot leaves and another comes, an episode begins, a request
fails.

examples:
  python benchmarks/soak.py --minutes 20 --json docs/figures/soak.json
  python benchmarks/soak.py --minutes 480 --robots 16
"""

RECORD_BYTES = 24_000_000
SAY_EVERY_S = 10.0
MUST_NOT_BE = ("stale", "foreign", "dead_loops")
LEAST_ROBOTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """How long, how many, and what is allowed."""

    minutes: float = 20.0
    """Length of the run."""

    robots: int = 8
    """4 or more, in two processes."""

    every: float = 5.0
    """Seconds between samples."""

    faults: bool = True
    """Whether things go wrong, except at the beginning and in the end."""

    fault_every: float = 12.0
    """Seconds between two of them, on the average."""

    warm_up: float | None = None
    """Seconds at the beginning that do not count; None: a quarter of the run, two minutes at most."""

    bounds: Annotated[Bounds, tyro.conf.arg(name="")] = field(default_factory=Bounds)

    seed: int = 1
    """Of the faults."""

    json: Path | None = None
    """Write the figures here."""

    folder: Path | None = None
    """Keep logs and recordings here; None: nowhere."""

    @property
    def warm_up_s(self) -> float:
        """Seconds that do not count."""
        return min(120.0, 15.0 * self.minutes) if self.warm_up is None else self.warm_up

    @property
    def calm_s(self) -> float:
        """Seconds without faults after the warm-up, and at the end: the first and the last tenth are calm."""
        return max(15.0, 0.11 * (60.0 * self.minutes - self.warm_up_s))


class Scene:
    """Two servers, a gateway, a cable and robots in two processes."""

    def __init__(self, settings: Soak, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self.recordings = folder / "recordings"
        self.servers = {
            name: Child("soak_servers.py", "policy", str(free_port()), self._log(name))
            for name in ("server", "second server")
        }
        for server in self.servers.values():
            stack.callback(server.close)
        first, second = (f"ws://127.0.0.1:{one.first['port']}" for one in self.servers.values())
        self.gateway = Child("soak_servers.py", "gateway", "0", self._log("gateway"), first, second)
        stack.callback(self.gateway.close)
        self.cable = Cable(self.servers["server"].first["port"])
        stack.callback(self.cable.close)
        gateway = f"ws://127.0.0.1:{self.gateway.first['port']}"
        ways = [first, f"{first},{second}", gateway]
        places = {}
        for number in range(settings.robots):
            beyond = f"ws://127.0.0.1:{self.cable.port}" if number % 3 == 0 else first
            places[f"robot{number}"] = {
                "urls": ways[number] if number < len(ways) else beyond,
                "jpeg": number % 2 == 1,
                "record": str(self.recordings) if number == 0 else "",
                "record_bytes": RECORD_BYTES,
                "first_number": number + 1,
            }
        self.crews: dict[str, Child] = {}
        self.crew_of: dict[str, Child] = {}
        for part in (0, 1):
            mine = {name: places[name] for name in list(places)[part::2]}
            name = f"robots {part + 1}"
            crew = Child("soak_robots.py", json.dumps(mine), self._log(name))
            stack.callback(crew.close)
            self.crews[name] = crew
            self.crew_of |= dict.fromkeys(mine, crew)

    def children(self) -> dict[str, Child]:
        """Return all of them, by name."""
        return {**self.servers, "gateway": self.gateway, **self.crews}

    def recorded_bytes(self) -> int:
        """Return how much the recordings take."""
        sizes = (path.stat().st_size for path in self.recordings.rglob("*.mcap"))
        return sum(sizes, 0)

    def _log(self, name: str) -> str:
        return str(self._folder / f"{name}.log")


class Faults:
    """What goes wrong, by a chance that is the same every time."""

    def __init__(self, scene: Scene, settings: Soak) -> None:
        self._scene = scene
        self._random = random.Random(settings.seed)
        self._mean_s = settings.fault_every
        self._begin_s = settings.warm_up_s + settings.calm_s
        self._end_s = 60.0 * settings.minutes - settings.calm_s
        self._next_s = self._begin_s if settings.faults else float("inf")
        self._mends_s = float("inf")
        self.done: Counter[str] = Counter()

    def due_s(self) -> float:
        """Return when `act` has something to do."""
        return min(self._next_s, self._mends_s)

    def act(self, now_s: float) -> None:
        """Do what is due."""
        if now_s >= self._mends_s:
            self._scene.cable.be_silent(False)
            self._mends_s = float("inf")
        if now_s < self._next_s:
            return
        self._next_s = now_s + self._mean_s * self._random.uniform(0.5, 1.5)
        if now_s >= self._end_s:
            self._next_s = float("inf")
            return
        what = self._random.choice(("cut", "silence", "restart", "replace", "reset", "fail"))
        self.done[what] += 1
        if what == "cut":
            self._scene.cable.cut()
        elif what == "silence":
            self._scene.cable.be_silent(True)
            self._mends_s = now_s + self._random.uniform(0.5, 3.0)
        elif what == "restart":
            # The other one lives from beginning to end: its memory is what is looked at.
            server = self._scene.servers["second server"]
            server.end(self._random.choice((signal.SIGKILL, signal.SIGTERM)))
            server.start()
        else:
            robot = self._random.choice(list(self._scene.crew_of))
            self._scene.crew_of[robot].ask(f"{what} {robot}")


class Log:
    """Samples of all processes, and round trips in windows."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.samples: dict[str, list[Sample]] = {}
        self.windows: list[dict[str, float]] = []
        self.answers: list[tuple[float, int]] = []
        """At each sample: seconds since the run began, answers since the one before."""
        self.counts: Counter[str] = Counter()

    def sample(self, now_s: float) -> None:
        """Look at every process."""
        trips: list[float] = []
        counts: Counter[str] = Counter()
        for name, child in self._scene.children().items():
            said = child.ask("sample")
            trips += said.get("round_trips_ms", ())
            counts.update(said.get("counts", {}))
            self._note(name, look_at(child.pid, now_s, said["blocks"]))
        self._note("cable", look_at(os.getpid(), now_s, sys.getallocatedblocks()))
        over = self.counts["recording over its bound"]
        counts["recording over its bound"] = over + (self._scene.recorded_bytes() > RECORD_BYTES)
        self.counts = counts
        self.answers.append((now_s, len(trips)))
        if trips:
            trips.sort()
            p99 = trips[min(len(trips) - 1, int(0.99 * len(trips)))]
            window = {"at_s": now_s, "p50_ms": trips[len(trips) // 2], "p99_ms": p99}
            self.windows.append({**window, "count": len(trips)})

    def line(self) -> str:
        """Return the last sample in a line."""
        parts = [
            f"{name} {series[-1].rss_mb:.0f} MB {series[-1].fds}/{series[-1].threads}"
            for name, series in self.samples.items()
        ]
        window = self.windows[-1] if self.windows else {"p50_ms": 0.0, "p99_ms": 0.0, "at_s": 0.0}
        wrong = sum(self.counts[name] for name in MUST_NOT_BE)
        return (
            f"{window['at_s']:6.0f} s  {window['p50_ms']:.0f}/{window['p99_ms']:.0f} ms  "
            f"wrong {wrong}  {', '.join(parts)}"
        )

    def _note(self, name: str, sample: Sample) -> None:
        self.samples.setdefault(name, []).append(sample)


def run(settings: Soak) -> tuple[Log, Faults, dict[str, ProcessFigures]]:
    """Run for so long; return what was seen."""
    with ExitStack() as stack:
        folder = settings.folder
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pi05-soak-")))
        folder.mkdir(parents=True, exist_ok=True)
        scene = Scene(settings, folder, stack)
        log, faults = Log(scene), Faults(scene, settings)
        began, said_s = time.monotonic(), 0.0
        for at_s in _moments(settings.every, 60.0 * settings.minutes):
            while (due_s := min(faults.due_s(), at_s)) < at_s:
                time.sleep(max(0.0, began + due_s - time.monotonic()))
                faults.act(time.monotonic() - began)
            time.sleep(max(0.0, began + at_s - time.monotonic()))
            log.sample(time.monotonic() - began)
            if at_s - said_s >= SAY_EVERY_S:
                said_s = at_s
                print(log.line(), flush=True)
        found = {}
        lives = {name: child.lives for name, child in scene.children().items()}
        for name, samples in log.samples.items():
            restarted = lives.get(name, 1) > 1
            figures = figures_of(samples, warm_up_s=settings.warm_up_s, restarted=restarted)
            if figures is not None:
                found[name] = figures
    return log, faults, found


def _moments(every_s: float, until_s: float) -> Iterator[float]:
    at_s = 0.0
    while (at_s := at_s + every_s) <= until_s:
        yield at_s


def results(
    settings: Soak, log: Log, faults: Faults, found: dict[str, ProcessFigures]
) -> dict[str, Any]:
    """Return all figures, and the verdict."""
    windows = [window for window in log.windows if window["at_s"] >= settings.warm_up_s]
    p99 = [window["p99_ms"] for window in windows]
    slower = drift(p99)
    never = {name: log.counts[name] for name in (*MUST_NOT_BE, "recording over its bound")}
    trips: dict[str, Any] = {"count": int(sum(window["count"] for window in log.windows))}
    if windows:
        for name in ("p50_ms", "p99_ms"):
            ends = first_and_last_tenth([window[name] for window in windows])
            trips[name] = [round(value, 1) for value in ends]
    answers = [count for at_s, count in log.answers if at_s >= settings.warm_up_s]
    answered = first_and_last_tenth(answers) if answers else None
    ticks, held = log.counts["ticks"], log.counts["held"]
    return {
        "minutes": settings.minutes,
        "warm_up_s": settings.warm_up_s,
        "robots": settings.robots,
        "processes": {name: as_dict(figures) for name, figures in found.items()},
        "round_trips": trips,
        "p99_drift": None if slower is None else round(slower, 3),
        "counts": dict(sorted(log.counts.items())),
        "faults": dict(sorted(faults.done.items())),
        "bounds": asdict(settings.bounds),
        "wrong": verdict(found, slower, never, settings.bounds)
        + motion_verdict(ticks, held, answered, settings.bounds),
    }


def table(figures: dict[str, Any]) -> Iterator[str]:
    """Yield the figures for people."""
    yield f"{'':14} {'memory, MB':>16} {'MB an hour (95 %)':>28} {'files':>10} {'threads':>10}"
    for name, one in figures["processes"].items():
        slope = one["memory"]
        grows = (
            "restarted"
            if slope is None
            else f"{slope['per_hour']:+.1f} ({slope['low']:+.1f} to {slope['high']:+.1f})"
        )
        ends = [f"{first:g} > {last:g}" for first, last in (one["fds"], one["threads"])]
        memory = "{:.1f} > {:.1f}".format(*one["rss_mb"])
        yield f"{name:14} {memory:>16} {grows:>28} {ends[0]:>10} {ends[1]:>10}"
    trips = figures["round_trips"]
    yield f"round trips: {trips}, 99th percentile {figures['p99_drift']} times the first tenth's"
    yield f"counted: {figures['counts']}"
    yield f"faults: {figures['faults']}"


def main(settings: Soak) -> int:
    """Soak, print, and say whether it was sound."""
    if sys.platform != "linux":
        print("it reads /proc: Linux only", file=sys.stderr)
        return 2
    if settings.robots < LEAST_ROBOTS:
        print(f"--robots {settings.robots}: expected {LEAST_ROBOTS} or more", file=sys.stderr)
        return 2
    where = machine()
    log, faults, found = run(settings)
    figures = {"machine": where | {"load at the end": f"{os.getloadavg()[0]:.1f}"}}
    figures |= results(settings, log, faults, found)
    print(*table(figures), sep="\n")
    print(*[f"WRONG: {text}" for text in figures["wrong"]] or ["sound"], sep="\n")
    if settings.json is not None:
        settings.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 1 if figures["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Soak, description=DESCRIPTION)))
