# SPDX-License-Identifier: Apache-2.0
"""How many robots a server serves, and how well: this project's server and OpenPI's own, side by side.

In: nothing. Out: a table of throughput, times, missed deadlines, health checks and CPU, and a JSON file.
Each server is a process of its own and all clients are one other; the two servers take turns, cell by cell, so
that whatever else the machine does falls on both alike. Read the ratios, not the digits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import picows
import tyro
from round_trip import machine, observation

from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.wire import codec

Server = Literal["ours", "stock"]
Cost = Literal["batched", "single"]

DESCRIPTION = """\
Put closed-loop clients, and robots at a fixed rate, before a server; with a policy that takes its time:

  batched   20 ms and 2 ms for each observation of a batch (at most 16)
  single    20 ms for each observation, one after the other

Everybody sends raw images (1.07 MB an observation), as OpenPI's clients do, and stock requests: no client says
a deadline. A robot at a fixed rate asks twice a second, and misses when its answer takes more than 0.5 s.

examples:
  python benchmarks/server_load.py
  python benchmarks/server_load.py --clients 1 16 --seconds 3 --rounds 1
  python benchmarks/server_load.py --json docs/figures/server_load.json
  python benchmarks/server_load.py --slow-seconds 60 --clients 1    # does an inference of a minute survive?
"""

RATE_HZ = 2.0
HEALTH_EVERY_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to measure."""

    clients: tuple[int, ...] = (1, 4, 16, 64, 256)
    """Numbers of clients."""

    costs: tuple[Cost, ...] = ("batched", "single")
    """Policies."""

    seconds: float = 5.0
    """Length of each measurement, after one second that does not count: throughput, times and CPU, then as long
    again health checks under the same load."""

    rounds: int = 3
    """Turns of each server in each cell; medians over them are reported."""

    slow_seconds: float = 0.0
    """Instead of all this: whether an inference that takes so long is answered, by each server."""

    json: Path | None = None
    """Write all figures to this file."""


class Policy:
    """Takes its time, and answers with zeros; `cost` is the seconds that a batch takes."""

    def __init__(self, cost: Callable[[int], float]) -> None:
        self.cost = cost
        self.actions = np.zeros((50, 32), np.float32)

    def infer(self, obs: dict[str, Any], /) -> dict[str, Any]:
        """Return `{"actions": (50, 32) float32}`."""
        time.sleep(self.cost(1))
        return {"actions": self.actions}


