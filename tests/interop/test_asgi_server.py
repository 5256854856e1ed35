# SPDX-License-Identifier: Apache-2.0
"""The ASGI application behind a real uvicorn, with OpenPI's own client and ours."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import uvicorn
from openpi_client.websocket_client_policy import WebsocketClientPolicy

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.server.asgi import PolicyApp
from pi05_websocket.server.worker import PolicyWorker

pytestmark = [
    # What OpenPI's own client does with websockets.
    pytest.mark.filterwarnings(r"ignore:connect\(\) must be used as a context:DeprecationWarning"),
]

OBSERVATION = {
    "observation/state": np.arange(6, dtype=np.float32),
    "observation/images/wrist2": np.arange(224 * 224 * 3, dtype=np.uint8).reshape(224, 224, 3),
    "prompt": "pick",
}


class Echo:
    """Answers with what it was asked."""

    def infer(self, observation: dict[str, Any], /) -> dict[str, Any]:
        """Return the state, twice, and the sum of the image."""
        if "fail" in observation:
            raise KeyError("observation/image")
        state = np.asarray(observation["observation/state"])
        seen = int(np.asarray(observation["observation/images/wrist2"]).sum())
        return {"actions": np.stack([state, state]), "seen": seen}


@pytest.fixture
def port() -> Iterator[int]:
    """A uvicorn with the application, in a thread of its own."""

    def backend(config: ServerConfig, deliver: Any, stopped: Any) -> PolicyWorker:
        return PolicyWorker(Echo(), config, deliver, stopped)

    app = PolicyApp(backend, lambda: {"name": "echo"})
    config = uvicorn.Config(
        app, log_config=None, ws_max_size=64 << 20, ws_per_message_deflate=False, lifespan="on"
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()
    listener.close()


def test_the_answer_is_the_plain_servers(port: int) -> None:
    """Byte for byte but for the timings, for the stock client and ours."""
    with WebsocketPolicyServer(Echo(), port=0) as plain:
        answers = []
        for asked in (plain.port, port):
            client = WebsocketClientPolicy("127.0.0.1", asked)
            answers.append(client.infer(OBSERVATION))
            client._ws.close()
    with RemotePolicy(config=ConnectionConfig(url=f"ws://127.0.0.1:{port}")) as ours:
        answers.append(ours.infer(OBSERVATION))
    for answer in answers:
        assert answer["seen"] == int(OBSERVATION["observation/images/wrist2"].sum())
        np.testing.assert_array_equal(answer["actions"], answers[0]["actions"])


def test_a_stock_client_sees_a_stock_error(port: int) -> None:
    """OpenPI's client raises what OpenPI's server would have it raise."""
    client = WebsocketClientPolicy("127.0.0.1", port)
    with pytest.raises(RuntimeError, match="KeyError: 'observation/image'"):
        client.infer({"fail": True})
    client._ws.close()


def test_the_health_check(port: int) -> None:
    """200 and OK."""
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    asking.request("GET", "/healthz")
    response = asking.getresponse()
    assert (response.status, response.read()) == (200, b"OK\n")
    asking.close()
