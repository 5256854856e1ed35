# SPDX-License-Identifier: Apache-2.0
"""One client's WebSocket on picows: metadata first, whole requests to the policy, replies in order.

Runs on the event loop. The only file of the server that handles WebSocket frames.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import picows

from pi05_websocket.keepalive import notice_vanished_peers
from pi05_websocket.server.backend import Backend
from pi05_websocket.server.bounds import Conduct, too_much
from pi05_websocket.server.buffers import ReceiveBuffers
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.dialect_choice import dialect_name
from pi05_websocket.server.doorkeeper import Doorkeeper
from pi05_websocket.server.exposure import shows_tracebacks
from pi05_websocket.server.keys import RobotKey
from pi05_websocket.server.listening import Gate, bytes_received
from pi05_websocket.server.records import Closed, Listener, Opened, Record, RequestRecord
from pi05_websocket.server.requests import Answered, Done, Failed, Outcome, Refused, Request
from pi05_websocket.wire.dialects import DIALECTS
from pi05_websocket.wire.protocol import (
    CLOSE_INTERNAL_ERROR,
    TRACEBACK_CLOSE_REASON,
    ServerProtocol,
)

__all__ = [
    "CLOSE_GOING_AWAY",
    "CLOSE_KEY_OVER",
    "CLOSE_TOO_BIG",
    "LONGEST_WHY",
    "Connection",
    "OpenConnection",
    "OpenConnections",
    "facts_of",
    "said_for",
    "why_of",
]

logger = logging.getLogger(__name__)

CLOSE_GOING_AWAY = 1001
CLOSE_PROTOCOL_ERROR = 1002
CLOSE_KEY_OVER = 1008
CLOSE_OUT_OF_BOUNDS = 1008
CLOSE_TOO_BIG = 1009

_GOODBYE_TIMEOUT_S = 5.0
# After our close frame the client reads on until it has it; cutting earlier could take the error text away.

_LAST_WORD_TIMEOUT_S = 1.0
# The same for clients out of bounds; no goodbye of theirs is waited for.

LONGEST_WHY = 200

_CONTROL = (picows.WSMsgType.PING, picows.WSMsgType.PONG)


class Connection(picows.WSListener):  # type: ignore[misc]  # picows is compiled and untyped for mypy
    """A client that asks. `deliver` brings the outcome of each of its requests, in order."""

    def __init__(
        self,
        metadata: Mapping[str, Any],
        config: ServerConfig,
        backend: Backend,
        connections: OpenConnections[Connection],
        *,
        doorkeeper: Doorkeeper,
        gate: Gate | None = None,
        key: RobotKey | None = None,
        path: str = "/",
        forwarded: str | None = None,
    ) -> None:
        self.number = connections.next_number()
        self.state: dict[str, Any] = {}
        self.peer = "?"
        self.exchanges = 0
        self.requests = 0
        self.refused = 0
        self._bytes_in = 0
        self._bytes_out = 0
        self._opened_at = time.monotonic()
        self._why: str | None = None
        self._doorkeeper = doorkeeper
        self._gate = gate
        self._socket: Any = None
        self._key = key
        self._path = path
        self._forwarded = forwarded
        self._metadata = metadata
        self._protocol: ServerProtocol  # from when the peer is known
        self._conduct: Conduct  # likewise
        self._config = config
        self._backend = backend
        self._connections = connections
        self._buffers = ReceiveBuffers()
        self._ws: Any = None
        self._fragments: bytearray | None = None
        self._fragments_are_text = False
        self._queued_requests = 0
        self._queued_bytes = 0
        self._writing_paused = False
        self._closing = False

    def __repr__(self) -> str:
        state = "closing" if self._closing else "open"
        return f"<Connection {self.number} {self.peer} {state} exchanges={self.exchanges}>"

    def ping(self) -> None:
        """Send a ping; whether it is answered does not matter."""
        if not self._closing:
            self._ws.send_ping()

    @property
    def waiting(self) -> int:
        """How many of its requests are not answered yet."""
        return self._queued_requests

    @property
    def who(self) -> str:
        """The name of its key."""
        return "anonymous" if self._key is None else self._key.name

    def close_if_unwelcome(self) -> None:
        """Say goodbye to a client whose key is no longer good."""
        if not self._doorkeeper.may_stay(self._key, self._path):
            self.close(
                CLOSE_KEY_OVER, f"the key {self.who} was revoked or replaced, or has expired"
            )

    @property
    def held_bytes(self) -> int:
        """Bytes of its requests that wait, and of a message that has not ended."""
        fragments = 0 if self._fragments is None else len(self._fragments)
        unfinished = self._conduct.unfinished(bytes_received(self._socket))
        return self._queued_bytes + fragments + unfinished

    def close_for_room(self) -> None:
        """End a connection that holds more than the server has room for."""
        self._end(f"{self.held_bytes} bytes waiting, more than there is room for")

    def close_if_out_of_bounds(self) -> None:
        """End a connection whose messages, or whose reading, took too long."""
        reading = self._ws.underlying_transport.is_reading()
        received = bytes_received(self._socket)
        self._end(self._conduct.look(received=received, reading=reading, now=time.monotonic()))

    def close(self, code: int, reason: str) -> None:
        """Say goodbye; the client answers and the connection ends. Safe to call twice."""
        if self._closing:
            return
        self._closing = True
        self._why = self._why or _already_said(self._ws) or f"{code} {reason}"
        self._backend.forget(self)
        self._ws.send_close(code, reason)
        self._ws.underlying_transport.resume_reading()  # its goodbye may stand behind more requests
        asyncio.get_running_loop().call_later(_GOODBYE_TIMEOUT_S, self.abort)

    def abort(self) -> None:
        """Disconnect without waiting for the client's goodbye."""
        if not self._ws.is_disconnected:
            self._ws.disconnect(graceful=False)

    def deliver(self, request: Request, outcome: Outcome) -> None:
        """Send the outcome of one request."""
        self._queued_requests -= 1
        self._queued_bytes -= len(request.payload)
        if isinstance(request.payload, bytearray):
            self._buffers.give_back(request.payload)
        if self._closing:
            return
        if isinstance(outcome, Answered):
            self._send(picows.WSMsgType.BINARY, outcome.message)
            self._note(request, outcome)
            self._throttle()
            return
        self._say(said_for(request, outcome))
        if isinstance(outcome, Done):
            self._throttle()
            return
        self._tell_unanswered(request, outcome)
        if isinstance(outcome, Failed) and outcome.closes:
            self._why = f"{CLOSE_INTERNAL_ERROR} {outcome.cause}"
            self.close(CLOSE_INTERNAL_ERROR, TRACEBACK_CLOSE_REASON)
        else:
            self.refused += isinstance(outcome, Refused)
            self._throttle()

    # ------------------------------------------------------------------------------- picows calls these

    def on_ws_connected(self, transport: Any) -> None:
        """Introduce the server."""
        self._ws = transport
        sock = transport.underlying_transport.get_extra_info("socket")
        notice_vanished_peers(sock)
        if self._gate is not None:
            self._gate.became_websocket(sock.fileno())
        self._socket = sock
        self._conduct = Conduct(self._config, time.monotonic(), bytes_received(sock))
        address = transport.underlying_transport.get_extra_info("peername") or ("?",)
        host = str(address[0])
        self._protocol = ServerProtocol(
            self._metadata,
            debug=shows_tracebacks(host, self._config),
            limits=self._config.limits,
            encoded_images=self._config.encoded_images,
            deadlines=self._config.deadlines,
            dialect=DIALECTS[dialect_name(self._config, self._path, self._key)],
        )
        self.peer = ":".join(str(part) for part in address[:2])
        if self._forwarded is not None:
            self.peer = f"{self._forwarded} via {self.peer}"
        logger.info("connection %d from %s opened by %s", self.number, self.peer, self.who)
        self._connections.tell(
            Opened(connection=self.number, who=self.who, peer=self.peer, path=self._path)
        )
        self._connections.add(self)
        self._send(picows.WSMsgType.BINARY, self._protocol.metadata_message)

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """Take a frame."""
        kind = frame.msg_type
        if kind == picows.WSMsgType.CLOSE:
            self._answer_close(frame)
        elif not self._closing:
            self._take(kind, frame)
            self._conduct.frame_taken(
                received=bytes_received(self._socket),
                ended_a_message=frame.fin and kind not in _CONTROL,
                more_to_come=self._fragments is not None
                or (frame.last_in_buffer and frame.tail_size > 0),
                now=time.monotonic(),
            )

    def _take(self, kind: Any, frame: Any) -> None:
        if kind in _CONTROL:
            if kind == picows.WSMsgType.PING:
                self._ws.send_pong(frame.get_payload_as_bytes())
            self._end(self._conduct.small_frame(time.monotonic()))
        elif kind == picows.WSMsgType.CONTINUATION:
            self._take_continuation(frame)
        elif self._fragments is not None:
            self.close(CLOSE_PROTOCOL_ERROR, "a new message inside a fragmented one")
        elif frame.fin:
            self._submit(frame.get_payload_as_memoryview(), kind == picows.WSMsgType.TEXT)
        else:
            self._fragments = bytearray(frame.get_payload_as_memoryview())
            self._fragments_are_text = kind == picows.WSMsgType.TEXT

    def on_ws_disconnected(self, transport: Any) -> None:
        """Forget what still waits for this client; leave a line about it."""
        self._closing = True
        self._backend.forget(self)
        why = self._why or _already_said(transport) or "lost: no goodbye"
        # What clients say is quoted: it must not look like lines of ours.
        logger.info(
            "connection %d closed who=%s from=%r seconds=%.1f requests=%d answered=%d refused=%d bytes_in=%d "
            "bytes_out=%d why=%r",
            self.number, self.who, self.peer, time.monotonic() - self._opened_at, self.requests, self.exchanges,
            self.refused, self._bytes_in, self._bytes_out, why[:LONGEST_WHY],
        )  # fmt: skip
        self._connections.discard(self)
        self._connections.tell(Closed(connection=self.number, why=why[:LONGEST_WHY]))

    def pause_writing(self) -> None:
        """Read no further requests from a client that does not read its replies."""
        self._writing_paused = True
        self._conduct.writing(paused=True, now=time.monotonic())
        self._throttle()

    def resume_writing(self) -> None:
        """Read on: the replies have left."""
        self._writing_paused = False
        self._conduct.writing(paused=False, now=time.monotonic())
        self._throttle()

    # -------------------------------------------------------------------------------------------------

    def _answer_close(self, frame: Any) -> None:
        code = int(frame.get_close_code())
        if not self._closing:
            self._closing = True
            self._why = f"{code} by the client"
            self._backend.forget(self)
            # 1005 and the like say that there was no code, and may not be sent (RFC 6455, 7.4.1).
            self._ws.send_close(code if code in range(1000, 1004) or code >= 3000 else 1000)
        self._ws.disconnect(graceful=True)

    def _take_continuation(self, frame: Any) -> None:
        if self._fragments is None:
            self.close(CLOSE_PROTOCOL_ERROR, "a continuation of no message")
            return
        self._end(self._conduct.fragment(frame.payload_size, time.monotonic()))
        self._fragments += frame.get_payload_as_memoryview()
        if len(self._fragments) > self._config.max_message_bytes:
            self._fragments = None
            limit = self._config.max_message_bytes
            self.close(CLOSE_TOO_BIG, f"a message of more than {limit} bytes")
        elif frame.fin:
            message, self._fragments = self._fragments, None
            with memoryview(message) as payload:
                self._submit(payload, self._fragments_are_text)

    def _submit(self, payload: memoryview, is_text: bool) -> None:
        refusal = self._doorkeeper.too_many(self._key)
        self.requests += 1
        request = Request(
            connection=self,
            number=self.requests,
            protocol=self._protocol,
            payload=self._kept(payload, is_text) if refusal is None else "",
            arrived=time.perf_counter(),
            priority=self._doorkeeper.rank(self._key),
            refusal=refusal,
        )
        self._bytes_in += len(payload)
        self._queued_requests += 1
        self._queued_bytes += len(request.payload)
        self._backend.submit(request)
        self._throttle()
        self._end(self._conduct.queued(self._queued_requests))

    def _end(self, why: str | None) -> None:
        """Close for a reason, if there is one. What else such a client sends is not read."""
        if why is None or self._closing:
            return
        self.close(CLOSE_OUT_OF_BOUNDS, why)
        self._ws.underlying_transport.pause_reading()
        patience = 0.0 if self._writing_paused else _LAST_WORD_TIMEOUT_S
        asyncio.get_running_loop().call_later(patience, self.abort)

    def _send(self, kind: Any, message: bytes) -> None:
        self._bytes_out += len(message)
        self._ws.send(kind, message)

    def _say(self, message: bytes | str | None) -> None:
        """Send what stands in the place of actions, if anything does."""
        if isinstance(message, str):
            self._send(picows.WSMsgType.TEXT, message.encode("utf-8", "backslashreplace"))
        elif message is not None:
            self._send(picows.WSMsgType.BINARY, message)

    def _kept(self, payload: memoryview, is_text: bool) -> bytearray | str:
        return str(payload, "utf-8", "replace") if is_text else self._buffers.copy_of(payload)

    def _throttle(self) -> None:
        """Read from this client only while it has few requests waiting and takes its replies."""
        if self._closing:
            return
        reading = self._ws.underlying_transport
        if (
            self._writing_paused
            or self._queued_requests >= self._config.max_queued_requests
            or self._queued_bytes >= self._config.max_queued_bytes
        ):
            reading.pause_reading()
        else:
            reading.resume_reading()

    def _note(self, request: Request, answered: Answered) -> None:
        self.exchanges += 1
        total_ms = (time.perf_counter() - request.arrived) * 1000
        self._protocol.reply_sent(total_ms=total_ms)
        logger.debug(
            "exchange connection=%d id=%d batch=%d queue_ms=%.2f infer_ms=%.2f total_ms=%.2f bytes_in=%d "
            "bytes_out=%d",
            self.number, self.exchanges, answered.batch, answered.queue_ms, answered.infer_ms, total_ms,
            len(request.payload), len(answered.message),
        )  # fmt: skip
        if self._connections.watched:
            self._connections.tell(
                RequestRecord(
                    **facts_of(request, total_ms),
                    outcome="answered",
                    queue_ms=answered.queue_ms,
                    infer_ms=answered.infer_ms,
                    batch=answered.batch,
                    bytes_out=len(answered.message),
                    actions=answered.actions,
                )
            )

    def _tell_unanswered(self, request: Request, outcome: Failed | Refused) -> None:
        total_ms = (time.perf_counter() - request.arrived) * 1000
        self._connections.tell(
            RequestRecord(
                **facts_of(request, total_ms),
                outcome="failed" if isinstance(outcome, Failed) else "refused",
                why=why_of(outcome)[:LONGEST_WHY],
                queue_ms=total_ms,
            )
        )


