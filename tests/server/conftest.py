# SPDX-License-Identifier: Apache-2.0
"""Servers on a free port, and a client that speaks WebSocket frame by frame."""

from __future__ import annotations

import base64
import itertools
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.wire import codec

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA

OBSERVATION = {"observation/state": np.arange(6, dtype=np.float32), "prompt": "pick"}


class FrameClient:
    """A blocking client that can say anything, legal or not."""

    def __init__(self, port: int, path: str = "/", headers: str = "") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n".encode()
        )
        self._file = self.socket.makefile("rb")
        self._said_goodbye = False
        assert b" 101 " in self._file.readline()
        while self._file.readline() != b"\r\n":
            pass

    def send(self, kind: int, payload: bytes = b"", *, fin: bool = True) -> None:
        """Send one frame."""
        self._said_goodbye |= kind == CLOSE
        size = len(payload)
        short = size if size < 126 else 126 if size < 65536 else 127
        extended = b"" if size < 126 else struct.pack(">H" if size < 65536 else ">Q", size)
        head = bytes([(0x80 if fin else 0) | kind, 0x80 | short])
        self.socket.sendall(head + extended + bytes(4) + payload)  # a mask of zeros

    def receive(self) -> tuple[int, bytes]:
        """Receive one frame: its kind and payload; (-1, b"") at the end."""
        head = self._file.read(2)
        if len(head) < 2:
            return -1, b""
        size = head[1]
        if size >= 126:
            code = ">H" if size == 126 else ">Q"
            (size,) = struct.unpack(code, self._file.read(struct.calcsize(code)))
        return head[0] & 0x0F, self._file.read(size)

    def request(self, observation: Any) -> None:
        """Send an observation."""
        self.send(BINARY, codec.encode(observation))

    def reply(self) -> Any:
        """Receive a binary message and decode it."""
        kind, payload = self.receive()
        assert kind == BINARY, (kind, payload)
        return codec.decode(payload)

    def closed(self) -> tuple[int, str]:
        """Receive a close frame, answer it, and return its code and reason."""
        kind, payload = self.receive()
        assert kind == CLOSE, (kind, payload)
        if not self._said_goodbye:
            self.send(CLOSE, payload[:2])
        return struct.unpack(">H", payload[:2])[0], payload[2:].decode()

    def close(self) -> None:
        """Cut the connection without a word."""
        self._file.close()
        self.socket.close()


class Gate:
    """A policy whose inference waits to be let through; counts what it was given."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Semaphore(0)
        self.numbers: list[int] = []

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Wait, then return the observation's number."""
        self.entered.release()
        assert self.opened.acquire(timeout=20)
        self.numbers.append(observation["number"])
        return {"actions": np.zeros((1, 6), np.float32), "number": observation["number"]}


class Scripted:
    """A policy that does what the observation's `do` says."""

    def __init__(self) -> None:
        self.result: Any = {
            "actions": np.ones((2, 6), np.float32),
            "policy_timing": {"infer_ms": 1.5},
        }
        self.metadata = {"name": "scripted"}

    def infer(self, observation: dict[str, Any]) -> Any:
        """Fail, exit or return as told."""
        do = observation.get("do", "")
        if do == "fail":
            raise KeyError("observation/image")
        if do == "exit":
            raise SystemExit(3)
        if do == "list":
            return [1]
        if do == "set":
            return {"debug": {"seen": {1}}}
        return self.result


@pytest.fixture
def serve() -> Iterator[Callable[..., WebsocketPolicyServer]]:
    """Start servers on free ports; they are closed at the end."""
    servers: list[WebsocketPolicyServer] = []

    def start(
        policy: Any, *args: Any, listeners: Any = (), **settings: Any
    ) -> WebsocketPolicyServer:
        config = ServerConfig(**({"ping_interval_s": 0} | settings))
        server = WebsocketPolicyServer(
            policy, "127.0.0.1", *(args or (0,)), config=config, listeners=listeners
        )
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., FrameClient]]:
    """Open clients; they are closed at the end."""
    clients: list[FrameClient] = []

    def open_client(
        server: WebsocketPolicyServer, path: str = "/", headers: str = ""
    ) -> FrameClient:
        client = FrameClient(server.port, path, headers)
        clients.append(client)
        return client

    yield open_client
    for client in clients:
        client.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A gate that opens for everybody at the end, so that no thread is left behind."""
    policy = Gate()
    yield policy
    for _ in itertools.repeat(None, 100):
        policy.opened.release()


@pytest.fixture
def scripted() -> Scripted:
    """A policy that does what it is told."""
    return Scripted()
