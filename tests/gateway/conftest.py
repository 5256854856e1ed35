# SPDX-License-Identifier: Apache-2.0
"""Upstreams on free ports, a gateway before them, robots before the gateway."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from upstreams import Gate, reach

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.gateway import GatewayConfig, PolicyGateway
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.server.records import Listener


class World:
    """Starts what a test needs; everything is closed at the end, last first."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def upstream(self, policy: Any, port: int = 0, **settings: Any) -> WebsocketPolicyServer:
        """Start a server of ours."""
        config = ServerConfig(**({"ping_interval_s": 0} | settings))
        server = WebsocketPolicyServer(policy, "127.0.0.1", port, config=config)
        return self._keep(server.start())

    def gateway(
        self,
        *upstreams: Any,
        ready: int | None = None,
        gateway: dict[str, Any] | None = None,
        listeners: Sequence[Listener] = (),
        **settings: Any,
    ) -> PolicyGateway:
        """Start a gateway and wait until so many of its upstreams can be used; None: all."""
        urls = [upstream if isinstance(upstream, str) else upstream.url for upstream in upstreams]
        server = PolicyGateway(
            urls,
            port=0,
            config=ServerConfig(**({"ping_interval_s": 0} | settings)),
            gateway=GatewayConfig(**(gateway or {})),
            listeners=listeners,
        )
        self._keep(server.start())
        count = len(urls) if ready is None else ready
        reach(lambda: sum(state.usable for state in server.upstreams) >= count)
        return server

    def robot(self, server: Any, wait: float = 20.0, **settings: Any) -> RemotePolicy:
        """Connect a client of ours."""
        settings = {"image_transport": "raw", "backoff_first": 0.01, "backoff_max": 0.05} | settings
        config = ConnectionConfig(url=server.url, **settings)
        return self._keep(RemotePolicy(config=config, wait_for_server=wait))

    def _keep(self, thing: Any) -> Any:
        self._stack.callback(thing.close)
        return thing


@pytest.fixture
def world() -> Iterator[World]:
    """Start servers, gateways and robots."""
    with contextlib.ExitStack() as stack:
        yield World(stack)


@pytest.fixture
def make_gate() -> Iterator[Callable[..., Gate]]:
    """Make policies that wait; they open for everybody at the end."""
    gates: list[Gate] = []

    def make(*words: Any) -> Gate:
        gates.append(Gate(*words))
        return gates[-1]

    yield make
    for gate in gates:
        gate.let_through(1000)
