# SPDX-License-Identifier: Apache-2.0
"""Servers on bare sockets: a good one, and for each clause one that breaks just that."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pi05_websocket.conformance.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    TEXT,
    Frame,
    HttpHead,
    accept_of,
    close_payload,
    response_head,
)
from pi05_websocket.conformance.link import Heard, Link
from pi05_websocket.conformance.sockets import read_http
from pi05_websocket.errors import DecodeError
from pi05_websocket.wire import codec
from pi05_websocket.wire.dialects import DIALECTS
from pi05_websocket.wire.encoded_images import image_announcement
from pi05_websocket.wire.protocol import TRACEBACK_CLOSE_REASON, Asked, ServerProtocol
from pi05_websocket.wire.realtime import (
    RealtimeReply,
    RealtimeRequest,
    with_realtime_reply,
)
from pi05_websocket.wire.refusals import Refusal, refusal_text

ROWS = np.arange(60, dtype=np.float64).reshape(10, 6)
OBSERVATION: dict[str, Any] = {
    "observation/exterior_image_1_left": np.full((32, 32, 3), 7, np.uint8),
    "observation/exterior_image_2_left": np.full((32, 32, 3), 9, np.uint8),
    "observation/state": np.arange(6, dtype=np.float32),
    "prompt": "pick up the cube",
}


class StrictLink(Link):
    """Ends the connection with a frame that none may send."""

    def _take(self, frame: Frame) -> Heard | None:
        if not frame.masked or frame.kind not in (CONTINUATION, TEXT, BINARY, CLOSE, 0x9, 0xA):
            self.send(CLOSE, close_payload(1002))
            self._ended = Heard(what="closed", code=1002)
            return self._ended
        return super()._take(frame)


class GoodServer:
    """Keeps every clause, in OpenPI's dialect or another."""

    dialect = "openpi"
    link_class: type[Link] = StrictLink

    def __init__(self) -> None:
        self.links: list[Link] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self.links:
            link.close()

    def accept(self) -> None:
        """Accept connections."""
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.meet(sock)

    def meet(self, sock: socket.socket) -> None:
        """Talk to a connection, without holding up the next."""
        threading.Thread(target=self.talk, args=(sock,), daemon=True).start()

    def talk(self, sock: socket.socket) -> None:
        """Upgrade a connection and serve it."""
        with sock, contextlib.suppress(OSError, ValueError):
            found = read_http(sock, 10)
            if found is None:
                return
            sock.sendall(self.response(found[0]))
            if found[0].get("upgrade") == "websocket":
                link = self.link_class(sock, masks=False, rest=found[1])
                self.links.append(link)
                self.serve(link)

    def response(self, head: HttpHead) -> bytes:
        """Answer an HTTP request."""
        if head.path == "/healthz":
            return response_head("200 OK", {"Content-Length": "3"}, b"OK\n")
        if head.get("upgrade") != "websocket":
            return response_head("426 Upgrade Required", {"Content-Length": "0"})
        return response_head("101 Switching Protocols", self.agreed(head))

    def agreed(self, head: HttpHead) -> dict[str, str]:
        """Return the headers of the upgrade."""
        accept = accept_of(head.get("sec-websocket-key"))
        return {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}

    def protocol(self) -> ServerProtocol:
        """Return what reads and writes messages."""
        return ServerProtocol(
            {}, encoded_images=True, deadlines=True, dialect=DIALECTS[self.dialect]
        )

    def serve(self, link: Link) -> None:
        """Serve an open connection."""
        protocol = self.protocol()
        self.greet(link, protocol)
        while (heard := link.message(30)).said is not None:
            try:
                for message in self.answers(protocol, heard):
                    link.send_message(message)
            except Exception as exc:
                self.fail(link, protocol, exc)
                if protocol.dialect.errors in ("text", "traceback"):
                    return
            protocol.reply_sent(total_ms=1.0)
        if heard.code == 1006:
            self.vanished()

    def greet(self, link: Link, protocol: ServerProtocol) -> None:
        """Send the metadata."""
        link.send_message(protocol.metadata_message)

    def answers(self, protocol: ServerProtocol, heard: Heard) -> Iterator[bytes | str]:
        """Yield the messages for one message."""
        asked = protocol.read(heard.said or "")
        if not isinstance(asked, Asked):
            if asked.message is not None:
                yield asked.message
            return
        if asked.packed:
            protocol.unpacked(asked.observation)
        if asked.realtime is not None and asked.realtime.deadline_ms == 0.0:
            yield self.refusal()
            return
        yield self.answer(protocol, asked)

    def answer(self, protocol: ServerProtocol, asked: Asked) -> bytes:
        """Return the answer to a request."""
        result = self.result()
        if asked.realtime is not None:
            result = self.realtime(result, asked.realtime)
        return protocol.reply(result, infer_ms=1.0, tag=asked.tag)

    def result(self) -> dict[str, Any]:
        """Return what the policy computes."""
        return {"actions": ROWS}

    def realtime(self, result: dict[str, Any], asked: RealtimeRequest) -> dict[str, Any]:
        """Return the result with what was done about the running chunk."""
        reply = RealtimeReply(seq=asked.seq, delay=0, prefix="none", queue_ms=0.0, infer_ms=1.0)
        return with_realtime_reply(result, reply)

    def refusal(self) -> str:
        """Return the text of a refusal."""
        return refusal_text(Refusal(kind="late", text="its time is up"))

    def fail(self, link: Link, protocol: ServerProtocol, exc: Exception) -> None:
        """Answer a request that failed."""
        said = protocol.error_message(exc)
        link.send_message(said.message)
        if said.closes:
            link.say_goodbye(1011, 1.0, TRACEBACK_CLOSE_REASON)

    def vanished(self) -> None:
        """Note that a client is gone without a word."""


