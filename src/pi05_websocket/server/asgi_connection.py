# SPDX-License-Identifier: Apache-2.0
"""One client's WebSocket behind an ASGI server: metadata first, whole requests on, replies in order.

Runs on the event loop: a task that reads and one that writes. Nothing is decoded here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from pi05_websocket.server.account import Account, said_for
from pi05_websocket.server.backend import Backend
from pi05_websocket.server.backlog import Backlog
from pi05_websocket.server.bounds import Conduct
from pi05_websocket.server.closing import (
    CLOSE_KEY_OVER,
    CLOSE_OUT_OF_BOUNDS,
    CLOSE_TOO_BIG,
    GOODBYE_TIMEOUT_S,
    LAST_WORD_TIMEOUT_S,
    no_room_for,
)
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.dialect_choice import dialect_name
from pi05_websocket.server.doorkeeper import Doorkeeper
from pi05_websocket.server.exposure import shows_tracebacks
from pi05_websocket.server.open_connections import OpenConnections
from pi05_websocket.server.reception import Guest
from pi05_websocket.server.requests import Answered, Failed, Outcome, Request
from pi05_websocket.wire.dialects import DIALECTS
from pi05_websocket.wire.protocol import (
    CLOSE_INTERNAL_ERROR,
    TRACEBACK_CLOSE_REASON,
    ServerProtocol,
)

__all__ = ["AsgiConnection", "Message", "Peer", "Receive", "Send", "close_reason"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_LONGEST_REASON = 123
"""Bytes that a close frame has room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Where a client has come from."""

    host: str
    """Address of the nearest peer."""

    port: int | None

    through_proxy: bool = False
    """The nearest peer is a proxy's, whoever the client is: it does not count as one on this machine."""

    def seen(self, forwarded: str | None) -> str:
        """Return where it is, for the log."""
        peer = self.host if self.port is None else f"{self.host}:{self.port}"
        return peer if forwarded is None else f"{forwarded} via {peer}"


@dataclass(frozen=True, slots=True)
class _Goodbye:
    code: int
    reason: str


