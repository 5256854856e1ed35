# SPDX-License-Identifier: Apache-2.0
"""Clients on bare sockets: a good one, and for each clause one that breaks just that."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from pi05_websocket.conformance.examine_client import ClientExamination
from pi05_websocket.conformance.frames import CLOSE, CONTINUATION, Frame, request_head
from pi05_websocket.conformance.link import Heard, Link
from pi05_websocket.conformance.sockets import open_socket, read_http
from pi05_websocket.errors import DecodeError
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import encode_images, reads_jpeg
from pi05_websocket.wire.realtime import REALTIME_KEY, RealtimeRequest, with_realtime
from pi05_websocket.wire.refusals import REFUSED

OBSERVATION: dict[str, Any] = {
    "observation/images/wrist": np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8),
    "observation/state": np.arange(6, dtype=np.float32),
    "prompt": "pick up the cube",
}


class Left(Exception):
    """The client hangs up."""


class GoodClient:
    """Keeps every clause; `_rt` and encoded images where they are announced."""

    headers: dict[str, str] = {"Authorization": "Api-Key secret"}  # noqa: RUF012
    key = "AAECAwQFBgcICQoLDA0ODw=="
    link_class: type[Link] = Link
    timeout_s = 10.0

    def __init__(self, examination: ClientExamination) -> None:
        self._examination = examination
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()

    def run(self) -> None:
        """Ask as long as the examination wants."""
        while self._examination.wanting:
            with contextlib.suppress(OSError, Left, DecodeError):
                sock = open_socket(self._examination.url, 5, None)
                with contextlib.closing(sock):
                    self.upgrade(sock)

    def upgrade(self, sock: socket.socket) -> None:
        """Ask for the upgrade, then talk."""
        host = urlsplit(self._examination.url).netloc
        sock.sendall(request_head("/", host, self.key, self.headers))
        found = read_http(sock, 5)
        if found is not None and found[0].status == 101:
            self.talk(self.link_class(sock, masks=True, rest=found[1]))

    def talk(self, link: Link) -> None:
        """Read the metadata, then ask and take answers until the connection ends."""
        self.before(link)
        metadata = codec.decode(link.message(5).payload)
        self.look(metadata)
        seq = 0
        while self._examination.wanting:
            seq += 1
            link.send_message(self.message(metadata, seq))
            heard = self.reply(link)
            if heard.what == "closed":
                return
            if isinstance(heard.said, str) and not heard.said.startswith(REFUSED):
                self.failed(link, metadata)
                return
            self.take(heard)

    def before(self, link: Link) -> None:
        """Do something before the metadata comes."""

    def look(self, metadata: Any) -> None:
        """Look at the metadata."""

    def message(self, metadata: Any, seq: int) -> bytes | str:
        """Return the request."""
        observation = OBSERVATION
        if reads_jpeg(metadata):
            observation, _ = encode_images(observation, 90)
        if REALTIME_KEY in metadata:
            observation = with_realtime(observation, self.realtime(seq))
        return codec.encode(observation)

    def realtime(self, seq: int) -> RealtimeRequest:
        """Return what is said beside the observation."""
        leftover = np.zeros((0, 6), np.float32)
        return RealtimeRequest(
            seq=seq, leftover=leftover, delay=0, execution_horizon=5, control_hz=30.0
        )

    def reply(self, link: Link) -> Heard:
        """Wait for what comes back."""
        heard = link.message(self.timeout_s)
        if heard.what == "silence":
            raise Left
        return heard

    def failed(self, link: Link, metadata: Any) -> None:
        """Go on after an error: the connection ends."""
        link.message(5)

    def take(self, heard: Heard) -> None:
        """Take an answer; what cannot be read is passed over."""


class Unmasked(Link):
    """Masks nothing."""

    def send(self, kind: int, payload: bytes = b"", **how: Any) -> None:
        """Send a frame."""
        super().send(kind, payload, **(how | {"masked": False}))


class Deaf(Link):
    """Answers no ping."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.answers_pings = False


class NoGoodbye(Link):
    """Answers no close frame."""

    def _take(self, frame: Frame) -> Heard | None:
        self._closing = True
        return super()._take(frame)


class WholeOnly(Link):
    """Hangs up at a fragment."""

    def _joined(self, frame: Frame) -> Heard | None:
        if not frame.fin or frame.kind == CONTINUATION:
            raise Left
        return super()._joined(frame)


class Small(Link):
    """Takes no message beyond 1 MiB, as a WebSocket library left to itself."""

    def _joined(self, frame: Frame) -> Heard | None:
        if len(frame.payload) > 1 << 20:
            self.send(CLOSE, b"\x03\xf1")
            raise Left
        return super()._joined(frame)


def changed(name: str, thing: Any) -> type[GoodClient]:
    """Return a client with one thing changed."""
    return type("Changed", (GoodClient,), {name: thing})


def sending(make: Callable[[Any, int], bytes | str]) -> type[GoodClient]:
    """Return a client whose request is this."""
    return changed("message", lambda self, metadata, seq: make(metadata, seq))


def _leave(when: Callable[[Any], bool]) -> Callable[..., None]:
    """Hang up at answers of a kind."""

    def take(self: GoodClient, heard: Heard) -> None:
        value = codec.decode(heard.payload) if heard.what == "binary" else {}
        if when(value):
            raise Left

    return take