def raw_array(**changed: Any) -> dict[bytes, Any]:
    """Return an array's map, with entries changed."""
    entries = {"__ndarray__": True, "data": bytes(24), "dtype": "<f4", "shape": [1, 6]}
    return {key.encode(): value for key, value in (entries | changed).items()}


def answering(message: bytes) -> type[GoodServer]:
    """Return a server whose answer is these bytes."""

    class Answering(GoodServer):
        def answer(self, protocol: ServerProtocol, asked: Asked) -> bytes:
            return message

    return Answering


def changed(name: str, method: Callable[..., Any] | Any, base: type[Any] = GoodServer) -> type[Any]:
    """Return a server, or another class, with one thing changed."""
    return type("Changed", (base,), {name: method})


def _wrong_accept(self: GoodServer, head: HttpHead) -> dict[str, str]:
    return GoodServer.agreed(self, head) | {"Sec-WebSocket-Accept": "d3Jvbmc="}


def _extension(self: GoodServer, head: HttpHead) -> dict[str, str]:
    return GoodServer.agreed(self, head) | {"Sec-WebSocket-Extensions": "permessage-deflate"}


def _text_metadata(self: GoodServer, link: Link, protocol: ServerProtocol) -> None:
    link.send_message("hello")


def _list_metadata(self: GoodServer, link: Link, protocol: ServerProtocol) -> None:
    link.send_message(codec.encode([]))


def _chatty(self: GoodServer, link: Link, protocol: ServerProtocol) -> None:
    GoodServer.greet(self, link, protocol)
    link.send_message(protocol.metadata_message)


def _twice(self: GoodServer, protocol: ServerProtocol, heard: Heard) -> Iterator[bytes | str]:
    for message in GoodServer.answers(self, protocol, heard):
        yield from (message, message)


def _reversed(self: GoodServer, link: Link) -> None:
    """Wait a while for requests sent ahead, and answer the last first."""
    protocol = self.protocol()
    self.greet(link, protocol)
    while True:
        heard: list[Heard] = [link.message(30)]
        while heard[-1].said is not None:
            heard.append(link.message(0.1))
        last = heard.pop()
        for each in reversed(heard):
            try:
                link.send_message(next(iter(self.answers(protocol, each))))
            except DecodeError as exc:
                self.fail(link, protocol, exc)
        if last.what == "closed":
            return


