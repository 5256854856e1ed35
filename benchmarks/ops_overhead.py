# SPDX-License-Identifier: Apache-2.0
"""What the operations port costs a server: processor time for each observation, and throughput.

In: nothing. Out: a table, and a JSON file where asked for. Two servers in processes of their own, one with the
port and one without, take turns in random order, so that whatever else the machine does falls on both alike.
Each turn counts the processor time of the whole server process between two readings of its own clock, and that
of the operations thread alone. Ratios of whole turns move by some per cent while others use the machine; the
thread's own time, and that of making and leaving a record, timed alone, hardly do. Read `accounted`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
import timeit
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tyro

from pi05_websocket.bench.commit import present_commit
from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.ops import OpsConfig, make_ops_port
from pi05_websocket.ops.listener import RecordQueue
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.server.records import RequestRecord

KINDS = ("without", "with", "looked at")

DESCRIPTION = """\
Measure what --ops-port costs: CPU time for each observation (480x640 and 224x224 uint8 images, 1.07 MB)
and requests a second, of a server whose policy answers at once: with a real policy the share is smaller.

  without     no operations port
  with        the port is open, Prometheus scrapes every 5 s, nobody looks
  looked at   the page's stream of figures is followed too, and each second an image of each robot is looked at

examples:
  python benchmarks/ops_overhead.py
  python benchmarks/ops_overhead.py --turns 20 --json ops_overhead.json
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to measure."""

    turns: int = 8
    """Of each kind."""

    seconds: float = 5.0
    """How long a turn is."""

    robots: int = 4
    """Connections, each of which asks as soon as it is answered."""

    rate: float = 0.0
    """Requests a second of each robot; 0: as soon as it is answered."""

    json: Path | None = None
    """Write all figures to this file."""

    seed: int = 0
    """Of the order in which the servers take turns."""


class InstantPolicy:
    """Answers at once, so that only the server's own work is measured."""

    def __init__(self) -> None:
        self.actions = np.zeros((50, 32), np.float32)

    def infer(self, observation: dict[str, Any], /) -> dict[str, Any]:
        """Return `{"actions": (50, 32) float32}`."""
        return {"actions": self.actions}


def observation() -> dict[str, Any]:
    """Make the observation."""
    rng = np.random.default_rng(0)
    return {
        "observation/images/wrist2": rng.integers(0, 256, (224, 224, 3), np.uint8),
        "observation/images/realsense": rng.integers(0, 256, (480, 640, 3), np.uint8),
        "observation/state": rng.normal(size=6).astype(np.float32),
        "prompt": "pick up the cube and put it into the box",
    }


def serve(kind: str) -> None:
    """Serve until standard input ends; print the ports first, then the processor time whenever asked."""
    config = ServerConfig()
    with ExitStack() as stack:
        listeners, ops = [], None
        if kind != "without":
            ops = make_ops_port(OpsConfig(ops_port=0), config, policy="benchmark")
            stack.enter_context(ops)
            listeners.append(ops.listener)
        server = WebsocketPolicyServer(InstantPolicy(), port=0, config=config, listeners=listeners)
        stack.enter_context(server)
        if ops is not None:
            ops.watch(server)
        print(server.port, 0 if ops is None else ops.port, flush=True)
        threads = {thread.name: thread.ident for thread in threading.enumerate()}
        ident = threads.get("pi05-ops")
        clock = None if ident is None else time.pthread_getcpuclockid(ident)
        for _ in sys.stdin:
            watching = 0.0 if clock is None else time.clock_gettime(clock)
            print(time.process_time(), watching, flush=True)


def record_us() -> float:
    """Return what a record costs on the robots' event loop: made, and left for the operations thread."""
    listener, seen, plan = RecordQueue(), observation(), InstantPolicy().actions

    def tell() -> None:
        listener(
            RequestRecord(
                connection=1,
                number=1,
                outcome="answered",
                arrived=1.0,
                queue_ms=1.0,
                infer_ms=1.0,
                total_ms=1.0,
                bytes_in=1_000_000,
                bytes_out=6_000,
                observation=seen,
                actions=plan,
            )
        )

    return 1e6 * min(timeit.repeat(tell, number=2000, repeat=10)) / 2000


