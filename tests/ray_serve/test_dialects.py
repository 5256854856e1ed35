# SPDX-License-Identifier: Apache-2.0
"""Clients of several server families at the ingress: raw messages, as their own clients send them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from pi05_websocket.wire import codec

OBSERVATION = {"robot": 1, "number": 4, "prompt": "pick"}
ACTIONS = np.full((2, 6), 4, np.float32).tolist()


class Raw:
    """A client that sends maps and reads whatever comes."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.metadata = self.heard()

    def heard(self) -> Any:
        """Return the next message: text as it is, binary decoded."""
        message = self._socket.recv(timeout=30)
        return message if isinstance(message, str) else codec.decode(message)

    def asked(self, message: Any) -> Any:
        """Send a message, a map or a text; return what comes back."""
        self._socket.send(message if isinstance(message, str) else codec.encode(message))
        return self.heard()

    def closed(self) -> int:
        """Return the code with which the server says goodbye."""
        with pytest.raises(ConnectionClosed) as caught:
            self._socket.recv(timeout=30)
        assert caught.value.rcvd is not None
        return caught.value.rcvd.code


@contextmanager
def client(cluster: Any, path: str) -> Iterator[Raw]:
    """Connect to a path of the ingress."""
    cluster.serving("Numbered")
    url = f"ws://127.0.0.1:{cluster.port}{path}"
    with connect(url, compression=None, max_size=None) as socket:
        yield Raw(socket)


@pytest.mark.parametrize("path", ["/", "/openpi"])
def test_openpi(cluster: Any, path: str) -> None:
    """A map with actions and timings; a failure is a text, and the end."""
    with client(cluster, path) as raw:
        assert raw.metadata["version"] == "v1"
        reply = raw.asked(OBSERVATION)
        assert reply["actions"].tolist() == ACTIONS
        assert "infer_ms" in reply["server_timing"]
        assert "KeyError: 'observation/image'" in raw.asked(OBSERVATION | {"fail": True})
        assert raw.closed() == 1011


def test_roboarena(cluster: Any) -> None:
    """Six settings and no more in the metadata, a text for a reset, a map with actions."""
    with client(cluster, "/roboarena") as raw:
        assert sorted(raw.metadata) == [
            "action_space",
            "image_resolution",
            "n_external_cameras",
            "needs_session_id",
            "needs_stereo_camera",
            "needs_wrist_camera",
        ]
        assert raw.asked({"endpoint": "reset"}) == "reset successful"
        reply = raw.asked({"endpoint": "infer", "session_id": "a", **OBSERVATION})
        assert reply["actions"].tolist() == ACTIONS


def test_dreamzero(cluster: Any) -> None:
    """RoboArena's messages, and the bare array."""
    with client(cluster, "/dreamzero") as raw:
        assert raw.metadata["needs_session_id"] is True
        assert raw.asked({"endpoint": "reset"}) == "reset successful"
        reply = raw.asked({"endpoint": "infer", "session_id": "a", **OBSERVATION})
        assert reply.tolist() == ACTIONS


def test_vllm_omni(cluster: Any) -> None:
    """A map for a reset, the bare array, and errors that leave the connection open."""
    with client(cluster, "/v1/realtime/robot/openpi") as raw:
        assert raw.asked({"endpoint": "reset"}) == {"status": "reset successful"}
        error = raw.asked({"session_id": "a", **OBSERVATION, "fail": True})
        assert error["type"] == "error"
        assert "observation/image" in error["message"]
        assert "text message" in raw.asked("hello")["message"]
        assert raw.asked({"session_id": "a", **OBSERVATION}).tolist() == ACTIONS
