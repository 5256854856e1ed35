# SPDX-License-Identifier: Apache-2.0
"""The policy server as an ASGI application: the same conversation behind uvicorn, hypercorn or Ray Serve.

In: ASGI's scopes of HTTP, WebSocket and lifespan. Out: a backend's answers, under the plain server's rules: any
path is a WebSocket, `GET /healthz` is answered with `OK`, who is not let in is told before the handshake.
Runs on the event loop; nothing is decoded here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pi05_websocket.server.asgi_connection import (
    AsgiConnection,
    Message,
    Peer,
    Receive,
    Send,
    close_reason,
)
from pi05_websocket.server.backend import Backend, BackendFactory
from pi05_websocket.server.closing import (
    CLOSE_GOING_AWAY,
    CLOSE_KEY_OVER,
    CLOSE_TRY_AGAIN_LATER,
    LOOK_AGAIN_S,
    STOP_GOODBYE_TIMEOUT_S,
)
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.doorkeeper import Doorkeeper
from pi05_websocket.server.http import HEALTH_PATH, UPGRADE_REQUIRED, refusal_headers
from pi05_websocket.server.keys import Refusal
from pi05_websocket.server.open_connections import OpenConnections, close_out_of_bounds
from pi05_websocket.server.reception import Guest, Reception
from pi05_websocket.server.records import Listener

__all__ = ["PolicyApp", "refuse", "requested_path"]

logger = logging.getLogger(__name__)

_OVERDUE_S = 0.25

_STOPPING = "it is stopping"


class PolicyApp:
    """Serves one policy, or whatever a backend asks, to the clients of an ASGI server.

    What the plain server does with the socket itself, the ASGI server has to be told: messages as large as
    `max_message_bytes` (uvicorn: `ws_max_size`), pings, TLS, no compression (`ws_per_message_deflate=False`).
    """

    def __init__(
        self,
        backend: BackendFactory,
        metadata: Callable[[], Mapping[str, Any]],
        *,
        config: ServerConfig | None = None,
        doorkeeper: Doorkeeper | None = None,
        listeners: Sequence[Listener] = (),
        connections: OpenConnections[AsgiConnection] | None = None,
        reads_ahead: bool = False,
        through_proxy: bool = False,
    ) -> None:
        """Prepare the application; it begins with its first scope.

        Args:
            backend: Makes what answers, on the event loop.
            metadata: What is sent first on a connection that opens now.
            config: Bounds and behaviour; those about the listening socket are the ASGI server's business.
            doorkeeper: Knows the keys, where several applications share them; None: by `config.keys`.
            listeners: Told who comes and goes and what becomes of each request, see `server.records`.
            connections: Where several applications share the bounds over all connections, and the listeners.
            reads_ahead: The ASGI server reads on although nobody calls `receive`, as Ray Serve does: a client
                with twice as many requests waiting as the settings allow is then closed with 1008.
            through_proxy: Every client comes through a proxy that says nothing of it: none is on this machine.

        Raises:
            ConfigError: If the keys file cannot be read.
        """
        self._make_backend = backend
        self._metadata = metadata
        self._config = config or ServerConfig()
        self._doorkeeper = doorkeeper or Doorkeeper(self._config.keys)
        self._reads_ahead = reads_ahead
        self._through_proxy = through_proxy
        self._all = OpenConnections(listeners) if connections is None else connections
        self._own: OpenConnections[AsgiConnection] = OpenConnections()
        self._unready: str | None = None
        self._backend: Backend | None = None
        self._reception = Reception(
            self._config,
            self._doorkeeper,
            unready=self._why_unready,
            full=lambda: len(self._all) >= self._config.max_connections,
            waits=lambda: () if self._backend is None else self._backend.waits(),
            tell=self._all.tell,
        )
        self._drained: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        state = "idle" if self._backend is None else self._unready or "serving"
        return f"<PolicyApp {state} connections={len(self._own)}>"

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one scope."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await _answer_http(scope, send)
        elif scope["type"] == "websocket":
            await self._converse(scope, receive, send)

    def start(self) -> None:
        """Begin, on the running event loop. Safe to call twice."""
        if self._backend is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._drained = asyncio.Event()
        self._backend = self._make_backend(
            self._config,
            lambda outcomes: self._call(self._reception.deliver, outcomes),
            lambda: self._call(self._drained.set),
        )
        self._backend.start()
        self._tasks = [
            self._loop.create_task(self._look_again_now_and_then()),
            self._loop.create_task(self._refuse_overdue_now_and_then()),
        ]

    def change(self, config: ServerConfig) -> None:
        """Go over to other settings: keys count for everybody at once, the rest for who comes from now on.

        Raises:
            ConfigError: If the keys file cannot be read; then everything stays as it was.
        """
        self._doorkeeper.change(config.keys)
        self._config = config
        self._reception.change(config)

    async def drain(
        self, code: int = CLOSE_GOING_AWAY, reason: str = "the server is stopping"
    ) -> None:
        """Let nobody in; say goodbye to each client once its requests are answered; then end. Not undone.

        An ASGI server closes its sockets before it tells an application of its end: call this before.
        """
        if self._backend is None or self._unready is not None:
            return
        self._unready = _STOPPING
        for connection in self._own:
            connection.leave(code, reason)
        if not await self._all_gone(self._config.stop_timeout_s):
            logger.warning("not every request was answered in time; their clients get no reply")
        self._own.close(code, reason)
        self._backend.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.stop_timeout_s):
                await self._drained.wait()
        await self._all_gone(STOP_GOODBYE_TIMEOUT_S)
        self._own.abort()
        for task in self._tasks:
            task.cancel()

    # -------------------------------------------------------------------------------------------------

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.drain()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _converse(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        self.start()
        assert self._backend is not None
        await receive()  # websocket.connect
        guest = self._admit(scope)
        if isinstance(guest, Refusal):
            await refuse(guest, scope, send)
            return
        host, port = scope.get("client") or ("?", None)
        connection = AsgiConnection(
            guest,
            Peer(host=str(host), port=port, through_proxy=self._through_proxy),
            self._metadata(),
            self._config,
            self._backend,
            self._all,
            doorkeeper=self._doorkeeper,
            send=send,
            reads_ahead=self._reads_ahead,
        )
        for connections in (self._all, self._own):  # counts from now on, while we shake hands
            connections.add(connection)
        try:
            await send({"type": "websocket.accept"})
            await connection.run(receive)
        finally:
            for connections in (self._all, self._own):
                connections.discard(connection)

    def _admit(self, scope: Mapping[str, Any]) -> Guest | Refusal:
        headers = _Headers(scope)
        host, _ = scope.get("client") or ("?", None)
        return self._reception.admit(
            path=requested_path(scope),
            authorization=headers.named(b"authorization"),
            forwarded=headers.named(b"x-forwarded-for"),
            host=str(host),
        )

    def _why_unready(self) -> str | None:
        assert self._backend is not None
        return self._unready or self._backend.unready

    def _call(self, callback: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._loop.call_soon_threadsafe(callback, *args)

    async def _look_again_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            self._doorkeeper.look_again()
            self._all.close_unwelcome()
            close_out_of_bounds(self._all, self._config.max_held_bytes)

    async def _refuse_overdue_now_and_then(self) -> None:
        assert self._backend is not None
        while True:
            await asyncio.sleep(_OVERDUE_S)
            if self._backend.waiting:
                self._backend.refuse_overdue()

    async def _all_gone(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self._own.all_gone()
        except TimeoutError:
            return False
        return True


async def refuse(refusal: Refusal, scope: Mapping[str, Any], send: Send) -> None:
    """Answer a WebSocket that is not let in, before its handshake: by HTTP, if the ASGI server can."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        code = CLOSE_TRY_AGAIN_LATER if refusal.status == 503 else CLOSE_KEY_OVER
        await send({"type": "websocket.close", "code": code, "reason": close_reason(refusal.text)})
        return
    headers = {"Content-Type": "text/plain; charset=utf-8"} | refusal_headers(refusal)
    await _respond(send, "websocket.http.response", refusal.status, headers, refusal.text.encode())


