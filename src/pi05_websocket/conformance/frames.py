# SPDX-License-Identifier: Apache-2.0
"""WebSocket as bytes: frames and the upgrade, legal or not as the caller wants. Pure.

In: frames, bytes as they come from a socket. Out: bytes to send, frames, HTTP heads. Written for checks:
nothing is corrected, nothing is answered. Source: RFC 6455.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "Frame",
    "FrameReader",
    "HttpHead",
    "accept_of",
    "close_payload",
    "frame_bytes",
    "read_close",
    "read_head",
    "request_head",
    "response_head",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LONGEST_HEAD: Final = 64 * 1024
NO_CODE: Final = 1005
"""What RFC 6455 calls a close frame without a code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame, its payload without the mask."""

    kind: int
    payload: bytes = b""
    fin: bool = True
    reserved: int = 0
    """The three reserved bits, 0 to 7."""

    masked: bool = False


def frame_bytes(frame: Frame, mask: bytes = b"") -> bytes:
    """Return a frame as it travels.

    Args:
        frame: What to send.
        mask: Four bytes, or none: unmasked.
    """
    size = len(frame.payload)
    short = size if size < 126 else 126 if size < 65536 else 127
    extended = b"" if size < 126 else struct.pack(">H" if size < 65536 else ">Q", size)
    first = (0x80 if frame.fin else 0) | frame.reserved << 4 | frame.kind
    head = bytes([first, (0x80 if mask else 0) | short]) + extended
    return head + mask + _masked(frame.payload, mask)


class FrameReader:
    """Bytes in, whole frames out."""

    def __init__(self, most_bytes: int) -> None:
        self._buffer = bytearray()
        self._most = most_bytes
        self.too_long = False
        """Whether a frame was announced that is longer than allowed; nothing is read after it."""

    def feed(self, received: bytes) -> None:
        """Take bytes from the socket."""
        self._buffer += received

    def next(self) -> Frame | None:
        """Return the next whole frame; None: more bytes are needed."""
        buffer = self._buffer
        if len(buffer) < 2 or self.too_long:
            return None
        size, at = buffer[1] & 0x7F, 2
        if size >= 126:
            code = ">H" if size == 126 else ">Q"
            at += struct.calcsize(code)
            if len(buffer) < at:
                return None
            (size,) = struct.unpack_from(code, buffer, 2)
        if size > self._most:
            self.too_long = True
            return None
        masked = bool(buffer[1] & 0x80)
        start = at + (4 if masked else 0)
        if len(buffer) < start + size:
            return None
        payload = _masked(bytes(buffer[start : start + size]), bytes(buffer[at:start]))
        first = buffer[0]
        del buffer[: start + size]
        return Frame(
            kind=first & 0x0F,
            payload=payload,
            fin=bool(first & 0x80),
            reserved=first >> 4 & 0x07,
            masked=masked,
        )


def close_payload(code: int, reason: str = "") -> bytes:
    """Return the payload of a close frame."""
    return struct.pack(">H", code) + reason.encode()


def read_close(payload: bytes) -> tuple[int, str]:
    """Return code and reason of a close frame; `NO_CODE` where there is none."""
    if len(payload) < 2:
        return NO_CODE, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode("utf-8", "replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpHead:
    """First line and headers of a request or a response, names in lower case."""

    line: str
    headers: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        """Return a header's value; several are joined with commas, none is empty."""
        return ", ".join(self.all(name))

    def all(self, name: str) -> list[str]:
        """Return every value of a header."""
        return [value for key, value in self.headers if key == name]

    @property
    def status(self) -> int:
        """The status of a response; 0: it has none."""
        words = self.line.split()
        said = words[1] if len(words) > 1 else ""
        return int(said) if len(said) == 3 and said.isdecimal() else 0

    @property
    def path(self) -> str:
        """The path of a request; empty: it has none."""
        words = self.line.split()
        return words[1] if len(words) == 3 else ""


def read_head(received: bytes) -> tuple[HttpHead, bytes] | None:
    """Return an HTTP head and what follows it; None: it is not whole yet.

    Raises:
        ValueError: It cannot be one.
    """
    head, blank, rest = received.partition(b"\r\n\r\n")
    if not blank:
        if len(received) > _LONGEST_HEAD:
            raise ValueError("an HTTP head without an end")
        return None
    line, *others = head.decode("latin-1").split("\r\n")
    if "HTTP/1." not in line:
        raise ValueError(f"no HTTP: {line[:60]!r}")
    pairs = (other.partition(":") for other in others)
    headers = tuple((name.strip().lower(), value.strip()) for name, _, value in pairs)
    return HttpHead(line=line, headers=headers), rest


def request_head(
    path: str, host: str, key: str, headers: Mapping[str, str], *, upgrade: bool = True
) -> bytes:
    """Return an upgrade request, or a plain GET.

    Args:
        path: With its query.
        host: As in the URL, with the port.
        key: Of the handshake.
        headers: Others.
        upgrade: False: an ordinary GET.
    """
    said = {"Host": host}
    if upgrade:
        said |= {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Version": "13",
        }
    lines = [f"GET {path} HTTP/1.1", *(f"{k}: {v}" for k, v in {**said, **headers}.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def response_head(status: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Return a response, such as `101 Switching Protocols`."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def accept_of(key: str) -> str:
    """Return what a server has to answer to a handshake's key."""
    return base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()


def _masked(payload: bytes, mask: bytes) -> bytes:
    if not mask:
        return payload
    # Not np.resize: it makes a list of 16 million masks for 64 MiB.
    repeated = np.tile(np.frombuffer(mask, np.uint8), len(payload) // 4 + 1)[: len(payload)]
    return np.bitwise_xor(np.frombuffer(payload, np.uint8), repeated).tobytes()