class Served:
    """A server in a process of its own, its robots, and who looks at it."""

    def __init__(self, kind: str, settings: Settings, stack: ExitStack) -> None:
        self.kind = kind
        self._settings = settings
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(self._end)
        self.port, self.ops_port = map(int, self._said().split())
        config = ConnectionConfig(url=f"ws://127.0.0.1:{self.port}", image_transport="raw")
        self._robots = [
            stack.enter_context(closing(RemotePolicy(config=config)))
            for _ in range(settings.robots)
        ]

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def processor_s(self) -> tuple[float, float]:
        """Ask the server how much processor time it has used, and its operations thread."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        whole, watching = map(float, self._said().split())
        return whole, watching

    def turn(self) -> dict[str, float]:
        """Let the robots ask for a while; return processor time for each observation, and their rate."""
        counts = [0] * len(self._robots)
        stop = threading.Event()
        threads = [
            threading.Thread(target=self._ask, args=(i, counts, stop))
            for i in range(len(self._robots))
        ]
        with self._looked_at(stop):
            for thread in threads:
                thread.start()
            time.sleep(0.3)  # the first requests find memory that is not there yet
            began, used, before = time.monotonic(), self.processor_s(), sum(counts)
            time.sleep(self._settings.seconds)
            seconds, asked = time.monotonic() - began, max(sum(counts) - before, 1)
            whole, watching = (
                now - then for now, then in zip(self.processor_s(), used, strict=True)
            )
            stop.set()
            for thread in threads:
                thread.join()
        return {
            "cpu_us": 1e6 * whole / asked,
            "watching_us": 1e6 * watching / asked,
            "per_second": asked / seconds,
        }

    def _ask(self, i: int, counts: list[int], stop: threading.Event) -> None:
        seen, pause_s = observation(), 1 / self._settings.rate if self._settings.rate else 0.0
        while not stop.is_set():
            self._robots[i].infer(seen)
            counts[i] += 1
            if pause_s:
                stop.wait(pause_s)

    @contextmanager
    def _looked_at(self, stop: threading.Event) -> Iterator[None]:
        """Scrape, and look, beside the robots."""
        watchers = []
        if self.kind != "without":
            watchers.append(threading.Thread(target=self._scrape, args=(stop,)))
        if self.kind == "looked at":
            watchers += [
                threading.Thread(target=self._follow, args=(stop,)),
                threading.Thread(target=self._look, args=(stop,)),
            ]
        for watcher in watchers:
            watcher.start()
        yield
        for watcher in watchers:
            watcher.join()

    def _get(self, path: str) -> Any:
        return urllib.request.urlopen(f"http://127.0.0.1:{self.ops_port}{path}", timeout=10)

    def _scrape(self, stop: threading.Event) -> None:
        while not stop.wait(2.5):
            with self._get("/metrics") as response:
                response.read()
            stop.wait(2.5)

    def _follow(self, stop: threading.Event) -> None:
        with self._get("/api/events") as response:
            while not stop.is_set():
                response.readline()

    def _look(self, stop: threading.Event) -> None:
        while not stop.wait(1.0):
            with self._get("/api/state") as response:
                robots = json.load(response)["robots"]
            for robot in robots:
                with self._get(
                    f"/api/robots/{robot['connection']}/images/observation/images/realsense.jpg"
                ) as response:
                    response.read()


def measure(settings: Settings) -> dict[str, list[dict[str, float]]]:
    """Let the servers take turns."""
    turns: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    order = random.Random(settings.seed)
    with ExitStack() as stack:
        servers = [Served(kind, settings, stack) for kind in KINDS]
        for server in servers:
            server.turn()
        for _ in range(settings.turns):
            for server in order.sample(servers, len(servers)):
                turns[server.kind].append(server.turn())
    return turns


def report(turns: dict[str, list[dict[str, float]]], each_us: float) -> dict[str, dict[str, float]]:
    """Return medians, and ratios to the server without: of turns that stood side by side.

    Args:
        turns: What was measured.
        each_us: What a record costs the robots' event loop.
    """
    figures = {}
    for kind, taken in turns.items():
        told_us = 0.0 if kind == "without" else each_us
        pairs = list(zip(taken, turns["without"], strict=True))
        figures[kind] = {
            "cpu_us": median(turn["cpu_us"] for turn in taken),
            "per_second": median(turn["per_second"] for turn in taken),
            "accounted_us": median(turn["watching_us"] for turn in taken) + told_us,
            "accounted_share": median(
                (turn["watching_us"] + told_us) / turn["cpu_us"] for turn in taken
            ),
            "cpu_ratio": median(turn["cpu_us"] / bare["cpu_us"] for turn, bare in pairs),
            "rate_ratio": median(turn["per_second"] / bare["per_second"] for turn, bare in pairs),
        }
    return figures


def main(settings: Settings) -> None:
    """Measure, print, and write."""
    load = os.getloadavg()[0]
    each_us = record_us()
    turns = measure(settings)
    figures = report(turns, each_us)
    print(
        f"load before: {load:.2f}; {settings.robots} robots, {settings.turns} turns of each kind; "
        f"a record: {each_us:.2f} us on the robots' event loop"
    )
    print(
        f"{'':12}{'CPU/observation':>18}{'ratio':>8}{'accounted':>13}{'share':>8}"
        f"{'observations/s':>17}{'ratio':>8}"
    )
    for kind, found in figures.items():
        print(
            f"{kind:12}{found['cpu_us']:15.1f} us{found['cpu_ratio']:8.3f}"
            f"{found['accounted_us']:10.1f} us{found['accounted_share']:8.2%}"
            f"{found['per_second']:17.1f}{found['rate_ratio']:8.3f}"
        )
    if settings.json is not None:
        said = {
            "commit": present_commit(),
            "load_before": load,
            "robots": settings.robots,
            "record_us": each_us,
            "figures": figures,
            "turns": turns,
        }
        settings.json.write_text(json.dumps(said, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        main(tyro.cli(Settings, description=DESCRIPTION))