class Exchanging(GoodServer):
    """Answers two requests sent ahead in the wrong order, errors in their place."""

    def serve(self, link: Link) -> None:
        """Answer the first alone, then always two, the second one first."""
        protocol = self.protocol()
        self.greet(link, protocol)
        while (heard := link.message(30)).said is not None:
            second = link.message(0.1)
            try:
                if second.said is not None:
                    link.send_message(next(self.answers(protocol, second)))
                link.send_message(next(self.answers(protocol, heard)))
            except DecodeError as exc:
                self.fail(link, protocol, exc)
                if protocol.dialect.errors in ("text", "traceback"):
                    return


class ExchangingByContent(Exchanging):
    """The same of a stock server: nothing but the actions tells whose an answer is."""

    noise = 0.0

    def protocol(self) -> ServerProtocol:
        """Return a stock server's."""
        return ServerProtocol({}, dialect=DIALECTS[self.dialect])

    def greet(self, link: Link, protocol: ServerProtocol) -> None:
        """Send a stock server's metadata."""
        link.send_message(codec.encode({}))

    def answer(self, protocol: ServerProtocol, asked: Asked) -> bytes:
        """Answer with the state, and noise."""
        random = np.random.default_rng()
        actions = np.tile(asked.observation["observation/state"], (10, 1))
        actions = actions + random.normal(0, self.noise, actions.shape)
        return protocol.reply({"actions": actions}, infer_ms=1.0, tag=asked.tag)


def _silent_failure(self: GoodServer, link: Link, protocol: ServerProtocol, exc: Exception) -> None:
    link.say_goodbye(1011, 1.0)


def _failure_goes_on(
    self: GoodServer, link: Link, protocol: ServerProtocol, exc: Exception
) -> None:
    link.send_message(protocol.error_text(exc))
    link.message(30)


def _failure_ends_all(
    self: GoodServer, link: Link, protocol: ServerProtocol, exc: Exception
) -> None:
    for each in self.links:  # before the error is told: who has it asks the others at once
        if each is not link:
            each.close()
    GoodServer.fail(self, link, protocol, exc)


def _all_end(self: GoodServer) -> None:
    self.close()


def _text_taken(self: GoodServer, protocol: ServerProtocol, heard: Heard) -> Iterator[bytes | str]:
    if heard.what == "text":
        yield protocol.reply(self.result(), infer_ms=1.0)
    else:
        yield from GoodServer.answers(self, protocol, heard)


def _first_piece(self: Link, frame: Frame) -> Heard | None:
    whole = Frame(kind=frame.kind, payload=frame.payload, masked=True)
    return None if frame.kind == CONTINUATION else StrictLink._joined(self, whole)