class AsgiConnection:
    """A client that asks. `deliver` brings the outcome of each of its requests, in order."""

    def __init__(
        self,
        guest: Guest,
        peer: Peer,
        metadata: Mapping[str, Any],
        config: ServerConfig,
        backend: Backend,
        connections: OpenConnections[AsgiConnection],
        *,
        doorkeeper: Doorkeeper,
        send: Send,
        reads_ahead: bool = False,
    ) -> None:
        self.state: dict[str, Any] = {}
        self._account = Account(connections, who=guest.who, path=guest.path)
        self.number = self._account.number
        self._guest = guest
        self._peer = peer
        self._config = config
        self._backend = backend
        self._doorkeeper = doorkeeper
        self._send = send
        self._reads_ahead = reads_ahead
        self._protocol = ServerProtocol(
            metadata,
            debug=config.debug or (not peer.through_proxy and shows_tracebacks(peer.host, config)),
            limits=config.limits,
            encoded_images=config.encoded_images,
            deadlines=config.deadlines,
            dialect=DIALECTS[dialect_name(config, guest.path, guest.key)],
        )
        self._backlog = Backlog(config, reads_ahead=reads_ahead)
        # The ASGI server has the socket: no bytes are counted here.
        self._conduct = Conduct(config, time.monotonic(), 0)
        self._is_sending = False
        self._room = asyncio.Event()
        self._room.set()
        self._to_send: asyncio.Queue[tuple[Request, Outcome] | _Goodbye] = asyncio.Queue()
        self._leaving: _Goodbye | None = None
        self._closing = False
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def __repr__(self) -> str:
        state = "closing" if self._closing else "open"
        account = self._account
        return (
            f"<AsgiConnection {self.number} {account.peer} {state} exchanges={account.exchanges}>"
        )

    @property
    def held_bytes(self) -> int:
        """Bytes of its requests that wait."""
        return self._backlog.nbytes

    async def run(self, receive: Receive) -> None:
        """Talk to the client until one of both says goodbye."""
        self._account.opened(self._peer.seen(self._guest.forwarded))
        loop = asyncio.get_running_loop()
        self._tasks = (loop.create_task(self._read(receive)), loop.create_task(self._write()))
        try:
            done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled() and isinstance(task.exception(), Exception):
                    self._account.ends(f"lost: {task.exception()!r}")
        finally:
            self._closing = True
            self.abort()
            self._backend.forget(self)
            self._account.closed()

    def ping(self) -> None:
        """Nothing: the ASGI server sends pings of its own."""

    def close_if_unwelcome(self) -> None:
        """Say goodbye to a client whose key is no longer good."""
        if not self._doorkeeper.may_stay(self._guest.key, self._guest.path):
            who = self._guest.who
            self.close(CLOSE_KEY_OVER, f"the key {who} was revoked or replaced, or has expired")

    def close_for_room(self) -> None:
        """End a connection that holds more than the server has room for."""
        self._cut(no_room_for(self.held_bytes))

    def close_if_out_of_bounds(self) -> None:
        """End a connection whose reading takes too long."""
        self._cut(self._conduct.look(received=0, reading=True, now=time.monotonic()))

    def leave(self, code: int, reason: str) -> None:
        """Say goodbye as soon as every request that was read is answered; read no more."""
        self._leaving = self._leaving or _Goodbye(code, reason)
        self._room.clear()
        self._leave_if_done()

    def close(self, code: int, reason: str) -> None:
        """Say goodbye now; what waits is not answered. Safe to call twice."""
        if self._closing:
            return
        self._closing = True
        self._account.ends(f"{code} {reason}")
        self._backend.forget(self)
        self._to_send.put_nowait(_Goodbye(code, reason))
        self._room.set()  # what else it sends is read, and dropped
        asyncio.get_running_loop().call_later(GOODBYE_TIMEOUT_S, self.abort)

    def abort(self) -> None:
        """End without a word."""
        for task in self._tasks:
            task.cancel()

    def deliver(self, request: Request, outcome: Outcome) -> None:
        """Send the outcome of one request."""
        if not self._closing:
            self._to_send.put_nowait((request, outcome))

    # ---------------------------------------------------------------------------------------- reading

    async def _read(self, receive: Receive) -> None:
        while True:
            if not self._reads_ahead:
                await self._room.wait()
            message = await receive()
            if message["type"] == "websocket.disconnect":
                reason = f" {message.get('reason')!r}" if message.get("reason") else ""
                self._account.ends(f"{message.get('code', 1005)} by the client{reason}")
                return
            if self._leaving is None and not self._closing:
                self._submit(_payload_of(message))

    def _submit(self, payload: bytes | str) -> None:
        if len(payload) > self._config.max_message_bytes:
            limit = self._config.max_message_bytes
            self.close(CLOSE_TOO_BIG, f"a message of more than {limit} bytes")
            return
        refusal = self._doorkeeper.too_many(self._guest.key)
        self._account.asked(len(payload))
        request = Request(
            connection=self,
            number=self._account.requests,
            protocol=self._protocol,
            payload=payload if refusal is None else "",
            arrived=time.perf_counter(),
            priority=self._doorkeeper.rank(self._guest.key),
            refusal=refusal,
        )
        too_many = self._backlog.add(len(request.payload))
        if too_many is not None:
            self._cut(too_many)
            return
        self._backend.submit(request)
        self._look_for_room()

    # ---------------------------------------------------------------------------------------- writing

    async def _write(self) -> None:
        await self._say(self._protocol.metadata_message)
        while True:
            item = await self._to_send.get()
            if isinstance(item, _Goodbye):
                await self._say_goodbye(item)
                return
            request, outcome = item
            await self._answer(request, outcome)
            if isinstance(outcome, Failed) and outcome.closes:
                self._account.ends(f"{CLOSE_INTERNAL_ERROR} {outcome.cause}")
                self.close(CLOSE_INTERNAL_ERROR, TRACEBACK_CLOSE_REASON)
                # Now, and not after what else is settled: to the client the error is the last word.
                await self._say_goodbye(_Goodbye(CLOSE_INTERNAL_ERROR, TRACEBACK_CLOSE_REASON))
                return
            self._leave_if_done()

    async def _answer(self, request: Request, outcome: Outcome) -> None:
        if isinstance(outcome, Answered):
            await self._say(outcome.message)
        else:
            await self._say(said_for(request, outcome))
        self._backlog.remove(len(request.payload))
        self._account.settled(request, outcome)
        self._look_for_room()

    async def _say(self, message: bytes | str | None) -> None:
        if message is None:
            return
        if isinstance(message, bytes):
            self._account.bytes_out += len(message)
            await self._sent({"type": "websocket.send", "bytes": message})
            return
        text = message.encode("utf-8", "backslashreplace")
        self._account.bytes_out += len(text)
        await self._sent({"type": "websocket.send", "text": text.decode()})

    async def _say_goodbye(self, goodbye: _Goodbye) -> None:
        reason = close_reason(goodbye.reason)
        await self._sent({"type": "websocket.close", "code": goodbye.code, "reason": reason})

    async def _sent(self, message: Message) -> None:
        """Send; how long the client leaves it unread is looked at from elsewhere."""
        self._is_sending = True
        self._conduct.writing(paused=True, now=time.monotonic())
        await self._send(message)
        self._conduct.writing(paused=False, now=time.monotonic())
        self._is_sending = False

    def _leave_if_done(self) -> None:
        if self._leaving is not None and not self._backlog.requests:
            self.close(self._leaving.code, self._leaving.reason)

    # -------------------------------------------------------------------------------------------------

    def _cut(self, why: str | None) -> None:
        """Close for a reason, if there is one. No goodbye of such a client is waited for."""
        if why is None or self._closing:
            return
        self.close(CLOSE_OUT_OF_BOUNDS, why)
        patience = 0.0 if self._is_sending else LAST_WORD_TIMEOUT_S
        asyncio.get_running_loop().call_later(patience, self.abort)

    def _look_for_room(self) -> None:
        """Read from this client only while it has few requests waiting and takes its replies."""
        if not self._closing and (self._backlog.full or self._leaving is not None):
            self._room.clear()
        else:
            self._room.set()


def close_reason(text: str) -> str:
    """Return as much of a text as a close frame has room for."""
    return text.encode("utf-8", "backslashreplace")[:_LONGEST_REASON].decode("utf-8", "ignore")


def _payload_of(message: Message) -> bytes | str:
    payload = message.get("bytes")
    return payload if payload is not None else str(message.get("text", ""))
