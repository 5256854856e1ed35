# SPDX-License-Identifier: Apache-2.0
"""Our client, told to send JPEG, before OpenPI's own server: stock bytes, whatever the setting says."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from openpi_client import msgpack_numpy
from openpi_client.base_policy import BasePolicy
from websockets.sync.server import serve

from pi05_websocket.client import ConnectionConfig, RemotePolicy

pytestmark = pytest.mark.openpi


class Showing(BasePolicy):  # type: ignore[misc]  # OpenPI's own base class, as a user's policy has it
    """Keeps what it was shown."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Answer with zeros."""
        self.seen.append(obs)
        return {"actions": np.zeros((1, 6))}


@pytest.mark.parametrize("transport", ["auto", "raw", "jpeg"])
def test_a_stock_server_gets_every_pixel(start: Any, observe: Any, transport: Any) -> None:
    """It announces nothing, so it is sent arrays."""
    policy, sent = Showing(), observe(1)
    server = start.server("stock server", policy)
    config = ConnectionConfig(url=f"ws://127.0.0.1:{server.port}", image_transport=transport)
    with RemotePolicy(config=config, wait_for_server=20) as remote:
        for _ in range(5):
            remote.infer(sent)
    for seen in policy.seen:
        assert seen.keys() == sent.keys()
        for key, value in sent.items():
            np.testing.assert_array_equal(seen[key], value)


@pytest.mark.parametrize("transport", ["auto", "jpeg"])
def test_a_stock_server_gets_stock_bytes(observe: Any, transport: Any) -> None:
    """What OpenPI's own packer would have written, to the byte, also far away."""
    sent, received = observe(2), []

    def answer(socket: Any) -> None:
        socket.send(msgpack_numpy.packb({}))
        for message in socket:
            received.append(message)
            socket.send(msgpack_numpy.packb({"actions": np.zeros((1, 6))}))

    with serve(answer, "127.0.0.1", 0, max_size=None, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]
        config = ConnectionConfig(url=f"ws://127.0.0.1:{port}", image_transport=transport)
        with RemotePolicy(config=config, wait_for_server=20) as remote:
            remote.infer(sent)
        server.shutdown()
        thread.join(10)
    assert received == [msgpack_numpy.packb(sent)]