def said_for(request: Request, outcome: Failed | Refused | Done) -> bytes | str | None:
    """Return what is sent in the place of actions, in the client's dialect; None: nothing."""
    if isinstance(outcome, Done):
        return outcome.message
    if isinstance(outcome, Refused):
        return request.protocol.refusal_message(outcome.refusal, request.tag)
    return outcome.text if outcome.message is None else outcome.message


def why_of(outcome: Failed | Refused) -> str:
    """Return in a word or a line why a request has no answer."""
    return outcome.cause if isinstance(outcome, Failed) else outcome.refusal.kind


def facts_of(request: Request, total_ms: float) -> dict[str, Any]:
    """Return what a record says of a request whatever became of it."""
    said, due = request.realtime, request.due
    return {
        "connection": request.connection.number,
        "number": request.number,
        "arrived": request.arrived,
        "total_ms": total_ms,
        "bytes_in": len(request.payload),
        "age_ms": None if said is None else said.age_ms,
        "due_ms": None if due is None else (due - request.arrived) * 1000,
        "traceparent": None if said is None else said.traceparent,
        "observation": request.observation or None,
    }


def _already_said(transport: Any) -> str | None:
    """Return the goodbye that picows sent by itself, over frames that are none."""
    sent = transport.close_handshake and transport.close_handshake.sent
    return f"{int(sent.code)} {sent.reason}" if sent else None


