# SPDX-License-Identifier: Apache-2.0
"""One client's WebSocket on picows: metadata first, whole requests to the policy, replies in order.

Runs on the event loop. The only file of the server that handles WebSocket frames.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import picows

from pi05_websocket.keepalive import notice_vanished_peers
from pi05_websocket.server.account import Account, said_for
from pi05_websocket.server.backend import Backend
from pi05_websocket.server.backlog import Backlog
from pi05_websocket.server.bounds import Conduct
from pi05_websocket.server.buffers import ReceiveBuffers
from pi05_websocket.server.closing import (
    CLOSE_KEY_OVER,
    CLOSE_OUT_OF_BOUNDS,
    CLOSE_PROTOCOL_ERROR,
    CLOSE_TOO_BIG,
    GOODBYE_TIMEOUT_S,
    LAST_WORD_TIMEOUT_S,
    no_room_for,
)
from pi05_websocket.server.config import ServerConfig
from pi05_websocket.server.dialect_choice import dialect_name
from pi05_websocket.server.doorkeeper import Doorkeeper
from pi05_websocket.server.exposure import shows_tracebacks
from pi05_websocket.server.keys import RobotKey
from pi05_websocket.server.listening import Gate
from pi05_websocket.server.open_connections import OpenConnections
from pi05_websocket.server.requests import Answered, Failed, Outcome, Request
from pi05_websocket.tcp_facts import bytes_received
from pi05_websocket.wire.dialects import DIALECTS
from pi05_websocket.wire.protocol import (
    CLOSE_INTERNAL_ERROR,
    TRACEBACK_CLOSE_REASON,
    ServerProtocol,
)

__all__ = ["Connection"]

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
        self.state: dict[str, Any] = {}
        self._account = Account(
            connections, who="anonymous" if key is None else key.name, path=path
        )
        self.number = self._account.number
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
        self._backlog = Backlog(config)
        self._writing_paused = False
        self._closing = False

    def __repr__(self) -> str:
        state = "closing" if self._closing else "open"
        return f"<Connection {self.number} {self._account.peer} {state} exchanges={self._account.exchanges}>"

    def ping(self) -> None:
        """Send a ping; whether it is answered does not matter."""
        if not self._closing:
            self._ws.send_ping()

    @property
    def waiting(self) -> int:
        """How many of its requests are not answered yet."""
        return self._backlog.requests

    def close_if_unwelcome(self) -> None:
        """Say goodbye to a client whose key is no longer good."""
        if not self._doorkeeper.may_stay(self._key, self._path):
            who = self._account.who
            self.close(CLOSE_KEY_OVER, f"the key {who} was revoked or replaced, or has expired")

    @property
    def held_bytes(self) -> int:
        """Bytes of its requests that wait, and of a message that has not ended."""
        fragments = 0 if self._fragments is None else len(self._fragments)
        unfinished = self._conduct.unfinished(bytes_received(self._socket))
        return self._backlog.nbytes + fragments + unfinished

    def close_for_room(self) -> None:
        """End a connection that holds more than the server has room for."""
        self._end(no_room_for(self.held_bytes))

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
        self._account.ends(_already_said(self._ws) or f"{code} {reason}")
        self._backend.forget(self)
        self._ws.send_close(code, reason)
        self._ws.underlying_transport.resume_reading()  # its goodbye may stand behind more requests
        asyncio.get_running_loop().call_later(GOODBYE_TIMEOUT_S, self.abort)

    def abort(self) -> None:
        """Disconnect without waiting for the client's goodbye."""
        if not self._ws.is_disconnected:
            self._ws.disconnect(graceful=False)

    def deliver(self, request: Request, outcome: Outcome) -> None:
        """Send the outcome of one request."""
        self._backlog.remove(len(request.payload))
        if isinstance(request.payload, bytearray):
            self._buffers.give_back(request.payload)
        if self._closing:
            return
        if isinstance(outcome, Answered):
            self._send(picows.WSMsgType.BINARY, outcome.message)
        else:
            self._say(said_for(request, outcome))
        self._account.settled(request, outcome)
        if isinstance(outcome, Failed) and outcome.closes:
            self._account.ends(f"{CLOSE_INTERNAL_ERROR} {outcome.cause}")
            self.close(CLOSE_INTERNAL_ERROR, TRACEBACK_CLOSE_REASON)
        else:
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
        peer = ":".join(str(part) for part in address[:2])
        self._account.opened(peer if self._forwarded is None else f"{self._forwarded} via {peer}")
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
        self._account.ends(_already_said(transport))
        self._connections.discard(self)
        self._account.closed()

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
            self._account.ends(f"{code} by the client")
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
        self._account.asked(len(payload))
        request = Request(
            connection=self,
            number=self._account.requests,
            protocol=self._protocol,
            payload=self._kept(payload, is_text) if refusal is None else "",
            arrived=time.perf_counter(),
            priority=self._doorkeeper.rank(self._key),
            refusal=refusal,
        )
        too_many = self._backlog.add(len(request.payload))
        self._backend.submit(request)
        self._throttle()
        self._end(too_many)

    def _end(self, why: str | None) -> None:
        """Close for a reason, if there is one. What else such a client sends is not read."""
        if why is None or self._closing:
            return
        self.close(CLOSE_OUT_OF_BOUNDS, why)
        self._ws.underlying_transport.pause_reading()
        patience = 0.0 if self._writing_paused else LAST_WORD_TIMEOUT_S
        asyncio.get_running_loop().call_later(patience, self.abort)

    def _send(self, kind: Any, message: bytes) -> None:
        self._account.bytes_out += len(message)
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
        if self._writing_paused or self._backlog.full:
            reading.pause_reading()
        else:
            reading.resume_reading()


def _already_said(transport: Any) -> str | None:
    """Return the goodbye that picows sent by itself, over frames that are none."""
    sent = transport.close_handshake and transport.close_handshake.sent
    return f"{int(sent.code)} {sent.reason}" if sent else None
