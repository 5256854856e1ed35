# SPDX-License-Identifier: Apache-2.0
"""How often the simulator's expert succeeds, and how fast, on a virtual clock.

In: a task and a number of seeds. Out: success with its Wilson interval and times; `--json` keeps each episode.
Each observation and each chunk travels through the wire codec, so what is judged is what a server would see.
`--latency-ms` is waited before each chunk with the last target held, as a client does that asks and waits.

    python benchmarks/expert_success.py --task belt --execute 25 --latency-ms 200
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tyro

from pi05_websocket.bench.report import measured_at
from pi05_websocket.presets import preset
from pi05_websocket.sim.arm import JOINTS
from pi05_websocket.sim.episodes import EpisodeEvent, EpisodeRules
from pi05_websocket.sim.expert import CONTROL_HZ, ExpertPolicy
from pi05_websocket.sim.so101 import CAMERA_SHAPES, SimConfig, SimSO101
from pi05_websocket.sim.stats import wilson_interval
from pi05_websocket.sim.tasks import BELT_SPEED, make_task
from pi05_websocket.testing import FakeClock
from pi05_websocket.wire import codec


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Measure the expert's success."""

    episodes: int = 100
    """Seeds 0 to this, one episode each, the arm at home."""

    task: Literal["cube", "belt"] = "cube"
    """Cube at rest, or on a moving belt."""

    execute: int = 25
    """Rows executed of each chunk of 50."""

    belt_speed: float = BELT_SPEED
    """Metres per second, for `belt`."""

    latency_ms: float = 0.0
    """Time from an observation to its chunk; the arm waits."""

    json: Path | None = None
    """Where to write the figures."""


@dataclass(frozen=True, slots=True)
class Episode:
    """What came of one seed."""

    seed: int
    success: bool
    duration_s: float
    """To success, or to the time limit."""


class Runner:
    """One simulated arm and one expert, episode after episode."""

    def __init__(self, settings: Benchmark) -> None:
        self._settings = settings
        self._clock = FakeClock()
        self._ended: list[EpisodeEvent] = []
        task = make_task(settings.task, belt_speed=settings.belt_speed)
        rules = EpisodeRules(next_episode="never", settle_s=0.0)
        self._prompt, self._limit_s = task.prompt, rules.time_limit_s
        self._sim = SimSO101(
            SimConfig(task=task, rules=rules, render="demand"),
            clock=self._clock,
            on_event=self._note,
        )
        self._key_map = preset("so101")
        self._expert = ExpertPolicy()

    def _note(self, event: EpisodeEvent) -> None:
        if event.kind == "ended":
            self._ended.append(event)

    def run(self, seed: int) -> Episode:
        """Run one episode to its end."""
        self._ended.clear()
        self._sim.reset(seed)
        started = self._clock.now()
        # Twice the limit: an expert that never moves the arm never begins the episode.
        while not self._ended and self._clock.now() - started < 2 * self._limit_s:
            self._execute(self._ask())
        if not self._ended:
            return Episode(seed, False, self._limit_s)
        return Episode(seed, self._ended[0].success, self._ended[0].duration_s)

    def _ask(self) -> npt.NDArray[np.float32]:
        seen = self._sim.get_observation()
        images = {name: seen[name] for name in CAMERA_SHAPES}
        state = np.array([seen[f"{name}.pos"] for name in JOINTS], dtype=np.float32)
        request: Any = codec.decode(
            codec.encode(self._key_map.observation(images, state, self._prompt))
        )
        reply: Any = codec.decode(codec.encode(self._expert.infer(request)))
        self._clock.sleep(self._settings.latency_ms / 1000.0)
        return np.asarray(reply["actions"], dtype=np.float32)

    def _execute(self, chunk: npt.NDArray[np.float32]) -> None:
        for row in chunk[: self._settings.execute]:
            self._sim.send_action(row)
            self._clock.sleep(1.0 / CONTROL_HZ)
            if self._ended:
                return

    def close(self) -> None:
        """Free the simulator."""
        self._sim.close()


def progress(done: int, total: int, successes: int) -> None:
    """Keep one line of the terminal up to date."""
    end = "\n" if done == total else ""
    print(f"\r{done}/{total} episodes, {successes} successes", end=end, file=sys.stderr, flush=True)


def summary(settings: Benchmark, episodes: list[Episode], wall_s: float) -> dict[str, Any]:
    """Return the figures of a run."""
    times = [episode.duration_s for episode in episodes if episode.success]
    low, high = wilson_interval(len(times), len(episodes))
    shown = {key: value for key, value in asdict(settings).items() if key != "json"}
    where = measured_at()
    return (
        shown
        | where
        | {
            "successes": len(times),
            "wilson_95": [round(low, 4), round(high, 4)],
            "median_s": round(statistics.median(times), 3) if times else None,
            "slowest_s": round(max(times), 3) if times else None,
            "failed_seeds": [episode.seed for episode in episodes if not episode.success],
            "wall_s": round(wall_s, 1),
            "per_episode": [asdict(episode) for episode in episodes],
        }
    )


def main(settings: Benchmark) -> None:
    """Run the benchmark and print its figures."""
    started = time.monotonic()
    runner = Runner(settings)
    episodes: list[Episode] = []
    for seed in range(settings.episodes):
        episodes.append(runner.run(seed))
        progress(len(episodes), settings.episodes, sum(episode.success for episode in episodes))
    runner.close()
    figures = summary(settings, episodes, time.monotonic() - started)
    low, high = figures["wilson_95"]
    print(
        f"{settings.task}: {figures['successes']} of {settings.episodes} succeeded"
        f" (95 % interval {low:.1%} to {high:.1%}), median {figures['median_s']} s,"
        f" slowest {figures['slowest_s']} s; executing {settings.execute} of 50 rows,"
        f" latency {settings.latency_ms:g} ms; took {figures['wall_s']} s"
    )
    if figures["failed_seeds"]:
        print(f"failed seeds: {figures['failed_seeds']}")
    if settings.json is not None:
        settings.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Benchmark, description=__doc__))