class DeafLink(StrictLink):
    """Answers no ping."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.answers_pings = False


class SilentEnd(StrictLink):
    """Answers no close frame."""

    def _take(self, frame: Frame) -> Heard | None:
        self._closing = True
        return super()._take(frame)


class SmallLink(StrictLink):
    """Takes no message beyond 1 MiB, as a WebSocket library left to itself."""

    def _joined(self, frame: Frame) -> Heard | None:
        if len(frame.payload) > 1 << 20:
            self.send(CLOSE, close_payload(1009))
            self._ended = Heard(what="closed", code=1009)
            return self._ended
        return super()._joined(frame)


def _small_policy(
    self: GoodServer, protocol: ServerProtocol, heard: Heard
) -> Iterator[bytes | str]:
    if len(heard.payload) > 1 << 20:
        raise ValueError("too much for one observation")
    yield from GoodServer.answers(self, protocol, heard)


def _one_at_a_time(self: GoodServer, sock: socket.socket) -> None:
    self.talk(sock)


def _head_inline(self: GoodServer, sock: socket.socket) -> None:
    """Read the upgrade before the next connection is accepted."""
    sock.settimeout(30)
    if sock.recv(1, socket.MSG_PEEK) and b"\r\n\r\n" not in sock.recv(65536, socket.MSG_PEEK):
        sock.recv(1 << 20, socket.MSG_WAITALL)
    GoodServer.meet(self, sock)


def _picky(self: GoodServer, head: HttpHead) -> bytes:
    if head.all("x-conformance"):
        return response_head("400 Bad Request", {})
    return GoodServer.response(self, head)


def _asks_late_for_keys(self: GoodServer, link: Link, protocol: ServerProtocol) -> None:
    link.say_goodbye(4401, 1.0, "no key")


def _own_status(self: GoodServer, head: HttpHead) -> bytes:
    return response_head("500 Internal Server Error", {})


def _native_order_only(
    self: GoodServer, protocol: ServerProtocol, heard: Heard
) -> Iterator[bytes | str]:
    if b">f4" in heard.payload:
        raise ValueError("big-endian")
    yield from GoodServer.answers(self, protocol, heard)


def _announcing(**said: Any) -> Callable[[GoodServer, Link, ServerProtocol], None]:
    def greet(self: GoodServer, link: Link, protocol: ServerProtocol) -> None:
        link.send_message(codec.encode(said))

    return greet


def _other_seq(self: GoodServer, result: dict[str, Any], asked: RealtimeRequest) -> dict[str, Any]:
    reply = RealtimeReply(seq=asked.seq + 1, delay=0, prefix="none", queue_ms=0.0, infer_ms=1.0)
    return with_realtime_reply(result, reply)


def _too_far(self: GoodServer, result: dict[str, Any], asked: RealtimeRequest) -> dict[str, Any]:
    rows = len(asked.leftover)
    reply = RealtimeReply(seq=asked.seq, delay=rows + 1, prefix="none", queue_ms=0.0, infer_ms=1.0)
    return with_realtime_reply(result, reply)


def _lenient(*marks: bytes) -> Callable[..., Iterator[bytes | str]]:
    """Answer whatever has one of these marks in it."""

    def answers(self: GoodServer, protocol: ServerProtocol, heard: Heard) -> Iterator[bytes | str]:
        if any(mark in heard.payload for mark in marks):
            yield protocol.reply(self.result(), infer_ms=1.0)
        else:
            yield from GoodServer.answers(self, protocol, heard)

    return answers


def _strange(*marks: bytes) -> Callable[..., Iterator[bytes | str]]:
    """Fail for whatever has one of these marks in it."""

    def answers(self: GoodServer, protocol: ServerProtocol, heard: Heard) -> Iterator[bytes | str]:
        if any(mark in heard.payload for mark in marks):
            raise KeyError("image")
        yield from GoodServer.answers(self, protocol, heard)

    return answers


def _always_realtime(self: GoodServer) -> dict[str, Any]:
    reply = RealtimeReply(seq=0, delay=0, prefix="none", queue_ms=0.0, infer_ms=1.0)
    return with_realtime_reply({"actions": ROWS}, reply)


def _needs_realtime(
    self: GoodServer, protocol: ServerProtocol, heard: Heard
) -> Iterator[bytes | str]:
    asked = protocol.read(heard.said or "")
    if isinstance(asked, Asked) and asked.realtime is None:
        raise KeyError("_rt")
    yield self.answer(protocol, asked)


def _odd_refusal(self: GoodServer) -> str:
    return "RequestRefused: bored"


def _refusal_ends(
    self: GoodServer, protocol: ServerProtocol, heard: Heard
) -> Iterator[bytes | str]:
    for message in GoodServer.answers(self, protocol, heard):
        yield message
        if isinstance(message, str):
            raise ValueError("refused")


def _other_reset(self: GoodServer, protocol: ServerProtocol, heard: Heard) -> Iterator[bytes | str]:
    for message in GoodServer.answers(self, protocol, heard):
        yield codec.encode({}) if isinstance(message, str) else message


GoodArena = changed("dialect", "roboarena")

GOOD: dict[str, type[GoodServer]] = {"D-1": GoodArena, "D-2": GoodArena}
"""Clause -> the good server for it, where it is not the plain one."""

MUTANTS: list[tuple[str, type[GoodServer]]] = [
    ("W-1", answering(codec.encode({"actions": ROWS}) + b"\x00")),
    ("W-1", answering(codec.encode({"actions": ROWS})[:-1])),
    ("W-2", answering(b"\x82\xa7actions\x90\xa1t\xd4\x01\x00")),
    ("W-3", answering(codec.encode({"actions": ROWS, b"n": 1}))),
    ("W-3", answering(b"\x82\xa1n\x01\xa1n\x02")),
    ("W-4", answering(codec.encode({"actions": {b"nd": True, b"type": b"<f4", b"data": b""}}))),
    ("W-4", answering(codec.encode({"actions": raw_array(order="C")}))),
    ("W-6", answering(codec.encode({"actions": raw_array(dtype="float32")}))),
    ("W-6", answering(codec.encode({"actions": raw_array(dtype="<c8", shape=[3])}))),
    ("W-7", answering(codec.encode({"actions": raw_array(data=bytes(28))}))),
    ("W-7", answering(codec.encode({"actions": raw_array(shape=[-1, -6])}))),
    ("W-8", answering(codec.encode({"n": {b"__npgeneric__": True, b"data": 1, b"dtype": "<f8"}}))),
    ("W-9", changed("answers", _native_order_only)),
    ("S-1", changed("agreed", _wrong_accept)),
    ("S-1", changed("response", _own_status)),
    ("S-2", changed("agreed", _extension)),
    ("S-4", changed("greet", _text_metadata)),
    ("S-4", changed("greet", _list_metadata)),
    ("S-5", changed("greet", _chatty)),
    ("S-6", changed("answers", _twice)),
    ("S-7", changed("result", lambda self: {"actions": np.full((10, 6), np.nan)})),
    ("S-7", changed("result", lambda self: {"actions": ROWS[0]})),
    ("S-7", changed("result", lambda self: {"action": ROWS})),
    ("S-7", changed("result", lambda self: {"actions": ROWS[:0]})),
    ("S-9", changed("serve", _reversed)),
    ("S-9", Exchanging),
    ("S-9", changed("dialect", "starvla", Exchanging)),
    ("S-9", ExchangingByContent),
    ("S-9", changed("noise", 0.02, ExchangingByContent)),
    ("S-10", changed("fail", _silent_failure)),
    ("S-10", changed("fail", _failure_goes_on)),
    ("S-13", changed("answers", _text_taken)),
    ("S-14", changed("fail", _failure_ends_all)),
    ("S-15", changed("link_class", changed("_joined", _first_piece, StrictLink))),
    ("S-16", changed("link_class", DeafLink)),
    ("S-18", changed("link_class", SilentEnd)),
    ("S-19", changed("meet", _one_at_a_time)),
    ("S-22", changed("response", _picky)),
    ("S-23", changed("greet", _asks_late_for_keys)),
    ("S-23", changed("response", _own_status)),
    ("S-24", changed("link_class", SmallLink)),
    ("S-24", changed("answers", _small_policy)),
    ("S-26", changed("vanished", _all_end)),
    ("S-27", changed("link_class", Link)),
    ("S-29", changed("meet", _head_inline)),
    ("RT-1", changed("greet", _announcing(_rt={"version": 1, "prefix": "perhaps"}))),
    ("RT-1", changed("greet", _announcing(_rt={"version": "1", "prefix": "none"}))),
    ("RT-4", changed("realtime", _other_seq)),
    ("RT-4", changed("realtime", _too_far)),
    ("RT-4", changed("realtime", lambda self, result, asked: result)),
    ("RT-5", changed("answers", _lenient(b"\xa3seq\xff"))),
    ("RT-6", changed("result", _always_realtime)),
    ("RT-6", changed("answers", _needs_realtime)),
    ("RT-8", changed("refusal", _odd_refusal)),
    ("RT-8", changed("answers", _refusal_ends)),
    ("IM-1", changed("greet", _announcing(_images={"version": 1, "encodings": "jpeg"}))),
    ("IM-4", changed("answers", _strange(b"__image__"))),
    ("IM-5", changed("answers", _lenient(b"__image__"))),
    ("D-1", changed("answers", _other_reset, GoodArena)),
    ("D-2", changed("greet", _announcing(**image_announcement()), GoodArena)),
]
"""A clause, and a server that breaks it."""
