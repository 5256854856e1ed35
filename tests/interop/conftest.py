# SPDX-License-Identifier: Apache-2.0
"""OpenPI's own client and server beside ours, on free ports."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import pytest
from openpi_client.base_policy import BasePolicy
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from openpi_server.websocket_policy_server import WebsocketPolicyServer as StockServer

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer


def mission_observation(seed: int = 0) -> dict[str, Any]:
    """Return an observation of the SO-101 with full-size images."""
    rng = np.random.default_rng(seed)
    return {
        "observation/images/wrist2": rng.integers(0, 256, (224, 224, 3), np.uint8),
        "observation/images/realsense": rng.integers(0, 256, (480, 640, 3), np.uint8),
        "observation/state": rng.normal(size=6).astype(np.float32),
        "prompt": "pick up the cube",
    }


def answer(observation: dict[str, Any]) -> dict[str, Any]:
    """Compute an answer that depends on every byte of the observation."""
    arrays = {k: v for k, v in observation.items() if isinstance(v, np.ndarray)}
    return {
        "actions": np.tile(observation["observation/state"].astype(np.float64), (50, 1)),
        "sums": {key: int(value.sum(dtype=np.int64)) for key, value in arrays.items()},
        "prompt": str(observation["prompt"]),
        "policy_timing": {"infer_ms": 1.0},
    }


class Summing(BasePolicy):  # type: ignore[misc]  # OpenPI's own base class, as a user's policy has it
    """Answers with `answer`."""

    def __init__(self) -> None:
        self.metadata = {"reset_pose": [0.0, -1.5]}

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Return `answer(obs)`."""
        return answer(obs)


class Gate(BasePolicy):  # type: ignore[misc]
    """A slow model: each inference waits to be let through."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Semaphore(0)

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Wait, then answer with the observation's number."""
        self.entered.release()
        assert self.opened.acquire(timeout=20)
        return {"actions": np.zeros((1, 6)), "number": obs["number"]}


class RunningServer(Protocol):
    """A server that can be asked for its port and stopped."""

    port: int

    def close(self) -> None:
        """Stop."""


class StockInThread:
    """OpenPI's server, unchanged, on a loop of its own."""

    def __init__(self, policy: BasePolicy, port: int, metadata: dict[str, Any] | None) -> None:
        self.port = port or _free_port()
        self._server = StockServer(policy, "127.0.0.1", self.port, metadata)
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._server.run())
        self._thread = threading.Thread(target=self._serve, name="stock server")
        self._thread.start()
        for _ in itertools.repeat(None, 2000):  # OpenPI's server tells nobody when it listens
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            self._thread.join(0.01)
        raise AssertionError("the stock server does not listen")

    def _serve(self) -> None:
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.close()

    def close(self) -> None:
        """Cancel it, as Ctrl-C would. Safe to call twice."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


Start = Callable[..., Any]


def _our_server(
    policy: BasePolicy, port: int, metadata: dict[str, Any] | None, **settings: Any
) -> RunningServer:
    config = ServerConfig(ping_interval_s=0, **settings)
    return WebsocketPolicyServer(policy, "127.0.0.1", port, metadata, config=config).start()


def _our_client(port: int) -> RemotePolicy:
    config = ConnectionConfig(url=f"ws://127.0.0.1:{port}", backoff_first=0.01, backoff_max=0.05)
    return RemotePolicy(config=config, wait_for_server=20)


SERVERS: dict[str, Start] = {"our server": _our_server, "stock server": StockInThread}
CLIENTS: dict[str, Start] = {
    "our client": _our_client,
    "stock client": lambda port: WebsocketClientPolicy("127.0.0.1", port),
}


class Starter:
    """Starts servers or clients and closes them at the end, last first."""

    def __init__(self) -> None:
        self._running: list[Any] = []

    def server(
        self,
        kind: str,
        policy: BasePolicy,
        *,
        port: int = 0,
        metadata: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Any:
        """Start a server of a kind."""
        return self._keep(SERVERS[kind](policy, port, metadata, **settings))

    def client(self, kind: str, port: int) -> Any:
        """Connect a client of a kind."""
        return self._keep(CLIENTS[kind](port))

    def close(self) -> None:
        """Close everything."""
        for thing in reversed(self._running):
            if isinstance(thing, WebsocketClientPolicy):
                thing._ws.close()  # OpenPI's client has no close
            else:
                thing.close()

    def _keep(self, thing: Any) -> Any:
        self._running.append(thing)
        return thing


@pytest.fixture
def start() -> Iterator[Starter]:
    """Start what a test needs."""
    starter = Starter()
    yield starter
    starter.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A slow model that lets everybody through at the end."""
    policy = Gate()
    yield policy
    for _ in range(100):
        policy.opened.release()


@pytest.fixture
def summing() -> Summing:
    """A policy whose answer depends on every byte."""
    return Summing()


@pytest.fixture
def observe() -> Callable[[int], dict[str, Any]]:
    """Make mission-size observations."""
    return mission_observation


@pytest.fixture
def expected() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Compute what `summing` answers."""
    return answer
