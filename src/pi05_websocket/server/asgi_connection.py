# SPDX-License-Identifier: Apache-2.0
"""One client's WebSocket behind an ASGI server: metadata first, whole requests on, replies in order.

Runs on the event loop: a task that reads and one that writes. Nothing is decoded here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from pi05_websocket.server.backend import Backend
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.connection import (
    CLOSE_KEY_OVER,
    CLOSE_TOO_BIG,
    LONGEST_WHY,
    OpenConnections,
    facts_of,
    said_for,
    why_of,
)
from pi05_websocket.server.dialect_choice import dialect_name
from pi05_websocket.server.doorkeeper import Doorkeeper
from pi05_websocket.server.exposure import shows_tracebacks
from pi05_websocket.server.keys import RobotKey
from pi05_websocket.server.records import Closed, Opened, RequestRecord
from pi05_websocket.server.requests import Answered, Done, Failed, Outcome, Refused, Request
from pi05_websocket.wire.dialects import DIALECTS
from pi05_websocket.wire.protocol import (
    CLOSE_INTERNAL_ERROR,
    TRACEBACK_CLOSE_REASON,
    ServerProtocol,
)

__all__ = ["AsgiConnection", "Client", "Message", "Receive", "Send", "close_reason"]

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_CLOSE_OUT_OF_BOUNDS = 1008

_LONGEST_REASON = 123
"""Bytes that a close frame has room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who has come."""

    host: str
    """Address of the nearest peer."""

    port: int | None
    path: str
    """With its query."""

    key: RobotKey | None = None
    forwarded: str | None = None
    """The address that a proxy saw."""

    through_proxy: bool = False
    """The nearest peer is a proxy's, whoever the client is: it does not count as one on this machine."""

    @property
    def who(self) -> str:
        """The name of its key."""
        return "anonymous" if self.key is None else self.key.name

    @property
    def peer(self) -> str:
        """Where it is, for the log."""
        peer = self.host if self.port is None else f"{self.host}:{self.port}"
        return peer if self.forwarded is None else f"{self.forwarded} via {peer}"


@dataclass(frozen=True, slots=True)
class _Goodbye:
    code: int
    reason: str


