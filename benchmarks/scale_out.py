# SPDX-License-Identifier: Apache-2.0
"""What it costs to have more than one server: every way beside the plain server, in turns.

In: nothing. Out: a table of throughput, times and CPU for each way, size of message and number of clients, and
a JSON file where asked for. All servers run at once and take turns, cell by cell, so that whatever else the
machine does falls on all alike. Read the differences and the CPU, not the throughput of a small machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import relay
import tyro
from ray_two_nodes import descendants, title_of
from round_trip import machine, observation
from server_load import ask_at_once, connect, cpu_seconds, server_process

from pi05_websocket.engine_ray import environment
from pi05_websocket.wire import codec

Size = Literal["large", "small"]

RAY_PORT = 18700
RAYS_OWN = ("/raylet", "gcs_server", "site-packages/ray/")
"""In the command lines of Ray's own processes."""
PLAIN = "plain"

DESCRIPTION = """\
Put clients that ask again at once before each of

  plain   one server of this project with one policy
  relay   a gateway before --policies such servers
  ray     Ray Serve with two ingress processes and --policies policies

with observations of 1.07 MB (large: three raw cameras) and of 49 KB (small: about three JPEGs of 224 pixels),
and a policy that takes 20 ms and 2 ms for each observation of a batch of at most 16.

examples:
  python benchmarks/scale_out.py
  python benchmarks/scale_out.py --clients 1 16 --seconds 3 --rounds 1
  python benchmarks/scale_out.py --json docs/figures/scale_out.json
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to measure."""

    paths: tuple[str, ...] = ("plain", "relay", "ray")
    """Ways to the policy; plain is always among them."""

    sizes: tuple[Size, ...] = ("large", "small")
    clients: tuple[int, ...] = (1, 4, 16, 64)

    seconds: float = 4.0
    """Length of each turn, after one second that does not count."""

    rounds: int = 3
    """Turns of each way in each cell; medians over them are reported."""

    policies: int = 2
    """Policy processes of each way that can have several."""

    seed: int = 0
    """Of the order of the turns."""

    json: Path | None = None
    """Write all figures to this file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way to the policy that is open now."""

    port: int

    processes: Callable[[], Mapping[str, list[int]]]
    """Role to process numbers: `front` has sockets, `policy` has a policy, `control` does neither."""


# -------------------------------------------------------------------------------------------- the ways


@contextlib.contextmanager
def plain(_settings: Settings) -> Iterator[Way]:
    """Run one server of this project."""
    with server_process("ours", "batched") as (port, pid):
        yield Way(port=port, processes=lambda: {"policy": [pid]})


@contextlib.contextmanager
def behind_relay(settings: Settings) -> Iterator[Way]:
    """Run a gateway before several servers of this project."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(server_process("ours", "batched")) for _ in range(settings.policies)
        ]
        gateway = relay.Process("gateway", "0", *(f"ws://127.0.0.1:{port}" for port, _ in servers))
        stack.callback(gateway.kill)
        roles = {"front": [gateway.pid], "policy": [pid for _, pid in servers]}
        yield Way(port=gateway.port, processes=lambda: roles)


@contextlib.contextmanager
def on_ray(settings: Settings) -> Iterator[Way]:
    """Run Ray Serve with both applications."""
    environment.prepare(os.environ)
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    import ray
    from ray import serve

    from pi05_websocket.engine_ray import apps

    ray.init(
        address="local",
        num_cpus=settings.policies + 4,
        object_store_memory=200_000_000,
        include_dashboard=False,
        log_to_driver=False,
    )
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": RAY_PORT})
        policy = {"policy": "scale_out:policy", "server": {"seed": 1}}
        made = apps.policy_application(policy, num_replicas=settings.policies)
        serve.run(made, name="policy", route_prefix=None)
        ingress = {"server": {"max_connections": 1024, "max_queue_s": 1e6}}
        serve.run(apps.ingress_application(ingress), name="ingress", route_prefix="/")
        yield Way(port=RAY_PORT, processes=rays_processes)
    finally:
        shut_down: Callable[[], None] = serve.shutdown
        shut_down()
        ray.shutdown()


def rays_processes() -> dict[str, list[int]]:
    """Return what Ray has started here, by role."""
    roles: dict[str, list[int]] = {"front": [], "policy": [], "control": []}
    for pid in descendants(os.getpid()):
        title = title_of(pid)
        if title.startswith("ray::ServeReplica:policy:policy"):
            roles["policy"].append(pid)
        elif title.startswith("ray::ServeReplica:ingress") or "/haproxy\0" in title:
            roles["front"].append(pid)
        elif title.startswith("ray::") or any(word in title for word in RAYS_OWN):
            roles["control"].append(pid)
    return roles


PATHS: dict[str, Callable[[Settings], AbstractContextManager[Way]]] = {
    PLAIN: plain,
    "relay": behind_relay,
    "ray": on_ray,
}
"""Name to a way. Another one is a function here that opens it, and says which processes it consists of."""


def policy() -> Any:
    """Return what the plain server serves, for replicas to load."""
    import server_load

    return server_load.policy("batched")


# ----------------------------------------------------------------------------------------- measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One way in one cell."""

    throughput: float
    """Observations answered a second."""
    p50_ms: float
    p99_ms: float
    front_cpu_ms: float
    """Of the processes that have sockets and no policy, for each observation."""
    policy_cpu_ms: float
    """Of those that have a policy."""
    control_cores: float
    """Of all others: Ray's own, whatever is asked."""


