# SPDX-License-Identifier: Apache-2.0
"""Robots of the soak: player loops at 30 Hz, each in a thread, that know what every command has to be.

In: where to ask, one JSON object on the command line; wishes, a line each, on standard input. Out: a JSON line
for each line read. A process of its own. The policy's rows say whose they are: robot, episode, request, row.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import queue
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pi05_websocket.chunks.config import SchedulerConfig
from pi05_websocket.chunks.seam import SeamConfig
from pi05_websocket.client import ConnectionConfig, PolicyPool, RemotePolicy, connect
from pi05_websocket.data import Float32Array
from pi05_websocket.recording.recorder import Recorder
from pi05_websocket.robot.commands import Step
from pi05_websocket.robot.player import ActionPlayer, PlayerConfig
from pi05_websocket.robot.settings import AS_IT_IS, hold_config
from pi05_websocket.robot.trace import Trace

logger = logging.getLogger(__name__)

__all__ = ["HZ", "JOINTS", "ROWS", "RobotThread", "picture"]

HZ = 30.0
ROWS = 50
EVERY = 15
"""Rows executed before the next chunk takes over: two observations a second."""
JOINTS = 6
ROBOT, EPISODE, NUMBER, ROW = 0, 1, 2, 3
"""What a row of the policy says, in its first four columns."""
SIDE = 224


def picture(number: int, shade: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return an image that looks like one, another for each number: slopes, an edge and some noise."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    base = np.stack([rows, columns, (rows + columns) // 2], axis=2) + shade
    base[:, (number * 7) % SIDE :] += 40
    noise = np.random.default_rng(number).integers(0, 8, base.shape)
    return (base + noise).astype(np.uint8)


class RobotThread:
    """One robot from its coming to its going.

    Args:
        number: Which; no two have the same, also not one after the other.
        facts: `urls`, `jpeg`, `record` (a folder or "") and `record_bytes`.
    """

    def __init__(self, number: int, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.counts: Counter[str] = Counter()
        """Ticks, held, stale, foreign, episodes, failing requests."""
        self.number = number
        self._round_trips: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._wishes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._over = threading.Event()
        self._policy = self._connect()
        self._recorder = None
        if facts["record"]:
            self._recorder = Recorder(facts["record"], {}, max_bytes=facts["record_bytes"])
        self._asked = 0
        self._tick = -1
        self._observed: dict[int, tuple[int, int, int]] = {}
        """Request to its observation's number, tick, and how many ticks the arm had stood still before."""
        self._holds = True
        self._stood = 0
        self._failing = False
        pose = np.zeros(JOINTS, np.float32)
        self._pose: Float32Array = pose
        self._player = self._new_player()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wish(self, what: str) -> None:
        """Ask for `reset` or `fail`, from another thread."""
        self._wishes.put(what)

    def stop(self) -> None:
        """End it, and all that belongs to it."""
        self._over.set()
        self._thread.join(10)
        self._policy.close()
        if self._recorder is not None:
            self._recorder.close()

    def round_trips(self) -> list[float]:
        """Return those since the last call, in milliseconds."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._round_trips.get_nowait())
        return found

    @property
    def failovers(self) -> int:
        """How often another server took over."""
        return self._policy.failovers if isinstance(self._policy, PolicyPool) else 0

    def _connect(self) -> RemotePolicy | PolicyPool:
        transport = "jpeg" if self.facts["jpeg"] else "raw"
        config = ConnectionConfig(image_transport=transport, backoff_max=0.5)  # type: ignore[arg-type]
        return connect(self.facts["urls"], config, wait_for_server=30)

    def _new_player(self) -> ActionPlayer:
        config = PlayerConfig(
            scheduler=SchedulerConfig(
                action_horizon=EVERY, max_age_ticks=round(5 * HZ), seam=SeamConfig(kind="replace")
            ),
            # Rows as they are, and no pause that only a person ends: every command can be told.
            hold=hold_config(pose="commanded", coast=None, auto_resume=None, control_hz=HZ),
            resume=AS_IT_IS,
            control_hz=HZ,
        )
        listeners = [] if self._recorder is None else [self._recorder]
        return ActionPlayer(self._policy, config, trace=Trace(None, listeners=listeners))

    def _run(self) -> None:
        self._player.start_episode()
        self.counts["episodes"] += 1
        began = time.monotonic()
        tick, last_seq = -1, -1
        while not self._over.is_set():
            self._obey()
            last, tick = tick, max(tick + 1, math.ceil((time.monotonic() - began) * HZ))
            if self._over.wait(max(0.0, began + tick / HZ - time.monotonic())):
                return
            self._live_through(tick, tick - last)
            record = self._player.last_exchange
            if record is not None and record.seq != last_seq:
                last_seq = record.seq
                self._round_trips.put(record.round_trip_ms)

    def _live_through(self, tick: int, gap: int) -> None:
        player = self._player
        if self._holds or gap > player.config.scheduler.max_skip_ticks + 1:
            self._stood += (
                gap - 1
            )  # while the loop slept: a short sleep is made up for by skipped rows
        player.collect(tick)
        seq = player.scheduler._next_seq
        if player.ask(tick, self._observation, self._pose):
            self._observed[seq] = (self._asked, tick, self._stood)
            for old in [old for old in self._observed if old < seq - 50]:
                del self._observed[old]
        step = player.act(tick, self._pose)
        self.counts["ticks"] += 1
        self._holds = step.source != "chunk"
        if self._holds:
            self._stood += 1
            self.counts["held"] += 1
        else:
            self._check(step, tick)
        self._pose = step.values.copy()

    def _observation(self) -> dict[str, Any]:
        self._asked += 1
        failing, self._failing = self._failing, False
        if failing:
            self.counts["failing"] += 1
        return {
            "observation/image": picture(self._asked, 10 * self.number % 100),
            "observation/wrist_image": picture(self._asked + 50, 5),
            "observation/state": self._pose,
            "prompt": "pick up the red cube",
            "robot": self.number,
            "episode": self.counts["episodes"],
            "number": self._asked,
            "fail": failing,
        }

    def _check(self, step: Step, tick: int) -> None:
        """Hold a command against whose it says it is."""
        said = [int(value) for value in step.values[:4]]
        if said[ROBOT] != self.number:
            self.counts["foreign"] += 1
            return
        number, observed, stood = self._observed[step.seq]
        right = [self.counts["episodes"], number, tick - observed - (self._stood - stood)]
        if said[1:] != right:
            self.counts["stale"] += 1
            logger.warning(
                "robot %d, tick %d: expected episode, observation and row %s, got %s",
                *(self.number, tick, right, said[1:]),
            )

    def _obey(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                wish = self._wishes.get_nowait()
                if wish == "reset":
                    self._player.start_episode()
                    self.counts["episodes"] += 1
                else:
                    self._failing = True


class Crew:
    """The robots of this process, and those that have left."""

    def __init__(self, places: dict[str, dict[str, Any]]) -> None:
        self._places = places
        self._gone: Counter[str] = Counter()
        self._numbers = {name: int(facts["first_number"]) for name, facts in places.items()}
        self._robots = {
            name: RobotThread(self._numbers[name], facts) for name, facts in places.items()
        }

    def obey(self, words: list[str]) -> dict[str, Any]:
        """Do what a line says; return the answer."""
        if words[0] == "sample":
            return self.sample()
        robot = self._robots[words[1]]
        if words[0] == "replace":
            robot.stop()
            self._note(robot)
            self._numbers[words[1]] += 1000
            self._robots[words[1]] = RobotThread(self._numbers[words[1]], robot.facts)
        else:
            robot.wish(words[0])
        return {"done": words}

    def sample(self) -> dict[str, Any]:
        """Return what all robots have seen since the last sample, and counted in all."""
        counts = Counter(self._gone)
        trips: list[float] = []
        for robot in self._robots.values():
            counts.update(robot.counts)
            counts["failovers"] += robot.failovers
            counts["dead_loops"] += not robot._thread.is_alive()
            trips += robot.round_trips()
        return {
            "blocks": sys.getallocatedblocks(),
            "counts": dict(counts),
            "round_trips_ms": [round(trip, 3) for trip in trips],
        }

    def stop(self) -> None:
        """End all."""
        for robot in self._robots.values():
            robot.stop()

    def _note(self, robot: RobotThread) -> None:
        self._gone.update(robot.counts)
        self._gone["failovers"] += robot.failovers


def main() -> None:
    """Run until standard input ends."""
    logging.basicConfig(
        filename=sys.argv[2], level=logging.WARNING, format="%(asctime)s %(message)s"
    )
    crew = Crew(json.loads(sys.argv[1]))
    print(json.dumps({"ready": True}), flush=True)
    with contextlib.closing(sys.stdin), contextlib.suppress(BrokenPipeError):
        for line in sys.stdin:
            print(json.dumps(crew.obey(line.split())), flush=True)
    crew.stop()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
