# SPDX-License-Identifier: Apache-2.0
"""Servers that misbehave on purpose, on real sockets: whole WebSocket servers and bare TCP ones."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from pi05_websocket.client import ConnectionConfig, RemotePolicy
from pi05_websocket.wire import codec

METADATA = codec.encode({})
OBSERVATION = {
    "observation/state": np.arange(6, dtype=np.float32),
    "observation/images/wrist2": np.zeros((224, 224, 3), np.uint8),
    "prompt": "pick up the cube",
}

Script = Callable[[ServerConnection], None]


def reply(value: float = 0.0, rows: int = 10) -> bytes:
    """Return a valid answer: `rows` rows of six times `value`."""
    return codec.encode({"actions": np.full((rows, 6), value, np.float64)})


def upgrade(connection: socket.socket) -> None:
    """Do the server's half of the WebSocket handshake by hand."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(65536)
    headers = dict(
        line.split(": ", 1) for line in request.decode().split("\r\n")[1:] if ": " in line
    )
    headers = {name.lower(): value for name, value in headers.items()}
    key = headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
    )


class ScriptedServer:
    """A WebSocket server that runs `script` for each connection; may be stopped and started again."""

    def __init__(
        self, script: Script, *, port: int = 0, tls: ssl.SSLContext | None = None, **options: Any
    ):
        self.connections = 0
        self._script = script
        self._tls = tls
        self._options = options
        self.port = port
        self._server: Server | None = None
        self.start()

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = serve(
            self._run,
            "127.0.0.1",
            self.port,
            compression=None,
            max_size=None,
            ssl=self._tls,
            **self._options,
        )
        self.port = self._server.socket.getsockname()[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self.port}"

    def _run(self, connection: ServerConnection) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionClosed):
            self._script(connection)


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedServer]]:
    """Return a function that starts a scripted server; all stop at the end."""
    servers: list[ScriptedServer] = []

    def start(script: Script, **options: Any) -> ScriptedServer:
        servers.append(ScriptedServer(script, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def bare_tcp() -> Iterator[Callable[[Callable[[socket.socket], None]], int]]:
    """Return a function that starts a TCP server calling `talk` for each connection; returns its port."""
    listeners: list[socket.socket] = []

    def start(talk: Callable[[socket.socket], None]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with contextlib.suppress(OSError), connection:
                        talk(connection)

        threading.Thread(target=accept, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture
def remote() -> Iterator[Callable[..., RemotePolicy]]:
    """Return a function that makes a remote policy with short waits; all are closed at the end."""
    policies: list[RemotePolicy] = []

    def make(url: str, wait_for_server: float = 0, **changed: Any) -> RemotePolicy:
        short = {
            "connect_timeout": 2.0,
            "handshake_timeout": 0.5,
            "metadata_timeout": 0.5,
            "request_timeout": 0.4,
            "first_request_timeout": 3.0,
            "backoff_first": 0.02,
            "backoff_max": 0.1,
        }
        config = ConnectionConfig(url=url, **{**short, **changed})
        policies.append(RemotePolicy(config=config, wait_for_server=wait_for_server))
        return policies[-1]

    yield make
    for policy in policies:
        policy.close()


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Wait until the condition holds; say whether it did."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return condition()