def _unknown_metadata(self: GoodClient, metadata: Any) -> None:
    if metadata:
        raise Left


def _impatient(self: GoodClient, link: Link) -> None:
    link.send_message(codec.encode(OBSERVATION))


def _needs_subprotocol(self: GoodClient, link: Link) -> None:
    link.close()
    raise Left


def _confused(self: GoodClient, link: Link, waits_s: float = 0.3) -> Heard:
    """Take whatever comes for the answer, late or not."""
    heard = link.message(waits_s)
    while heard.what == "silence":
        link.send_message(codec.encode(OBSERVATION))
        heard = link.message(waits_s)
    return heard


class Slow(GoodClient):
    """Executes what it is answered for longer than it waits for an answer, and takes whatever comes for it."""

    executes_s = 0.5
    waits_s = 0.2

    def reply(self, link: Link) -> Heard:
        """Ask again where none comes, then execute."""
        heard = _confused(self, link, self.waits_s)
        threading.Event().wait(self.executes_s)
        return heard


def _goes_on(self: GoodClient, link: Link, metadata: Any) -> None:
    link.send_message(codec.encode(OBSERVATION))
    link.message(5)


def _no_version(self: GoodClient, sock: socket.socket) -> None:
    host = urlsplit(self._examination.url).netloc
    asked = request_head("/", host, self.key, {}).replace(b"Version: 13", b"Version: 8")
    sock.sendall(asked)
    found = read_http(sock, 5)
    if found is not None:
        self.talk(Link(sock, masks=True, rest=found[1]))


def _array(**entries: Any) -> bytes:
    good = {"__ndarray__": True, "data": bytes(24), "dtype": "<f4", "shape": [6]} | entries
    return codec.encode({"state": {key.encode(): value for key, value in good.items()}})


def _damaged(metadata: Any, _seq: int) -> bytes:
    image = {"__image__": "jpeg", "data": b"none", "shape": [32, 32, 3], "layout": "hwc"}
    return codec.encode({"image": image} if metadata else OBSERVATION)


def _half_realtime(metadata: Any, _seq: int) -> bytes:
    return codec.encode(OBSERVATION | ({REALTIME_KEY: {"seq": 1}} if metadata else {}))


class NeedsRealtime(GoodClient):
    """Hangs up where an answer to `_rt` has none."""

    announced = False

    def look(self, metadata: Any) -> None:
        """Look whether it is announced."""
        self.announced = REALTIME_KEY in metadata

    def take(self, heard: Heard) -> None:
        """Insist on it."""
        if self.announced and heard.what == "binary":
            value = codec.decode(heard.payload)
            if REALTIME_KEY not in value:
                raise Left


MUTANTS: list[tuple[str, type[GoodClient]]] = [
    ("W-1", sending(lambda *_: codec.encode(OBSERVATION) + b"\x00")),
    ("W-2", sending(lambda *_: b"\x81\xa1t\xd4\x01\x00")),
    ("W-3", sending(lambda *_: b"\x81\x01\x02")),
    ("W-4", sending(lambda *_: codec.encode({"s": {b"nd": True, b"type": "<f4", b"data": b""}}))),
    ("W-6", sending(lambda *_: _array(dtype="float32"))),
    ("W-7", sending(lambda *_: _array(shape=[5]))),
    ("W-8", sending(lambda *_: codec.encode({"n": {b"__npgeneric__": True}}))),
    ("C-1", changed("key", "short")),
    ("C-1", changed("upgrade", _no_version)),
    ("C-2", changed("before", _needs_subprotocol)),
    ("C-3", changed("before", _impatient)),
    ("C-4", changed("look", _unknown_metadata)),
    ("C-5", sending(lambda *_: "pick up the cube")),
    ("C-5", sending(lambda *_: codec.encode([1, 2]))),
    ("C-6", changed("link_class", Unmasked)),
    ("C-7", changed("take", _leave(lambda value: value["actions"].dtype == np.float32))),
    ("C-7", changed("take", _leave(lambda value: "server_timing" not in value))),
    ("C-7", changed("take", _leave(lambda value: "conformance" in value))),
    ("C-8", changed("link_class", WholeOnly)),
    ("C-9", changed("link_class", Small)),
    ("C-10", changed("link_class", Deaf)),
    ("C-12", changed("reply", _confused)),
    ("C-12", Slow),
    ("C-14", changed("failed", _goes_on)),
    ("C-16", changed("link_class", NoGoodbye)),
    ("C-17", changed("headers", {"Authorization": "Basic c2VjcmV0"})),
    ("C-19", sending(lambda *_: codec.encode({"reset": True}))),
    ("C-19", sending(lambda *_: codec.encode({"endpoint": "reset", "session_id": "1"}))),
    ("RT-2", sending(lambda *_: codec.encode(OBSERVATION | {REALTIME_KEY: {}}))),
    ("RT-3", sending(_half_realtime)),
    ("RT-7", NeedsRealtime),
    ("IM-2", sending(lambda *_: codec.encode({"image": {"__image__": "jpeg"}}))),
    ("IM-3", sending(_damaged)),
]
"""A clause, and a client that breaks it."""
