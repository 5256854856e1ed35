# SPDX-License-Identifier: Apache-2.0
"""The robot's control page, without a socket: any bytes get an HTTP answer, and no wish without the header."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Final

from fuzz.mutation import of_words
from fuzz.target import Broken, Target
from pi05_websocket.robot.control_page import CONTROL_HEADER, ControlPage
from pi05_websocket.robot.controls import Controls

__all__ = ["TARGETS"]

_ANSWERS: Final = frozenset((200, 202, 400, 403, 404, 408, 414, 431, 501, 505))
_LONGEST_TASK: Final = 4096


class _Conversation:
    """What a socket would carry: a request to read, an answer that is kept."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.answer = bytearray()

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._request)

    def sendall(self, data: Any) -> None:
        self.answer += data

    def settimeout(self, seconds: float) -> None:
        """Nothing waits here."""


class _Pages:
    """One page for all inputs: it has a port and a thread."""

    controls: Controls | None = None
    page: ControlPage | None = None


def _request(data: bytes) -> str:
    if _Pages.page is None:
        _Pages.controls = Controls()
        _Pages.page = ControlPage(0, _Pages.controls)
    server = _Pages.page._server
    conversation = _Conversation(data)
    server.RequestHandlerClass(conversation, ("127.0.0.1", 1), server)
    first = bytes(conversation.answer).split(b"\r\n", 1)[0]
    # Without a version a client is taken for one of 1991, which gets no status line.
    if not first.startswith(b"HTTP/1.0 "):
        return "nothing" if not conversation.answer else "HTTP/0.9"
    status = int(first.split()[1])
    if status not in _ANSWERS:
        raise Broken(f"an answer that is none of ours: {first!r}")
    if status == 202 and CONTROL_HEADER.lower().encode() not in data.lower():
        raise Broken("a wish was taken from whoever asked")
    return str(status)


def _requests() -> Iterator[bytes]:
    own = f"\r\n{CONTROL_HEADER}: 1\r\n".encode()
    yield b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8001\r\n\r\n"
    yield b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"
    yield b"POST /resume HTTP/1.1\r\nHost: [::1]:1" + own + b"\r\n"
    yield b"POST /pause HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    body = b'{"task": "pick up the red cube"}'
    length = f"Content-Length: {len(body)}\r\n\r\n".encode()
    yield b"POST /task HTTP/1.1\r\nHost: 127.0.0.1" + own + length + body
    yield b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"


_WORDS: Final = (
    b"\r\n", b"\n", b"\r\n\r\n", b": ", b" ", b"GET ", b"POST ", b"PUT ", b"/task", b"/resume", b"/quit",
    b"/status", b"//evil", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9.9", b"HTTP/", b"Host: localhost",
    b"Host: 127.0.0.1", b"Host:", CONTROL_HEADER.encode() + b": 1", b"Content-Length: ",
    b"Content-Length: 4096", b"Content-Length: 99999999999", b"Content-Length: -1",
    b"Content-Length: \xb2", b"Transfer-Encoding: chunked", b"Expect: 100-continue",
    b"Connection: keep-alive", b'{"task": ', b'"x"', b"[" * 500, b"1e999", b"\\ud800", b"\xff", b"\0",
    b"x" * 70_000, b"A: b\r\n" * 120, b'{"task": "' + b"y" * _LONGEST_TASK,
)  # fmt: skip


TARGETS: Final = (
    Target(
        name="control_page",
        check=_request,
        seeds=_requests,
        mutate=of_words(_WORDS),
        # The page itself has 20 kB; http.server reads lines of 64 KiB.
        most_memory=lambda size: 1024 * 1024 + 64 * size,
    ),
)