class OpenConnection(Protocol):
    """What a server does to each of its connections, whatever speaks WebSocket for it."""

    def ping(self) -> None:
        """Send a ping."""

    def close(self, code: int, reason: str) -> None:
        """Say goodbye."""

    def close_if_unwelcome(self) -> None:
        """Say goodbye if its key is no longer good."""

    def abort(self) -> None:
        """Disconnect."""

    def __hash__(self) -> int: ...


C = TypeVar("C", bound=OpenConnection)


class OpenConnections(Generic[C]):
    """The clients that are connected now, and those who watch them."""

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        self._listeners = tuple(listeners)
        self._open: set[C] = set()
        self._count = 0
        self._nobody = asyncio.Event()
        self._nobody.set()

    def __repr__(self) -> str:
        return f"<OpenConnections {len(self._open)}>"

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[C]:
        return iter(tuple(self._open))

    def next_number(self) -> int:
        """Return the next connection's number, from 1."""
        self._count += 1
        return self._count

    @property
    def watched(self) -> bool:
        """Whether anybody is told anything."""
        return bool(self._listeners)

    def tell(self, record: Record) -> None:
        """Tell everybody who watches. One that fails is told the next all the same, and robots never notice."""
        for listener in self._listeners:
            try:
                listener(record)
            except Exception:
                logger.exception("a listener of the server failed")

    def add(self, connection: C) -> None:
        """Note a client that has come."""
        self._open.add(connection)
        self._nobody.clear()

    def discard(self, connection: C) -> None:
        """Note a client that has gone."""
        self._open.discard(connection)
        if not self._open:
            self._nobody.set()

    def ping(self) -> None:
        """Send each client a ping."""
        for connection in tuple(self._open):
            connection.ping()

    def close(self, code: int, reason: str) -> None:
        """Say goodbye to all."""
        for connection in tuple(self._open):
            connection.close(code, reason)

    def close_unwelcome(self) -> None:
        """Say goodbye to those whose keys are no longer good."""
        for connection in tuple(self._open):
            connection.close_if_unwelcome()

    def abort(self) -> None:
        """Disconnect whoever is still there."""
        for connection in tuple(self._open):
            connection.abort()

    async def all_gone(self) -> None:
        """Wait until nobody is connected."""
        await self._nobody.wait()


def close_out_of_bounds(connections: OpenConnections[Connection], max_held_bytes: int) -> None:
    """Say goodbye to those who take longer or hold more than they may."""
    held = {connection: connection.held_bytes for connection in connections}
    for connection in too_much(held, max_held_bytes):
        connection.close_for_room()
    for connection in connections:
        connection.close_if_out_of_bounds()
