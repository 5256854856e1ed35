# SPDX-License-Identifier: Apache-2.0
"""One WebSocket on a blocking socket, for either side, that does exactly what a check wants.

In: frames and messages to send. Out: what is heard, one thing at a time, within a time. Every call belongs to
the thread that made the link; waits are on the wall clock.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import ssl
import struct
import time
from collections.abc import Mapping
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
    read_head,
    request_head,
)

__all__ = ["Heard", "Link", "dial", "open_socket", "read_http"]

MOST_BYTES: Final = 256 * 1024 * 1024
_ABNORMAL: Final = 1006
_SEND_PATIENCE_S: Final = 60.0


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
            lines = self.payload.decode("utf-8", "replace").strip().splitlines() or ["(empty)"]
            return f"the text {lines[-1][:100]!r}"
        return self.what if self.what == "silence" else f"a {self.what} message"


class Link:
    """An open WebSocket.

    Args:
        sock: Connected, the upgrade done.
        masks: Whether this side is the client.
        rest: What was read after the upgrade's head.
    """

    def __init__(self, sock: socket.socket, *, masks: bool, rest: bytes = b"") -> None:
        self.answers_pings = True
        self.faults: list[str] = []
        """What the peer's frames did that none may."""
        self.pings = 0
        """How many came."""
        self._socket = sock
        self._masks = masks
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
        self, kind: int, payload: bytes = b"", *, fin: bool = True, masked: bool | None = None
    ) -> None:
        """Send one frame; nothing on a connection that is gone."""
        self._closing |= kind == CLOSE
        masks = self._masks if masked is None else masked
        frame = Frame(kind=kind, payload=payload, fin=fin)
        self.send_raw(frame_bytes(frame, os.urandom(4) if masks else b""))

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

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        with contextlib.suppress(OSError):  # what is received next tells how it ended
            self._socket.settimeout(_SEND_PATIENCE_S)
            self._socket.sendall(data)

    def receive(self, timeout_s: float) -> Heard:
        """Return the next message, pong or end; `silence` after the time."""
        deadline = time.monotonic() + timeout_s
        while self._ended is None:
            frame = self._reader.next()
            if frame is not None:
                heard = self._take(frame)
                if heard is not None:
                    return heard
            elif not self._read(deadline - time.monotonic()):
                return Heard(what="silence")
        return self._ended

    def message(self, timeout_s: float) -> Heard:
        """Return the next message or the end; pongs are passed over."""
        deadline = time.monotonic() + timeout_s
        while True:
            heard = self.receive(deadline - time.monotonic())
            if heard.what != "pong":
                return heard

    def say_goodbye(self, code: int, timeout_s: float, reason: str = "") -> Heard:
        """Send a close frame and return what the peer does: its close, or silence. Messages are passed over."""
        self.send(CLOSE, close_payload(code, reason))
        deadline = time.monotonic() + timeout_s
        heard = self.message(timeout_s)
        while heard.said is not None:
            heard = self.message(deadline - time.monotonic())
        return heard

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

    def _read(self, timeout_s: float) -> bool:
        """Read once; say whether anything came, the end included."""
        if self._reader.too_long:
            self._ended = Heard(what="closed", code=_ABNORMAL, reason="a frame longer than 256 MiB")
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
            self._ended = Heard(what="closed", code=_ABNORMAL, reason="without a close frame")
        return True

    def _take(self, frame: Frame) -> Heard | None:
        if frame.reserved:
            self.faults.append("reserved bits are set")
        if frame.masked == self._masks:
            self.faults.append(f"a frame is {'masked' if frame.masked else 'not masked'}")
        if frame.kind == CLOSE:
            code, reason = read_close(frame.payload)
            if not self._closing:
                self.send(CLOSE, frame.payload[:2])
            self._ended = Heard(what="closed", code=code, reason=reason)
            return self._ended
        if frame.kind == PING:
            self.pings += 1
            if self.answers_pings:
                self.send(PONG, frame.payload)
            return None
        if frame.kind == PONG:
            return Heard(what="pong", payload=frame.payload)
        return self._joined(frame)

    def _joined(self, frame: Frame) -> Heard | None:
        if frame.kind != CONTINUATION:
            self._kind = frame.kind
            self._message.clear()
        self._message += frame.payload
        if not frame.fin:
            return None
        return Heard(what="text" if self._kind == TEXT else "binary", payload=bytes(self._message))


def open_socket(url: str, timeout_s: float, context: ssl.SSLContext | None) -> socket.socket:
    """Connect to a URL's host and port, TLS done.

    Raises:
        OSError: It cannot be reached.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    sock = socket.create_connection((parts.hostname or "", port), timeout=timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is None:
        return sock
    return context.wrap_socket(sock, server_hostname=parts.hostname)


def read_http(sock: socket.socket, timeout_s: float) -> tuple[HttpHead, bytes] | None:
    """Read an HTTP head and what came with it; None: the peer hung up, or said nothing in time.

    Raises:
        ValueError: It is no HTTP.
    """
    deadline = time.monotonic() + timeout_s
    received = b""
    while (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            more = sock.recv(65536)
        except OSError:
            return None
        received += more
        head = read_head(received)
        if head is not None or not more:
            return head
    return None


def dial(
    url: str, headers: Mapping[str, str], timeout_s: float, context: ssl.SSLContext | None = None
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
        sock.sendall(request_head(path, parts.netloc.rpartition("@")[2], key, headers))
        found = read_http(sock, timeout_s)
    except BaseException:
        sock.close()
        raise
    if found is None or found[0].status != 101:
        sock.close()
        return None, None if found is None else found[0], key
    return Link(sock, masks=True, rest=found[1]), found[0], key