def requested_path(scope: Mapping[str, Any]) -> str:
    """Return the path as the client wrote it, with its query."""
    path = scope.get("raw_path") or str(scope["path"]).encode("utf-8", "surrogateescape")
    query = scope.get("query_string") or b""
    return bytes(path + b"?" + query if query else path).decode("ascii", "replace")


async def _answer_http(scope: Mapping[str, Any], send: Send) -> None:
    """Answer what is no WebSocket, as the plain server does."""
    if requested_path(scope).encode() == HEALTH_PATH:
        await _respond(send, "http.response", 200, {"Content-Type": "text/plain"}, b"OK\n")
        return
    headers = {"Content-Type": "text/plain", "Upgrade": "websocket"}
    await _respond(send, "http.response", 426, headers, UPGRADE_REQUIRED)


async def _respond(
    send: Send, kind: str, status: int, headers: Mapping[str, str], body: bytes
) -> None:
    head = {**headers, "Content-Length": str(len(body))}
    start: Message = {
        "type": f"{kind}.start",
        "status": status,
        "headers": [(name.lower().encode(), value.encode()) for name, value in head.items()],
    }
    await send(start)
    await send({"type": f"{kind}.body", "body": body})


class _Headers:
    """A request's headers; bytes that are no ASCII become surrogates, as the plain server has them."""

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self._pairs = scope.get("headers") or ()

    def named(self, name: bytes) -> list[str]:
        return [
            bytes(value).decode("ascii", "surrogateescape")
            for found, value in self._pairs
            if found.lower() == name
        ]
