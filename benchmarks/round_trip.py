# SPDX-License-Identifier: Apache-2.0
"""How long an observation takes to the policy and its actions back: this project, OpenPI's own, and the floor.

In: nothing. Out: a table of round-trip times and ratios, and a JSON file where asked for.
Each server is a process of its own; the pairings take turns in random order, round by round, so that whatever
else the machine does falls on all of them alike. Read the ratios, not the digits.
"""

from __future__ import annotations

import json
import os
import platform
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tyro

from pi05_websocket.bench.commit import present_commit
from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.server import WebsocketPolicyServer
from pi05_websocket.wire import codec

Infer = Callable[[], Any]

FLOOR = "raw TCP"
OURS = "ours / ours"
STOCK = "stock / stock"
PAIRINGS = {
    # name: (client, server)
    FLOOR: ("raw", "raw"),
    OURS: ("ours", "ours"),
    "ours / stock server": ("ours", "stock"),
    "stock client / ours": ("stock", "ours"),
    STOCK: ("stock", "stock"),
}

DESCRIPTION = """\
Measure the round trip of one observation (480x640 and 224x224 uint8 images, 6 joints, prompt: 1.07 MB) and
its reply (50 x 32 float32 actions) between two processes over loopback, with a policy that answers at once.

  ours    this project's client and server, the policy in a thread of its own
  stock   OpenPI's own client and server, unchanged (openpi-client, openpi-server)
  raw     the same bytes over a plain TCP socket, nothing encoded: the floor

examples:
  python benchmarks/round_trip.py
  python benchmarks/round_trip.py --rounds 50 --json round_trip.json
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to measure."""

    rounds: int = 20
    """Turns of each pairing. The reported ratios are medians over the rounds."""

    calls: int = 25
    """Round trips in each turn, after three that do not count."""

    realtime: bool = False
    """Run everything under SCHED_RR (Linux, root), half of the time: for a machine that others use too."""

    json: Path | None = None
    """Write all figures to this file."""

    seed: int = 0
    """Of the order in which the pairings take turns."""


def observation() -> dict[str, Any]:
    """Make the observation; images of noise, since nothing on the way looks at them."""
    rng = np.random.default_rng(0)
    return {
        "observation/images/wrist2": rng.integers(0, 256, (224, 224, 3), np.uint8),
        "observation/images/realsense": rng.integers(0, 256, (480, 640, 3), np.uint8),
        "observation/state": rng.normal(size=6).astype(np.float32),
        "prompt": "pick up the cube and put it into the box",
    }


class InstantPolicy:
    """Answers at once, so that only the way there and back is measured."""

    def __init__(self) -> None:
        self.actions = np.zeros((50, 32), np.float32)

    def infer(self, obs: dict[str, Any], /) -> dict[str, Any]:
        """Return `{"actions": (50, 32) float32}`."""
        return {"actions": self.actions}


# ----------------------------------------------------------------------------- servers, one process each


def take_precedence() -> None:
    """Let nobody else's threads run while ours could."""
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def serve(kind: str, *, realtime: bool) -> None:
    """Serve until killed; print the port first."""
    if realtime:
        take_precedence()  # threads started from here on inherit it
    {"raw": serve_raw, "ours": serve_ours, "stock": serve_stock}[kind]()


def serve_ours() -> None:
    """Run this project's server."""
    server = WebsocketPolicyServer(InstantPolicy(), port=0)
    server.serve_forever(listening=lambda: print(server.port, flush=True))


def serve_stock() -> None:
    """Run OpenPI's server."""
    from openpi_server.websocket_policy_server import WebsocketPolicyServer as StockServer

    with socket.create_server(("127.0.0.1", 0)) as probe:  # it does not tell a port it chose
        port = probe.getsockname()[1]
    print(port, flush=True)
    StockServer(InstantPolicy(), "127.0.0.1", port).serve_forever()


def serve_raw() -> None:
    """Read as many bytes as an observation has, answer with as many as a reply has."""
    request = bytearray(len(codec.encode(observation())))
    reply = codec.encode(InstantPolicy().infer({}))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        connection = listener.accept()[0]
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while receive(connection, request):
        connection.sendall(reply)


def receive(connection: socket.socket, into: bytearray) -> bool:
    """Fill the buffer; False at the end of the stream."""
    view = memoryview(into)
    while view:
        count = connection.recv_into(view)
        if count == 0:
            return False
        view = view[count:]
    return True


@contextmanager
def server_process(kind: str, *, realtime: bool) -> Iterator[int]:
    """Run a server in a process of its own; give its port."""
    command = [sys.executable, __file__, "--serve", kind, *["--realtime"] * realtime]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


# --------------------------------------------------------------------------------------------- clients


