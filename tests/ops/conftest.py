# SPDX-License-Identifier: Apache-2.0
"""An operations port with a server behind it, and clients for both."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pi05_websocket.client import RemotePolicy
from pi05_websocket.ops import OpsConfig, make_ops_port
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.server.keys_file import add_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Steps:
    """A policy that answers at once, unless it is held."""

    def __init__(self) -> None:
        self.metadata = {"policy": "steps", "action_names": ["pan", "lift"]}
        self.go = threading.Event()
        self.go.set()

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Answer with a ramp; without a state as a policy does that misses its camera."""
        assert self.go.wait(20)
        observation["observation/state"]
        return {"actions": np.arange(6, dtype=np.float32).reshape(3, 2)}


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Site:
    """A server with its operations port."""

    ops: Any
    policy: Steps
    server: WebsocketPolicyServer | None
    secrets: dict[str, str]
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def ask(
        self, path: str, *, method: str = "GET", key: str = "", headers: Any = (), host: str = ""
    ) -> Answer:
        """Ask over HTTP, with a key's secret where one is named."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ops.port, timeout=10)
        sent = dict(headers) | ({"Authorization": f"Bearer {self.secrets[key]}"} if key else {})
        connection.request(method, path, headers=sent | ({"Host": host} if host else {}))
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        connection.close()
        return answer

    def act(self, action: str, key: str = "admin") -> Answer:
        """Do something, as the page does."""
        return self.ask(
            f"/api/actions/{action}", method="POST", key=key, headers={"X-Pi05-Ops": "1"}
        )

    def robot(self) -> RemotePolicy:
        """Connect a robot; it goes at the end."""
        assert self.server is not None
        return self.stack.enter_context(RemotePolicy("127.0.0.1", self.server.port))

    def eventually(self, true: Callable[[dict[str, Any]], Any], what: str = "/api/state") -> Any:
        """Ask for the state until something is so, and return what is so."""
        until = time.monotonic() + 20
        while time.monotonic() < until:
            found = true(self.ask(what).json)
            if found:
                return found
            threading.Event().wait(0.02)
        raise AssertionError(f"not so: {self.ask(what).text}")


@pytest.fixture
def open_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Open sites on free ports; they are closed at the end."""
    pytest.importorskip("starlette", reason="needs the extra ops")
    pytest.importorskip("uvicorn", reason="needs the extra ops")
    with contextlib.ExitStack() as stack:

        def start(
            *, keys: bool = True, serving: bool = True, ops: Any = (), **settings: Any
        ) -> Site:
            file = tmp_path / "ops-keys.json"
            secrets = {"wrong": "nonsense"}
            if keys:
                secrets["admin"] = add_key(file, "admin", NOW)
                secrets["viewer"] = add_key(file, "viewer", NOW, paths=("/",))
                secrets["prometheus"] = add_key(file, "prometheus", NOW, paths=("/metrics",))
            config = OpsConfig(
                **{"ops_port": 0, "ops_admin_key_file": str(file) if keys else None} | dict(ops)
            )
            server_config = ServerConfig(**{"ping_interval_s": 0} | settings)
            policy = Steps()
            port = stack.enter_context(make_ops_port(config, server_config, policy="module:steps"))
            server = None
            if serving:
                server = WebsocketPolicyServer(
                    policy, port=0, config=server_config, listeners=[port.listener]
                )
                stack.enter_context(server)
                port.watch(server)
            site = Site(port, policy, server, secrets)
            stack.callback(policy.go.set)
            stack.enter_context(site.stack)
            return site

        yield start
