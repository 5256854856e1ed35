# SPDX-License-Identifier: Apache-2.0
"""The other side of an ASGI application: what a server such as uvicorn would say, by hand."""

from __future__ import annotations

import asyncio
from typing import Any

from pi05_websocket.wire import codec


class AsgiClient:
    """One scope of an application; the test says what the client does. On the running event loop."""

    def __init__(self, app: Any, kind: str = "websocket", **scope: Any) -> None:
        said = {
            "type": kind,
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "headers": [],
            "client": ("127.0.0.1", 50000),
            "extensions": {"websocket.http.response": {}},
        }
        self.received = 0
        """How often the application has asked for something."""
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._vanished = False
        self._reads = asyncio.Event()
        self._reads.set()
        self.task = asyncio.ensure_future(app(said | scope, self._receive, self._send))
        if kind == "websocket":
            self._inbox.put_nowait({"type": "websocket.connect"})

    async def _receive(self) -> dict[str, Any]:
        self.received += 1
        return await self._inbox.get()

    async def _send(self, message: dict[str, Any]) -> None:
        if self._vanished:
            raise OSError("gone")
        await self._reads.wait()
        await self._outbox.put(message)

    def vanish(self) -> None:
        """Let everything fail that is sent from now on."""
        self._vanished = True

    def stall(self) -> None:
        """Read nothing from now on: what is sent does not leave."""
        self._reads.clear()

    def send(self, payload: bytes | str) -> None:
        """Send a whole message."""
        key = "text" if isinstance(payload, str) else "bytes"
        self._inbox.put_nowait({"type": "websocket.receive", key: payload})

    def request(self, observation: Any) -> None:
        """Send an observation."""
        self.send(codec.encode(observation))

    def say(self, kind: str, **more: Any) -> None:
        """Let the server say something else."""
        self._inbox.put_nowait({"type": kind, **more})

    async def sent(self) -> dict[str, Any]:
        """Return the next thing that the application sends."""
        async with asyncio.timeout(10):
            return await self._outbox.get()

    async def reply(self) -> Any:
        """Return the next message, decoded."""
        message = await self.sent()
        assert message["type"] == "websocket.send", message
        return codec.decode(message["bytes"])

    async def opened(self) -> Any:
        """Take the handshake and return the metadata."""
        assert await self.sent() == {"type": "websocket.accept"}
        return await self.reply()

    async def ended(self) -> None:
        """Wait until the application is done with this scope."""
        async with asyncio.timeout(10):
            await self.task