@contextmanager
def client(kind: str, port: int) -> Iterator[Infer]:
    """Connect; give a function that makes one round trip."""
    obs = observation()
    if kind == "ours":
        config = ConnectionConfig(url=f"ws://127.0.0.1:{port}", image_transport="raw")
        with RemotePolicy(config=config) as policy:
            yield lambda: policy.infer(obs)
    elif kind == "stock":
        stock = stock_client(port)
        with closing(stock._ws):
            yield lambda: stock.infer(obs)
    else:
        request, reply = codec.encode(obs), bytearray(len(codec.encode(InstantPolicy().infer({}))))
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def exchange() -> None:
                connection.sendall(request)
                receive(connection, reply)

            yield exchange


def stock_client(port: int) -> Any:
    """Connect OpenPI's client, as soon as its server listens."""
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    while True:
        try:
            return WebsocketClientPolicy("127.0.0.1", port)
        except ConnectionRefusedError:
            time.sleep(0.05)


# ----------------------------------------------------------------------------------------- measurement


def measure(settings: Settings) -> dict[str, list[list[float]]]:
    """Return, for each pairing and round, the round-trip times in ms."""
    times: dict[str, list[list[float]]] = {name: [] for name in PAIRINGS}
    shuffle = random.Random(settings.seed).shuffle
    if settings.realtime:
        take_precedence()
    with ExitStack() as stack:
        ports = {
            name: stack.enter_context(server_process(server, realtime=settings.realtime))
            for name, (_, server) in PAIRINGS.items()
        }
        infers = {
            name: stack.enter_context(client(kind, ports[name]))
            for name, (kind, _) in PAIRINGS.items()
        }
        for done in range(settings.rounds):
            order = list(PAIRINGS)
            shuffle(order)
            for name in order:
                started = time.perf_counter()
                times[name].append(one_turn(infers[name], settings.calls))
                if settings.realtime:
                    time.sleep(time.perf_counter() - started)  # the others' turn
            if sys.stderr.isatty():
                print(f"\rround {done + 1} of {settings.rounds}", end="\r", file=sys.stderr)
    return times


def one_turn(infer: Infer, calls: int) -> list[float]:
    """Return the times of some round trips in ms, after three to warm up."""
    for _ in range(3):
        infer()
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        infer()
        times.append((time.perf_counter() - started) * 1000)
    return times


def ratio(above: Sequence[Sequence[float]], below: Sequence[Sequence[float]]) -> float:
    """Return the median over the rounds of the ratio of the rounds' medians."""
    return median(median(a) / median(b) for a, b in zip(above, below, strict=True))


def figures(times: dict[str, list[list[float]]]) -> dict[str, dict[str, float]]:
    """Boil the times down to what is reported."""
    result = {}
    for name, rounds in times.items():
        every = np.concatenate(rounds)
        result[name] = {
            "p50_ms": float(np.percentile(every, 50)),
            "p99_ms": float(np.percentile(every, 99)),
            "over_floor": ratio(rounds, times[FLOOR]),
            "stock_over_this": ratio(times[STOCK], rounds),
        }
    return result


# ---------------------------------------------------------------------------------------------- report


def machine() -> dict[str, str]:
    """Describe where and with what this was measured."""
    names = (
        "numpy",
        "msgspec",
        "picows",
        "msgpack",
        "websockets",
        "openpi-client",
        "openpi-server",
    )
    return {
        "cpu": f"{os.cpu_count()} x {cpu_model()}",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "commit": present_commit(),
        "versions": ", ".join(f"{name} {version(name)}" for name in names),
    }


def cpu_model() -> str:
    """Return the processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(": ")[2] for line in lines if "model name" in line), "?")


def report(result: dict[str, dict[str, float]]) -> str:
    """Lay the figures out as a table."""
    lines = [f"{'client / server':<22}{'p50 ms':>8}{'p99 ms':>9}{'x floor':>9}{'stock/this':>12}"]
    lines += [
        f"{name:<22}{f['p50_ms']:8.2f}{f['p99_ms']:9.2f}{f['over_floor']:9.1f}{f['stock_over_this']:12.2f}"
        for name, f in result.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and report."""
    settings = tyro.cli(Settings, prog="round_trip.py", description=DESCRIPTION)
    where = machine()
    result = figures(measure(settings))
    print(report(result))
    print(" | ".join(f"{key}: {text}" for key, text in where.items()))
    if settings.json is not None:
        content = {
            "benchmark": "round_trip",
            "request_bytes": len(codec.encode(observation())),
            "rounds": settings.rounds,
            "calls": settings.calls,
            "machine": where,
            "pairings": result,
        }
        settings.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], realtime="--realtime" in sys.argv)
    else:
        main()
