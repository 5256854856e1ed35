# SPDX-License-Identifier: Apache-2.0
"""One open WebSocket on picows: whole messages in, whole messages out.

Runs on the connection's loop thread. With `dialling`, which opens it, the only files of the robot side that
know the WebSocket library.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
from typing import Protocol

import picows

from pi05_websocket.tcp_facts import Sent, round_trip_s, sent

__all__ = ["HEADROOM", "Listener", "Transport"]

HEADROOM = 64
"""Free bytes picows wants before a message, so that the frame header needs no copy of it."""

_MOST_UNSENT = 16 * 1024 * 1024


class Listener(Protocol):
    """Who is told what a transport receives. Called on the loop thread."""

    def on_message(self, payload: bytes | str) -> None:
        """Take one whole message, `str` for text."""

    def on_ended(self, code: int, reason: str) -> None:
        """Note that the transport is gone. Called once."""


class Transport(picows.WSListener):  # type: ignore[misc]  # picows is compiled and untyped for mypy
    """Joins fragments, bounds messages, remembers how the peer said goodbye."""

    def __init__(self, listener: Listener, max_message_bytes: int) -> None:
        self.connect_s: float | None = None
        """Seconds of a round trip, as opening the TCP connection showed it; None before."""
        self.congestion = ""
        """The congestion control of its kernel; "" where it does not say."""
        self._sock: socket.socket | None = None
        self._listener: Listener | None = listener
        self._max_message_bytes = max_message_bytes
        self._message: bytearray | None = None
        """What has come of a fragmented message; None between messages."""
        self._is_text = False
        self._closed_by: tuple[int, str] | None = None
        self._ws: picows.WSTransport | None = None

    @property
    def opened(self) -> bool:
        """Whether the upgrade succeeded."""
        return self._ws is not None

    def send(self, buffer: bytearray) -> None:
        """Send the binary message that begins at `HEADROOM`. The buffer is free again afterwards.

        Its content is masked in place. Does nothing on a connection that is gone: `on_ended` tells.
        """
        if self._ws is not None and not self._ws.is_disconnected:
            self._ws.send_reuse_external_bytearray(picows.WSMsgType.BINARY, buffer, HEADROOM)

    def send_copy(self, message: bytes | bytearray) -> None:
        """Send a binary message that stays as it is, at the price of a copy; as `send` otherwise."""
        if self._ws is not None and not self._ws.is_disconnected:
            self._ws.send(picows.WSMsgType.BINARY, message)

    def dialled(self, sock: socket.socket, took_s: float, congestion: str) -> None:
        """Note what it runs over."""
        self._sock, self.connect_s, self.congestion = sock, took_s, congestion

    def send_pong(self) -> None:
        """Send an empty pong that nobody asked for."""
        ws = self._ws
        if ws is not None and not ws.is_disconnected and not ws.is_close_frame_sent:
            ws.send_pong()

    @property
    def round_trip_s(self) -> float:
        """Seconds of a round trip, the longer of that at the beginning and the present one; 0: not known."""
        now = math.inf if self._sock is None else round_trip_s(self._sock)
        return max(self.connect_s or 0.0, now if math.isfinite(now) else 0.0)

    def sent(self) -> Sent:
        """Return what has become of what was sent."""
        return Sent(0, 0) if self._sock is None else sent(self._sock)

    def vanished(self, silent_s: float) -> None:
        """End a connection whose other kernel has acknowledged nothing for so long; tell the listener."""
        why = f"the server's machine has acknowledged nothing for {silent_s:.1f} s"
        self._closed_by = (1006, why)
        self._cut()

    async def round_trips(self, rounds: int) -> list[float]:
        """Return the seconds so many pings took, one after the other; none on a connection that is gone."""
        if self._ws is None or self._ws.is_disconnected:
            return []
        return list(await self._ws.measure_roundtrip_time(rounds))

    def close(self) -> None:
        """Say goodbye and disconnect once that is sent. The listener hears nothing more. Safe to call twice."""
        self._listener = None
        self._say_goodbye(1000)

    def abort(self) -> None:
        """Disconnect without a word, for a link that no longer carries any. The listener hears nothing more."""
        self._listener = None
        self._cut()

    async def wait_closed(self, patience_s: float) -> None:
        """Wait until a connection that was closed is gone: TLS says goodbye both ways before the socket is.

        Without this an event loop that ends leaves the socket to the garbage collector.

        Args:
            patience_s: For the other side's goodbye; then the connection is cut.
        """
        if self._ws is None:
            return
        gone = asyncio.ensure_future(self._ws.wait_disconnected())
        await asyncio.wait([gone], timeout=patience_s)
        if not gone.done():
            self._ws.disconnect(graceful=False)
            await asyncio.wait([gone])
        gone.exception()  # why it ended has been told; here it counts that it has

    def _cut(self) -> None:
        """Disconnect; the kernel forgets what has not arrived: an old observation would be answered first."""
        if self._ws is None or self._ws.is_disconnected:
            return
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._ws.disconnect(graceful=False)

    def _say_goodbye(self, code: int) -> None:
        if self._ws is not None and not self._ws.is_disconnected:
            with contextlib.suppress(OSError):
                self._ws.send_close(picows.WSCloseCode(code))
            self._ws.disconnect(graceful=True)

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Keep the transport (picows callback)."""
        self._ws = transport

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Join frames to messages and answer pings (picows callback)."""
        kind = frame.msg_type
        if kind == picows.WSMsgType.CLOSE:
            code = frame.get_close_code()
            number = code.value if hasattr(code, "value") else int(code)
            reason = frame.get_close_message() or b""
            self._closed_by = (number or 1005, bytes(reason).decode("utf-8", "replace"))
            self._say_goodbye(1000)
        elif kind in (picows.WSMsgType.BINARY, picows.WSMsgType.TEXT):
            if self._message is not None:
                self._refuse("a new message inside a fragmented one")
                return
            self._is_text = kind == picows.WSMsgType.TEXT
            self._take(frame)
        elif kind == picows.WSMsgType.PING:
            # Who pings and does not read gets no more answers, which would be kept here.
            if transport.underlying_transport.get_write_buffer_size() < _MOST_UNSENT:
                transport.send_pong(frame.get_payload_as_bytes())
        elif kind == picows.WSMsgType.CONTINUATION:
            if self._message is None:
                self._refuse("a continuation of no message")
                return
            self._take(frame)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """Report the end once (picows callback)."""
        code, reason = self._closed_by or (1006, "")
        self._message = None
        if self._listener is not None:
            self._listener.on_ended(code, reason)

    def _take(self, frame: picows.WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        if self._message is not None or not frame.fin:
            self._message = self._message or bytearray()
            self._message += payload
        size = len(payload if self._message is None else self._message)
        if size > self._max_message_bytes:
            self._refuse(f"a message over max_message_bytes={self._max_message_bytes}", code=1009)
            return
        if not frame.fin:
            return
        message = payload if self._message is None else bytes(self._message)
        self._message = None
        if self._listener is not None:
            text = self._is_text
            self._listener.on_message(message.decode("utf-8", "replace") if text else message)

    def _refuse(self, what: str, *, code: int = 1002) -> None:
        self._closed_by = (code, f"the server sent {what}")
        self._say_goodbye(code)