class Batching(Policy):
    """The same for several at once."""

    def infer_batch(self, observations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return one result for each."""
        time.sleep(self.cost(len(observations)))
        return [{"actions": self.actions} for _ in observations]


def policy(cost: str) -> Policy:
    """Return the policy of that name, or one that takes so many seconds."""
    if cost == "batched":
        return Batching(lambda size: 0.020 + 0.002 * size)
    return Policy(lambda _: 0.020 if cost == "single" else float(cost))


# ----------------------------------------------------------------------------- servers, one process each


def serve(kind: str, cost: str) -> None:
    """Serve until killed; print the port first."""
    if kind == "ours":
        config = ServerConfig(max_connections=1024, max_queue_s=1e6)
        server = WebsocketPolicyServer(policy(cost), port=0, config=config)
        server.serve_forever(listening=lambda: print(server.port, flush=True))
        return
    from openpi_server.websocket_policy_server import WebsocketPolicyServer as StockServer

    with socket.create_server(("127.0.0.1", 0)) as probe:  # it does not tell a port it chose
        port = probe.getsockname()[1]
    print(port, flush=True)
    StockServer(policy(cost), "127.0.0.1", port).serve_forever()


@contextlib.contextmanager
def server_process(kind: Server, cost: str) -> Iterator[tuple[int, int]]:
    """Run a server in a process of its own; give its port and process number."""
    command = [sys.executable, __file__, "--serve", kind, cost]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), process.pid
        finally:
            process.kill()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time a process has used, all threads together, to the nanosecond (Linux)."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


# --------------------------------------------------------------------------------------------- clients


class Client(picows.WSListener):  # type: ignore[misc]  # picows is compiled and untyped for mypy
    """A stock client, as far as the wire sees: one observation under way, the next when asked to."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []
        """When each request was sent and when its reply came."""
        self.transport: Any = None
        self._reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def on_ws_connected(self, transport: Any) -> None:
        """Take the transport."""
        self.transport = transport

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """Take a whole message."""
        if not self._reply.done():
            self._reply.set_result(bytes(frame.get_payload_as_memoryview()[:16]))

    def on_ws_disconnected(self, transport: Any) -> None:
        """Fail whoever waits."""
        if not self._reply.done():
            self._reply.set_exception(ConnectionResetError("the server hung up"))

    def leave(self) -> None:
        """Hang up; nobody waits any more."""
        self._reply.cancel()
        self.transport.disconnect(graceful=False)

    async def message(self) -> bytes:
        """Wait for the next message; return how it begins."""
        try:
            return await self._reply
        finally:
            self._reply = asyncio.get_running_loop().create_future()

    async def infer(self, request: bytes) -> None:
        """Make one round trip."""
        sent = time.perf_counter()
        self.transport.send(picows.WSMsgType.BINARY, request)
        if (await self.message())[:1] == b"T":
            raise RuntimeError("the server answered with an error")
        self.times.append((sent, time.perf_counter()))


async def connect(port: int) -> Client:
    """Connect, as soon as the server listens, and take its metadata."""
    while True:
        try:
            _, client = await picows.ws_connect(
                Client, f"ws://127.0.0.1:{port}/", max_frame_size=64 << 20
            )
        except OSError:
            await asyncio.sleep(0.05)
            continue
        found: Client = client
        await found.message()
        return found


async def ask_at_once(client: Client, request: bytes, _number: int) -> None:
    """Ask again as soon as there is an answer."""
    while True:
        await client.infer(request)


async def ask_at_a_rate(client: Client, request: bytes, number: int) -> None:
    """Ask twice a second, each robot at its own moment; later where the answer took longer."""
    due = time.perf_counter() + number * 0.618 % 1.0 / RATE_HZ
    while True:
        await asyncio.sleep(max(due - time.perf_counter(), 0.0))
        await client.infer(request)
        due = max(due + 1.0 / RATE_HZ, time.perf_counter())


async def check_health(port: int, took: list[float]) -> None:
    """Ask whether the server is alive, twenty times a second; one that is still open counts as it stands."""
    while True:
        began = time.perf_counter()
        took.append(0.0)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await reader.read()
            writer.close()
        finally:
            took[-1] = 1000 * (time.perf_counter() - began)
        await asyncio.sleep(HEALTH_EVERY_S)


@dataclass(kw_only=True)
class Measured:
    """One turn of one server in one cell. Times in milliseconds."""

    throughput: float
    """Observations answered a second."""
    p50_ms: float
    p99_ms: float
    missed: float
    """Share of the requests that were answered later than half a second, or not at all."""
    health_p50_ms: float
    health_max_ms: float
    cpu_ms: float
    """Of the server process, for each observation."""
    observations: int = field(repr=False)


async def one_turn(port: int, pid: int, clients: int, seconds: float, at_a_rate: bool) -> Measured:
    """Let so many clients ask for so long."""
    request = codec.encode(observation())
    robots = [await connect(port) for _ in range(clients)]
    ask: Callable[[Client, bytes, int], Awaitable[None]] = (
        ask_at_a_rate if at_a_rate else ask_at_once
    )
    health: list[float] = []
    tasks = [asyncio.ensure_future(ask(robot, request, i)) for i, robot in enumerate(robots)]
    await asyncio.sleep(1.0)
    began, cpu_began = time.perf_counter(), cpu_seconds(pid)
    await asyncio.sleep(seconds)
    ended, cpu_ended = time.perf_counter(), cpu_seconds(pid)
    # Afterwards, under the same load: a server that answers more health checks would be charged for them.
    tasks.append(asyncio.ensure_future(check_health(port, health)))
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(outcome, asyncio.CancelledError):
            raise RuntimeError(f"a client stopped: {outcome!r}")
    for robot in robots:
        robot.leave()
    return measured(
        [pair for robot in robots for pair in robot.times if began <= pair[1] < ended],
        clients,
        ended - began,
        cpu_ended - cpu_began,
        health,
    )


def measured(
    times: list[tuple[float, float]],
    clients: int,
    seconds: float,
    cpu_s: float,
    health: list[float],
) -> Measured:
    """Boil one turn down. A client without any answer counts as one that missed."""
    took = np.array([1000 * (end - sent) for sent, end in times] or [1000 * seconds])
    late = int((took > 500.0).sum()) + max(clients - len(times), 0)
    return Measured(
        throughput=len(times) / seconds,
        p50_ms=float(np.percentile(took, 50)),
        p99_ms=float(np.percentile(took, 99)),
        missed=late / max(len(times), clients),
        health_p50_ms=float(np.median(health)),
        health_max_ms=max(health),
        cpu_ms=1000 * cpu_s / max(len(times), 1),
        observations=len(times),
    )


# ----------------------------------------------------------------------------------------- measurement


def cells(settings: Settings) -> Iterator[tuple[Cost, int, bool]]:
    """Policy, clients, whether they ask at a rate."""
    for cost in settings.costs:
        for clients in settings.clients:
            yield cost, clients, False
    for clients in settings.clients:
        if clients > 1:
            yield "batched", clients, True


def measure(settings: Settings) -> list[dict[str, Any]]:
    """Return a list of cells with the figures of both servers, medians over the rounds."""
    result = []
    for cost, clients, at_a_rate in cells(settings):
        turns: dict[Server, list[Measured]] = {"ours": [], "stock": []}
        for _ in range(settings.rounds):
            for kind in turns:
                with server_process(kind, cost) as (port, pid):
                    turns[kind].append(
                        asyncio.run(one_turn(port, pid, clients, settings.seconds, at_a_rate))
                    )
        cell: dict[str, Any] = {"policy": cost, "clients": clients, "at_a_rate": at_a_rate}
        for kind, several in turns.items():
            cell[kind] = {
                name: float(np.median([asdict(turn)[name] for turn in several]))
                for name in asdict(several[0])
            }
        result.append(cell)
        print(line(cell), flush=True)
    return result


HEAD = (
    f"{'policy':<8}{'clients':>8} {'asking':<9}"
    f"{'obs/s: stock':>13}{'ours':>7}{'ratio':>7}"
    f"{'p50 ms: stock':>15}{'ours':>7}{'p99: stock':>12}{'ours':>7}{'ratio':>7}"
    f"{'missed: stock':>15}{'ours':>7}{'health max ms: stock':>22}{'ours':>7}"
    f"{'CPU ms/obs: stock':>19}{'ours':>6}{'ratio':>7}"
)


def line(cell: dict[str, Any]) -> str:
    """Lay one cell out as a line under `HEAD`."""
    ours, stock = cell["ours"], cell["stock"]
    asking = f"{RATE_HZ:g} Hz" if cell["at_a_rate"] else "at once"
    return (
        f"{cell['policy']:<8}{cell['clients']:>8} {asking:<9}"
        f"{stock['throughput']:>13.1f}{ours['throughput']:>7.1f}"
        f"{ours['throughput'] / max(stock['throughput'], 1e-9):>7.2f}"
        f"{stock['p50_ms']:>15.0f}{ours['p50_ms']:>7.0f}{stock['p99_ms']:>12.0f}{ours['p99_ms']:>7.0f}"
        f"{ours['p99_ms'] / stock['p99_ms']:>7.2f}"
        f"{stock['missed']:>15.0%}{ours['missed']:>7.0%}"
        f"{stock['health_max_ms']:>22.0f}{ours['health_max_ms']:>7.0f}"
        f"{stock['cpu_ms']:>19.2f}{ours['cpu_ms']:>6.2f}{ours['cpu_ms'] / stock['cpu_ms']:>7.2f}"
    )


async def survives(port: int, seconds: float) -> str:
    """Ask with OpenPI's own client for an inference that takes so long."""
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    def ask() -> str:
        while True:
            try:
                client = WebsocketClientPolicy("127.0.0.1", port)
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        began = time.monotonic()
        try:
            client.infer(observation())
        except Exception as exc:  # whatever it is, it is the figure
            return f"{type(exc).__name__} after {time.monotonic() - began:.0f} s: {exc}"
        return f"answered after {time.monotonic() - began:.0f} s"

    health: list[float] = []
    checks = asyncio.ensure_future(check_health(port, health))
    answer = await asyncio.to_thread(ask)
    checks.cancel()
    return f"{answer}; health check {max(health):.0f} ms at worst"


def main() -> None:
    """Measure and report."""
    settings = tyro.cli(Settings, prog="server_load.py", description=DESCRIPTION)
    where = machine()
    content: dict[str, Any] = {"benchmark": "server_load", "machine": where}
    if settings.slow_seconds:
        for kind in ("ours", "stock"):
            with server_process(kind, str(settings.slow_seconds)) as (port, _):
                content[kind] = asyncio.run(survives(port, settings.slow_seconds))
                print(f"{kind}: {content[kind]}", flush=True)
    else:
        print(HEAD)
        content["cells"] = measure(settings)
    print(" | ".join(f"{key}: {text}" for key, text in where.items()))
    if settings.json is not None:
        settings.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:4])
    else:
        main()
