# SPDX-License-Identifier: Apache-2.0
"""What a gateway costs, and what it saves: round trip, throughput, CPU, and requests lost while servers die.

In: nothing. Out: tables of medians and differences, and a JSON file where asked for.
Each server, the gateway and the clients are processes of their own. What is compared takes turns in random
order, so that whatever else the machine does falls on all alike. Read the differences, not the digits.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parent))  # also where a test imports this file

from round_trip import machine

from pi05_websocket.client.config import ConnectionConfig
from pi05_websocket.client.dialling import open_transport
from pi05_websocket.client.transport import Transport
from pi05_websocket.wire import codec

BASE_S, EACH_S, BATCH = 0.020, 0.002, 16
"""A batch of b takes 20 + 2b ms."""

CAPACITY = {"stock": 1 / (BASE_S + EACH_S), "ours": BATCH / (BASE_S + BATCH * EACH_S)}
"""Observations a second of one policy: stock takes one at a time, ours 16."""

SIZES = {"1.07 MB": 345, "49 KB": 128}
"""Name to the side of the images: three of the large ones, one of the small."""

DESCRIPTION = """\
Measure a gateway before two policy servers, OpenPI's own and this project's, against one server directly. A
batch of b observations takes the policy 20 + 2b ms; stock takes one at a time.

  round trip   one client, a gateway and the server behind it against the server alone
  throughput   1, 4, 16, 64 clients that ask as soon as they are answered, over two servers
  faults       16 clients at 4 Hz; one of two servers is killed and started again, then the other frozen

examples:
  python benchmarks/relay.py --rounds 3 --seconds 2
  python benchmarks/relay.py --json relay.json
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to measure."""

    rounds: int = 10
    """Turns of each cell. The reported differences are medians over the rounds."""

    calls: int = 20
    """Round trips in each turn, after three that do not count."""

    seconds: float = 3.0
    """Length of each turn of throughput."""

    clients: tuple[int, ...] = (1, 4, 16, 64)
    """Clients at once."""

    connections: int | None = None
    """The gateway's --upstream-connections; None: its default."""

    parts: tuple[str, ...] = ("round trip", "throughput", "faults")
    """What to measure of the three."""

    json: Path | None = None
    """Write all figures to this file."""

    seed: int = 0
    """Of the order in which the cells take turns."""


def request(size: str, number: int = 0) -> bytes:
    """Encode an observation; images of noise, since nothing on the way looks at them."""
    side = SIZES[size]
    rng = np.random.default_rng(0)
    names = ("a", "b", "c") if size == "1.07 MB" else ("a",)
    images = {name: rng.integers(0, 256, (side, side, 3), np.uint8) for name in names}
    return codec.encode({**images, "state": np.zeros(6, np.float32), "number": number})


# ------------------------------------------------------------------------------- servers, one process each


class Timed:
    """A policy for one at a time."""

    def infer(self, obs: dict[str, Any], /) -> dict[str, Any]:
        """Return `{"actions": (50, 32) float32, "number": ...}` after 22 ms."""
        time.sleep(BASE_S + EACH_S)
        return self.answer(obs)

    def answer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Echo the observation's number."""
        return {"actions": np.zeros((50, 32), np.float32), "number": obs["number"]}