class AsgiConnection:
    """A client that asks. `deliver` brings the outcome of each of its requests, in order."""

    def __init__(
        self,
        client: Client,
        metadata: Mapping[str, Any],
        config: ServerConfig,
        backend: Backend,
        connections: OpenConnections[AsgiConnection],
        *,
        doorkeeper: Doorkeeper,
        send: Send,
        reads_ahead: bool = False,
    ) -> None:
        self.number = connections.next_number()
        self.state: dict[str, Any] = {}
        self.client = client
        self.exchanges = 0
        self.requests = 0
        self.refused = 0
        self._bytes_in = 0
        self._bytes_out = 0
        self._opened_at = time.monotonic()
        self._why: str | None = None
        self._config = config
        self._backend = backend
        self._connections = connections
        self._doorkeeper = doorkeeper
        self._send = send
        self._reads_ahead = reads_ahead
        self._protocol = ServerProtocol(
            metadata,
            debug=config.debug
            or (not client.through_proxy and shows_tracebacks(client.host, config)),
            limits=config.limits,
            encoded_images=config.encoded_images,
            deadlines=config.deadlines,
            dialect=DIALECTS[dialect_name(config, client.path, client.key)],
        )
        self._unanswered = 0
        self._unanswered_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._to_send: asyncio.Queue[tuple[Request, Outcome] | _Goodbye] = asyncio.Queue()
        self._leaving: _Goodbye | None = None
        self._closing = False
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def __repr__(self) -> str:
        state = "closing" if self._closing else "open"
        return (
            f"<AsgiConnection {self.number} {self.client.peer} {state} exchanges={self.exchanges}>"
        )

    async def run(self, receive: Receive) -> None:
        """Talk to the client until one of both says goodbye."""
        who, peer, path = self.client.who, self.client.peer, self.client.path
        logger.info("connection %d from %s opened by %s", self.number, peer, who)
        self._connections.tell(Opened(connection=self.number, who=who, peer=peer, path=path))
        self._connections.add(self)
        loop = asyncio.get_running_loop()
        self._tasks = (loop.create_task(self._read(receive)), loop.create_task(self._write()))
        try:
            done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled() and isinstance(task.exception(), Exception):
                    self._why = self._why or f"lost: {task.exception()!r}"
        finally:
            self._end()

    def ping(self) -> None:
        """Nothing: the ASGI server sends pings of its own."""

    def close_if_unwelcome(self) -> None:
        """Say goodbye to a client whose key is no longer good."""
        if not self._doorkeeper.may_stay(self.client.key, self.client.path):
            self.close(
                CLOSE_KEY_OVER, f"the key {self.client.who} was revoked or replaced, or has expired"
            )

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
        self._why = self._why or f"{code} {reason}"
        self._backend.forget(self)
        self._to_send.put_nowait(_Goodbye(code, reason))

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
        while not self._closing:
            if not self._reads_ahead:
                await self._room.wait()
            message = await receive()
            if message["type"] == "websocket.disconnect":
                reason = f" {message.get('reason')!r}" if message.get("reason") else ""
                self._why = self._why or f"{message.get('code', 1005)} by the client{reason}"
                return
            if self._leaving is None and not self._closing:
                self._submit(_payload_of(message))
        await asyncio.Event().wait()  # the goodbye is sent by the other task, which ends both

    def _submit(self, payload: bytes | str) -> None:
        if len(payload) > self._config.max_message_bytes:
            self.close(
                CLOSE_TOO_BIG, f"a message of more than {self._config.max_message_bytes} bytes"
            )
            return
        refusal = self._doorkeeper.too_many(self.client.key)
        self.requests += 1
        request = Request(
            connection=self,
            number=self.requests,
            protocol=self._protocol,
            payload=payload if refusal is None else "",
            arrived=time.perf_counter(),
            priority=self._doorkeeper.rank(self.client.key),
            refusal=refusal,
        )
        self._bytes_in += len(payload)
        self._unanswered += 1
        self._unanswered_bytes += len(request.payload)
        if self._reads_ahead and self._full(times=2):
            # What the server before us has read is in our memory: it can only be ended, not slowed down.
            limit = 2 * self._config.max_queued_requests
            self.close(
                _CLOSE_OUT_OF_BOUNDS, f"more than {limit} requests, or their bytes, wait unanswered"
            )
            return
        self._backend.submit(request)
        self._look_for_room()

    # ---------------------------------------------------------------------------------------- writing

    async def _write(self) -> None:
        await self._send({"type": "websocket.send", "bytes": self._protocol.metadata_message})
        self._bytes_out += len(self._protocol.metadata_message)
        while True:
            item = await self._to_send.get()
            if isinstance(item, _Goodbye):
                await self._say(item)
                return
            request, outcome = item
            await self._answer(request, outcome)
            if isinstance(outcome, Failed) and outcome.closes:
                self._closing = True
                self._why = f"{CLOSE_INTERNAL_ERROR} {outcome.cause}"
                self._backend.forget(self)
                await self._say(_Goodbye(CLOSE_INTERNAL_ERROR, TRACEBACK_CLOSE_REASON))
                return
            self._leave_if_done()

    async def _answer(self, request: Request, outcome: Outcome) -> None:
        if isinstance(outcome, Answered):
            self._bytes_out += len(outcome.message)
            await self._send({"type": "websocket.send", "bytes": outcome.message})
            self.exchanges += 1
            self._protocol.reply_sent(total_ms=_age_ms(request))
        else:
            await self._send_words(said_for(request, outcome))
            self.refused += isinstance(outcome, Refused)
        self._unanswered -= 1
        self._unanswered_bytes -= len(request.payload)
        if not isinstance(outcome, Done):
            self._tell(request, outcome)
        self._look_for_room()

    async def _send_words(self, message: bytes | str | None) -> None:
        """Send what stands in the place of actions, if anything does."""
        if message is None:
            return
        if isinstance(message, bytes):
            self._bytes_out += len(message)
            await self._send({"type": "websocket.send", "bytes": message})
            return
        sent = message.encode("utf-8", "backslashreplace")
        self._bytes_out += len(sent)
        await self._send({"type": "websocket.send", "text": sent.decode()})

    async def _say(self, goodbye: _Goodbye) -> None:
        self._why = self._why or f"{goodbye.code} {goodbye.reason}"
        await self._send(
            {
                "type": "websocket.close",
                "code": goodbye.code,
                "reason": close_reason(goodbye.reason),
            }
        )

    def _leave_if_done(self) -> None:
        if self._leaving is not None and not self._unanswered and not self._closing:
            self.close(self._leaving.code, self._leaving.reason)

    # -------------------------------------------------------------------------------------------------

    def _full(self, times: int = 1) -> bool:
        return (
            self._unanswered >= times * self._config.max_queued_requests
            or self._unanswered_bytes >= times * self._config.max_queued_bytes
        )

    def _look_for_room(self) -> None:
        """Read from this client only while it has few requests waiting and takes its replies."""
        if self._full() or self._leaving is not None:
            self._room.clear()
        else:
            self._room.set()

    def _tell(self, request: Request, outcome: Answered | Failed | Refused) -> None:
        if not self._connections.watched:
            return
        facts = facts_of(request, _age_ms(request))
        if isinstance(outcome, Answered):
            record = RequestRecord(
                **facts,
                outcome="answered",
                queue_ms=outcome.queue_ms,
                infer_ms=outcome.infer_ms,
                batch=outcome.batch,
                bytes_out=len(outcome.message),
                actions=outcome.actions,
            )
        else:
            record = RequestRecord(
                **facts,
                outcome="failed" if isinstance(outcome, Failed) else "refused",
                why=why_of(outcome)[:LONGEST_WHY],
                queue_ms=facts["total_ms"],
            )
        self._connections.tell(record)

    def _end(self) -> None:
        """Forget what still waits for this client; leave a line about it."""
        self._closing = True
        self.abort()
        self._backend.forget(self)
        why = self._why or "lost: no goodbye"
        # What clients say is quoted: it must not look like lines of ours.
        logger.info(
            "connection %d closed who=%s from=%r seconds=%.1f requests=%d answered=%d refused=%d bytes_in=%d "
            "bytes_out=%d why=%r",
            self.number, self.client.who, self.client.peer, time.monotonic() - self._opened_at, self.requests,
            self.exchanges, self.refused, self._bytes_in, self._bytes_out, why[:LONGEST_WHY],
        )  # fmt: skip
        self._connections.discard(self)
        self._connections.tell(Closed(connection=self.number, why=why[:LONGEST_WHY]))


def close_reason(text: str) -> str:
    """Return as much of a text as a close frame has room for."""
    return text.encode("utf-8", "backslashreplace")[:_LONGEST_REASON].decode("utf-8", "ignore")


def _payload_of(message: Message) -> bytes | str:
    payload = message.get("bytes")
    return payload if payload is not None else str(message.get("text", ""))


def _age_ms(request: Request) -> float:
    return (time.perf_counter() - request.arrived) * 1000