def message(size: Size) -> bytes:
    """Return an encoded observation."""
    if size == "large":
        return codec.encode(observation())
    rng = np.random.default_rng(0)
    return codec.encode(
        {
            "observation/images/wrist": rng.integers(0, 256, (128, 128, 3), np.uint8),
            "observation/state": rng.normal(size=6).astype(np.float32),
            "prompt": "pick up the cube and put it into the box",
        }
    )


async def take_turn(way: Way, request: bytes, clients: int, seconds: float) -> Turn:
    """Let so many clients ask for so long."""
    robots = [await connect(way.port) for _ in range(clients)]
    tasks = [asyncio.ensure_future(ask_at_once(robot, request, 0)) for robot in robots]
    await asyncio.sleep(1.0)
    processes = way.processes()
    before = cpu_of(processes)
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    ended = time.perf_counter()
    used = {role: after - before[role] for role, after in cpu_of(processes).items()}
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(outcome, asyncio.CancelledError):
            raise RuntimeError(f"a client stopped: {outcome!r}")
    took = [
        1000 * (end - sent) for robot in robots for sent, end in robot.times if began <= end < ended
    ]
    for robot in robots:
        robot.leave()
    if not took:
        raise RuntimeError(f"no answer within {seconds:g} s")
    return Turn(
        throughput=len(took) / (ended - began),
        p50_ms=float(np.percentile(took, 50)),
        p99_ms=float(np.percentile(took, 99)),
        front_cpu_ms=1000 * used.get("front", 0.0) / len(took),
        policy_cpu_ms=1000 * used.get("policy", 0.0) / len(took),
        control_cores=used.get("control", 0.0) / (ended - began),
    )


def cpu_of(processes: Mapping[str, list[int]]) -> dict[str, float]:
    """Return the CPU seconds that each role has used."""
    return {role: sum(map(cpu_seconds, pids)) for role, pids in processes.items()}


def measure(settings: Settings) -> list[dict[str, Any]]:
    """Return a list of cells with the figures of every way."""
    shuffle = random.Random(settings.seed).shuffle
    cells = []
    names = [PLAIN, *(name for name in settings.paths if name != PLAIN)]
    with ExitStack() as stack:
        ways = {name: stack.enter_context(PATHS[name](settings)) for name in names}
        for size in settings.sizes:
            request = message(size)
            for clients in settings.clients:
                turns: dict[str, list[Turn]] = {name: [] for name in names}
                for _ in range(settings.rounds):
                    shuffle(names)
                    for name in names:
                        turn = take_turn(ways[name], request, clients, settings.seconds)
                        turns[name].append(asyncio.run(turn))
                cells.append(cell(size, len(request), clients, turns))
                for text in lines(cells[-1]):
                    print(text, flush=True)
    return cells


def cell(size: Size, nbytes: int, clients: int, turns: dict[str, list[Turn]]) -> dict[str, Any]:
    """Boil the turns down to medians, and the difference to the plain server turn by turn."""
    found: dict[str, Any] = {
        "size": size,
        "request_bytes": nbytes,
        "clients": clients,
        "load": os.getloadavg()[0],
        "paths": {},
    }
    for name, several in turns.items():
        pairs = zip(several, turns[PLAIN], strict=True)
        found["paths"][name] = {
            field: median(asdict(turn)[field] for turn in several) for field in asdict(several[0])
        } | {"over_plain_ms": median(mine.p50_ms - bare.p50_ms for mine, bare in pairs)}
    return found


# ---------------------------------------------------------------------------------------------- report


HEADINGS = (
    f"{'message':<9}{'clients':>8} {'path':<7}{'obs/s':>8}{'p50 ms':>9}{'p99 ms':>9}{'over plain ms':>15}"
    f"{'CPU ms/obs: front':>19}{'policy':>8}{'control: cores':>16}"
)


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Lay a cell out as lines under `HEADINGS`."""
    for name, path in found["paths"].items():
        yield (
            f"{found['size']:<9}{found['clients']:>8} {name:<7}{path['throughput']:>8.0f}"
            f"{path['p50_ms']:>9.1f}{path['p99_ms']:>9.1f}{path['over_plain_ms']:>15.1f}"
            f"{path['front_cpu_ms']:>19.2f}{path['policy_cpu_ms']:>8.2f}{path['control_cores']:>16.2f}"
        )


def main() -> None:
    """Measure and report."""
    settings = tyro.cli(Settings, prog="scale_out.py", description=DESCRIPTION)
    unknown = set(settings.paths) - set(PATHS)
    if unknown:
        raise SystemExit(
            f"no such path: {', '.join(sorted(unknown))}; there are {', '.join(PATHS)}"
        )
    where = machine()
    print(HEADINGS)
    cells = measure(settings)
    print(" | ".join(f"{key}: {text}" for key, text in where.items()))
    if settings.json is not None:
        content = {
            "benchmark": "scale_out",
            "machine": where,
            "policies": settings.policies,
            "rounds": settings.rounds,
            "seconds": settings.seconds,
            "cells": cells,
        }
        settings.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