class TimedBatch(Timed):
    """A policy for several at once."""

    def infer_batch(self, observations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return one result for each after 20 + 2b ms."""
        time.sleep(BASE_S + EACH_S * len(observations))
        return [self.answer(obs) for obs in observations]


def serve(kind: str, port: int, words: Sequence[str]) -> None:
    """Serve until killed; print the port first."""
    if kind == "stock":
        from openpi_server.websocket_policy_server import WebsocketPolicyServer as StockServer

        print(port, flush=True)
        StockServer(Timed(), "127.0.0.1", port).serve_forever()
        return
    from pi05_websocket.gateway import GatewayConfig, PolicyGateway
    from pi05_websocket.server import WebsocketPolicyServer
    from pi05_websocket.server.app import PolicyServer

    server: PolicyServer
    if kind == "gateway":
        connections, *upstreams = words
        gateway = GatewayConfig(upstream_connections=int(connections) or None)
        server = PolicyGateway(upstreams, port=port, gateway=gateway)
    else:
        server = WebsocketPolicyServer(TimedBatch(), port=port)
    server.serve_forever(listening=lambda: print(server.port, flush=True))


class Process:
    """A server in a process of its own."""

    def __init__(self, kind: str, *words: str, port: int = 0) -> None:
        command = [sys.executable, __file__, "--serve", kind, str(port or free_port()), *words]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"ws://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def cpu_s(self) -> float:
        """Return the CPU time it has used, in seconds."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it at once. Safe to call twice."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def free_port() -> int:
    """Return a port nobody listens on."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def pool(kind: str, settings: Settings, servers: int) -> Iterator[tuple[list[Process], Process]]:
    """Run servers and a gateway before them."""
    with ExitStack() as stack:
        behind = []
        for _ in range(servers):
            behind.append(Process(kind))
            stack.callback(behind[-1].kill)
        words = (str(settings.connections or 0), *(process.url for process in behind))
        gateway = Process("gateway", *words)
        stack.callback(gateway.kill)
        yield behind, gateway


# --------------------------------------------------------------------------------------------- clients


class Client:
    """Asks and awaits the answer, with as little work of its own as possible: the bytes are ready."""

    def __init__(self, url: str) -> None:
        self._config = ConnectionConfig(url=url)
        self._loop = asyncio.get_running_loop()
        self._transport = Transport(self, self._config.max_message_bytes)
        self._answer: asyncio.Future[bytes | str] = self._loop.create_future()

    async def connect(self) -> Client:
        """Connect, as soon as the server lets us in; await its metadata."""
        while True:
            try:
                await open_transport(self._config, self._transport)
                break
            except Exception:
                await asyncio.sleep(0.05)
                self._transport = Transport(self, self._config.max_message_bytes)
        await self._answer
        return self

    async def ask(self, message: bytes) -> bytes:
        """Return the answer.

        Raises:
            RuntimeError: It is an error.
            ConnectionError: The connection is gone.
        """
        self._answer = self._loop.create_future()
        self._transport.send_copy(message)
        answer = await self._answer
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer

    def close(self) -> None:
        """Disconnect."""
        self._transport.close()

    def on_message(self, payload: bytes | str) -> None:
        """Take an answer."""
        if not self._answer.done():
            self._answer.set_result(payload)

    def on_ended(self, code: int, reason: str) -> None:
        """Take the end."""
        if not self._answer.done():
            self._answer.set_exception(ConnectionError(f"closed: {code} {reason}"))


async def round_trips(client: Client, message: bytes, calls: int) -> list[float]:
    """Return the times of some round trips in ms, after three to warm up."""
    for _ in range(3):
        await client.ask(message)
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        await client.ask(message)
        times.append(1000 * (time.perf_counter() - began))
    return times


async def closed_loop(url: str, message: bytes, count: int, seconds: float) -> list[float]:
    """Let so many clients ask as fast as they are answered; return the round trips in ms, warm-up left out."""
    clients = [await Client(url).connect() for _ in range(count)]
    times: list[float] = []
    warm = time.perf_counter() + 0.5
    end = warm + seconds

    async def ask(client: Client) -> None:
        while (began := time.perf_counter()) < end:
            await client.ask(message)
            done = time.perf_counter()
            if warm <= done < end:
                times.append(1000 * (done - began))

    await asyncio.gather(*(ask(client) for client in clients))
    for client in clients:
        client.close()
    return times


# ----------------------------------------------------------------------------------------- round trip


async def measure_round_trip(settings: Settings) -> dict[str, dict[str, float]]:
    """Return the figures of each server and size, direct and through the gateway."""
    shuffle = random.Random(settings.seed).shuffle
    times: dict[tuple[str, str, str], list[list[float]]] = {}
    with ExitStack() as stack:
        cells: list[tuple[tuple[str, str, str], Client, bytes]] = []
        for kind in CAPACITY:
            (server,), gateway = stack.enter_context(pool(kind, settings, 1))
            for way, url in (("direct", server.url), ("gateway", gateway.url)):
                client = await Client(url).connect()
                cells += [((kind, size, way), client, request(size)) for size in SIZES]
        for _ in range(settings.rounds):
            shuffle(cells)
            for name, client, message in cells:
                times.setdefault(name, []).append(
                    await round_trips(client, message, settings.calls)
                )
        for _, client, _ in cells:
            client.close()
    result = {}
    for kind, size, way in sorted(times):
        rounds = times[kind, size, way]
        direct = times[kind, size, "direct"]
        every = np.concatenate(rounds)
        result[f"{kind}, {size}, {way}"] = {
            "p50_ms": float(np.percentile(every, 50)),
            "p99_ms": float(np.percentile(every, 99)),
            "more_than_direct_ms": median(
                median(a) - median(b) for a, b in zip(rounds, direct, strict=True)
            ),
        }
    return result


# ----------------------------------------------------------------------------------------- throughput


@dataclass
class Turns:
    """What the turns of one cell came to."""

    a_second: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)


async def measure_throughput(settings: Settings) -> dict[str, dict[str, float]]:
    """Return observations a second, waits and the gateway's CPU for each server, size and number of clients."""
    shuffle = random.Random(settings.seed).shuffle
    turns: dict[tuple[str, str, int, str], Turns] = {}
    with ExitStack() as stack:
        cells: list[tuple[tuple[str, str, int, str], str, Process | None]] = []
        for kind in CAPACITY:
            servers, gateway = stack.enter_context(pool(kind, settings, 2))
            ways: list[tuple[str, str, Process | None]] = [
                ("direct, one server", servers[0].url, None),
                ("gateway, two", gateway.url, gateway),
            ]
            if kind == "stock" and settings.connections is None:
                two = Process("gateway", "2", *(server.url for server in servers))
                stack.callback(two.kill)
                ways.append(("gateway, two, 2 connections each", two.url, two))
            cells += [
                ((kind, size, count, way), url, process)
                for size in SIZES
                for count in settings.clients
                for way, url, process in ways
            ]
        for _ in range(max(settings.rounds // 3, 1)):
            shuffle(cells)
            for (kind, size, count, way), url, process in cells:
                before = process.cpu_s() if process else 0.0
                began = time.perf_counter()
                times = await closed_loop(url, request(size), count, settings.seconds)
                turn = turns.setdefault((kind, size, count, way), Turns())
                turn.a_second.append(len(times) / settings.seconds)
                turn.p50_ms.append(float(np.percentile(times, 50)))
                turn.p99_ms.append(float(np.percentile(times, 99)))
                if process:
                    share = settings.seconds / (time.perf_counter() - began)
                    used_ms = 1000 * (process.cpu_s() - before) * share
                    turn.cpu_ms.append(used_ms / len(times))
    return {
        f"{kind}, {size}, {count} clients, {way}": {
            "a_second": median(turn.a_second),
            "of_capacity": median(turn.a_second) / (CAPACITY[kind] * (2 if turn.cpu_ms else 1)),
            "p50_ms": median(turn.p50_ms),
            "p99_ms": median(turn.p99_ms),
            "gateway_cpu_ms": median(turn.cpu_ms) if turn.cpu_ms else 0.0,
        }
        for (kind, size, count, way), turn in sorted(turns.items())
    }


# ----------------------------------------------------------------------------------------------- faults


async def measure_faults(settings: Settings) -> dict[str, dict[str, float]]:
    """Kill one of two servers and freeze the other; return what was lost and the longest wait."""
    result = {}
    for kind in CAPACITY:
        with pool(kind, settings, 2) as (servers, gateway):
            plan = threading.Thread(target=break_them, args=(kind, servers))
            plan.start()
            result[kind] = await robots(gateway.url, 16, 4.0, seconds=16.0)
            plan.join()
            servers[0].kill()
    return result


def break_them(kind: str, servers: list[Process]) -> None:
    """Kill the first, start it again, freeze the second, let it go on: one event every three seconds."""
    time.sleep(3)
    servers[0].kill()
    time.sleep(3)
    servers[0] = Process(kind, port=servers[0].port)
    time.sleep(3)
    servers[1].signal(signal.SIGSTOP)
    time.sleep(3)
    servers[1].signal(signal.SIGCONT)


async def robots(url: str, count: int, rate: float, *, seconds: float) -> dict[str, float]:
    """Let robots ask at a fixed rate, one request at a time; count what is lost and foreign, and the waits."""
    lost, foreign, waits = 0, 0, []
    end = time.perf_counter() + seconds

    async def drive(robot: int) -> None:
        nonlocal lost, foreign
        client = await Client(url).connect()
        due = time.perf_counter() + robot / (rate * count)
        number = robot * 1_000_000
        while due < end:
            await asyncio.sleep(due - time.perf_counter())
            number += 1
            began = time.perf_counter()
            try:
                answer = codec.decode(await client.ask(request("49 KB", number)))
                foreign += answer["number"] != number
            except (RuntimeError, ConnectionError):
                lost += 1
                client = await Client(url).connect()
            waits.append(1000 * (time.perf_counter() - began))
            due = max(due + 1 / rate, time.perf_counter())
        client.close()

    await asyncio.gather(*(drive(robot) for robot in range(count)))
    return {
        "requests": len(waits),
        "lost": lost,
        "foreign": foreign,
        "p50_ms": float(np.percentile(waits, 50)),
        "worst_ms": max(waits),
    }


# ----------------------------------------------------------------------------------------------- report


def table(title: str, rows: dict[str, dict[str, float]]) -> str:
    """Lay figures out."""
    names = list(next(iter(rows.values())))
    lines = [f"{title:<64}" + "".join(f"{name:>21}" for name in names)]
    lines += [
        f"{name:<64}" + "".join(f"{row[key]:21.2f}" for key in names) for name, row in rows.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and report."""
    settings = tyro.cli(Settings, prog="relay.py", description=DESCRIPTION)
    measures = {
        "round trip": measure_round_trip,
        "throughput": measure_throughput,
        "faults": measure_faults,
    }
    where, figures = machine(), {}
    for part in settings.parts:
        figures[part] = asyncio.run(measures[part](settings))
        print(table(part, figures[part]), flush=True)
    where["load at the end"] = " ".join(f"{load:.1f}" for load in os.getloadavg())
    print(" | ".join(f"{key}: {text}" for key, text in where.items()))
    if settings.json is not None:
        content = {
            "benchmark": "relay",
            "request_bytes": {size: len(request(size)) for size in SIZES},
            "rounds": settings.rounds,
            "calls": settings.calls,
            "seconds": settings.seconds,
            "connections": settings.connections,
            "machine": where,
            **figures,
        }
        settings.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
    else:
        main()
