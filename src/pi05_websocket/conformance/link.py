# SPDX-License-Identifier: Apache-2.0
"""One WebSocket on a blocking socket, for either side, that does exactly what a check wants.

In: frames and messages to send. Out: what is heard, one thing at a time, within a time. Every call belongs to
the thread that made the link; waits are on the wall clock. Whatever the peer does, every call ends in its time,
and what is kept of the peer's words has a bound.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from pi05_websocket.conformance.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    FrameReader,
    HttpHead,
    close_payload,
    frame_bytes,
    read_close,
    request_head,
)
from pi05_websocket.conformance.judging import last_line
from pi05_websocket.conformance.sockets import open_socket, read_http, send_all

__all__ = ["SEND_PATIENCE_S", "Heard", "Link", "dial"]

MOST_BYTES: Final = 64 * 1024 * 1024
"""Of a frame, and of a message: eight times what a peer must take, and as much as our own decoder does."""

SEND_PATIENCE_S: Final = 60.0
"""8 MiB over the slowest link that a robot could use."""

_ABNORMAL: Final = 1006
_LONGEST_PING: Final = 125
_PONG_S: Final = 1.0
"""A pong has at least as long, however short the wait is in which its ping came: the link may be full."""
_LAST_BYTES: Final = 4096
"""Of a text, where its last line is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One thing that came, or that nothing did."""

    what: Literal["binary", "text", "pong", "closed", "silence"]
    payload: bytes = b""
    code: int = 0
    """Of a close; 1006 where the connection ended without a close frame."""

    reason: str = ""

    @property
    def said(self) -> bytes | str | None:
        """The message; None: it is none."""
        if self.what == "binary":
            return self.payload
        return self.payload.decode("utf-8", "replace") if self.what == "text" else None

    def __str__(self) -> str:
        if self.what == "closed":
            return f"close code {self.code}" + (f" ({self.reason})" if self.reason else "")
        if self.what == "text":
            last = last_line(self.payload[-_LAST_BYTES:].decode("utf-8", "replace"))
            return f"the text {last[:100]!r}"
        return self.what if self.what == "silence" else f"a {self.what} message"


class Link:
    """An open WebSocket.

    Args:
        sock: Connected, the upgrade done.
        masks: Whether this side is the client.
        rest: What was read after the upgrade's head.
        send_patience_s: How long the peer may take to read a message; then the link has ended.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        masks: bool,
        rest: bytes = b"",
        send_patience_s: float = SEND_PATIENCE_S,
    ) -> None:
        self.answers_pings = True
        self.faults: list[str] = []
        """What the peer's frames did that none may, each once."""
        self.pings = 0
        """How many came."""
        self._socket = sock
        self._masks = masks
        self._send_patience_s = send_patience_s
        self._until = 0.0
        """When the wait that is under way ends, on the monotonic clock."""
        self._reader = FrameReader(MOST_BYTES)
        self._reader.feed(rest)
        self._message = bytearray()
        self._kind = CONTINUATION
        self._closing = False
        self._ended: Heard | None = None

    @property
    def ended(self) -> bool:
        """Whether the connection is known to be gone."""
        return self._ended is not None

    def send(
        self,
        kind: int,
        payload: bytes = b"",
        *,
        fin: bool = True,
        masked: bool | None = None,
        within_s: float | None = None,
    ) -> None:
        """Send one frame; nothing on a connection that is gone."""
        self._closing |= kind == CLOSE
        masks = self._masks if masked is None else masked
        frame = Frame(kind=kind, payload=payload, fin=fin)
        self.send_raw(frame_bytes(frame, os.urandom(4) if masks else b""), within_s)

    def send_message(self, message: bytes | str) -> None:
        """Send a whole message."""
        if isinstance(message, str):
            self.send(TEXT, message.encode())
        else:
            self.send(BINARY, message)

    def send_in_pieces(self, message: bytes, pieces: int = 3) -> None:
        """Send a binary message in several frames, a ping between them."""
        size = max(1, len(message) // pieces)
        cuts = [message[start : start + size] for start in range(0, len(message), size)]
        for index, cut in enumerate(cuts):
            last = index == len(cuts) - 1
            self.send(BINARY if index == 0 else CONTINUATION, cut, fin=last)
            if index == 0:
                self.send(PING, b"between")

    def send_raw(self, data: bytes, within_s: float | None = None) -> None:
        """Send bytes as they are; a peer that does not take them in time has ended the link."""
        if self._ended is not None:
            return
        patience_s = self._send_patience_s
        try:
            send_all(self._socket, data, patience_s if within_s is None else within_s)
        except TimeoutError:
            self._end("it reads nothing")
        except OSError:
            pass  # what is received next tells how it ended

    def receive(self, timeout_s: float) -> Heard:
        """Return the next message, pong or end; `silence` after the time."""
        self._until = time.monotonic() + timeout_s
        while self._ended is None:
            frame = self._reader.next()
            if frame is not None:
                heard = self._take(frame)
                if heard is not None:
                    return heard
                if time.monotonic() > self._until:  # pings without end
                    return Heard(what="silence")
            elif not self._read(self._until - time.monotonic()):
                return Heard(what="silence")
        return self._ended

    def message(self, timeout_s: float) -> Heard:
        """Return the next message or the end; pongs are passed over."""
        return self._passing_over(lambda heard: heard.what == "pong", timeout_s)

    def end(self, timeout_s: float) -> Heard:
        """Return the end; messages and pongs are passed over."""
        return self._passing_over(lambda heard: heard.what not in ("closed", "silence"), timeout_s)

    def say_goodbye(self, code: int, timeout_s: float, reason: str = "") -> Heard:
        """Send a close frame and return what the peer does: its close, or silence. Messages are passed over."""
        self.send(CLOSE, close_payload(code, reason))
        return self.end(timeout_s)

    def close(self) -> None:
        """Hang up. Safe to call twice."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def cut(self) -> None:
        """Hang up as a machine does that lost its power: the peer's next packet is answered by a reset."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _passing_over(self, passed: Callable[[Heard], bool], timeout_s: float) -> Heard:
        """Return the first thing that is not passed over; silence after the time, whatever comes."""
        deadline = time.monotonic() + timeout_s
        heard = self.receive(timeout_s)
        while passed(heard):
            left = deadline - time.monotonic()
            heard = self.receive(left) if left > 0 else Heard(what="silence")
        return heard

    def _end(self, why: str) -> Heard:
        self._ended = Heard(what="closed", code=_ABNORMAL, reason=why)
        return self._ended

    def _note(self, fault: str) -> None:
        if fault not in self.faults:
            self.faults.append(fault)

    def _read(self, timeout_s: float) -> bool:
        """Read once; say whether anything came, the end included."""
        if self._reader.too_long:
            self._end("a frame longer than 64 MiB")
            return True
        if timeout_s <= 0:
            return False
        try:
            self._socket.settimeout(timeout_s)
            received = self._socket.recv(1 << 20)
        except TimeoutError:
            return False
        except OSError:
            received = b""
        if received:
            self._reader.feed(received)
        else:
            self._end("without a close frame")
        return True

    def _take(self, frame: Frame) -> Heard | None:
        if frame.reserved:
            self._note("reserved bits are set")
        if frame.masked == self._masks:
            self._note(f"a frame is {'masked' if frame.masked else 'not masked'}")
        if frame.kind == CLOSE:
            code, reason = read_close(frame.payload)
            if not self._closing:
                self.send(CLOSE, frame.payload[:2])
            self._ended = Heard(what="closed", code=code, reason=reason)
            return self._ended
        if frame.kind == PING:
            self.pings += 1
            if len(frame.payload) > _LONGEST_PING:
                return self._end("a ping longer than 125 bytes")
            if self.answers_pings:
                left = self._until - time.monotonic()
                self.send(PONG, frame.payload, within_s=max(_PONG_S, left))
            return None
        if frame.kind == PONG:
            return Heard(what="pong", payload=frame.payload)
        return self._joined(frame)

    def _joined(self, frame: Frame) -> Heard | None:
        if frame.kind != CONTINUATION:
            self._kind = frame.kind
            self._message.clear()
        if len(self._message) + len(frame.payload) > MOST_BYTES:
            return self._end("a message longer than 64 MiB")
        self._message += frame.payload
        if not frame.fin:
            return None
        return Heard(what="text" if self._kind == TEXT else "binary", payload=bytes(self._message))


def dial(
    url: str,
    headers: Mapping[str, str],
    timeout_s: float,
    context: ssl.SSLContext | None = None,
    send_patience_s: float = SEND_PATIENCE_S,
) -> tuple[Link | None, HttpHead | None, str]:
    """Ask for a WebSocket; return it where there is one, the response, and the key that was sent.

    Raises:
        OSError: The server cannot be reached.
        ValueError: It speaks no HTTP.
    """
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    key = base64.b64encode(os.urandom(16)).decode()
    sock = open_socket(url, timeout_s, context)
    try:
        head = request_head(path, parts.netloc.rpartition("@")[2], key, headers)
        send_all(sock, head, timeout_s)
        found = read_http(sock, timeout_s)
    except BaseException:
        sock.close()
        raise
    if found is None or found[0].status != 101:
        sock.close()
        return None, None if found is None else found[0], key
    link = Link(sock, masks=True, rest=found[1], send_patience_s=send_patience_s)
    return link, found[0], key
