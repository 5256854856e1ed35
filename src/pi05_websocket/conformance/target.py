# SPDX-License-Identifier: Apache-2.0
"""A server under examination: connections to it, requests in its dialect, what comes back.

In: an address and an observation that its policy takes. Out: links and what was heard on them. Blocks; every
wait has a limit.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from pi05_websocket.conformance.frames import HttpHead, request_head
from pi05_websocket.conformance.judging import decoded, is_error, last_line
from pi05_websocket.conformance.link import SEND_PATIENCE_S, Heard, Link, dial
from pi05_websocket.conformance.sockets import open_socket, read_http, send_all
from pi05_websocket.conformance.verdicts import Lacks
from pi05_websocket.data import Observation
from pi05_websocket.errors import ObservationError
from pi05_websocket.wire import codec
from pi05_websocket.wire.dialect_robot import request_message, reset_message
from pi05_websocket.wire.dialects import DIALECTS, Dialect

__all__ = ["ObservationRefused", "ServerSettings", "Session", "Target", "Unmet", "Unreached"]

_LONGEST_BODY: Final = 64 * 1024
"""What is read of an answer to a plain GET; a health check's has three bytes."""


class Unmet(Exception):
    """What a check needs did not come; the text says what."""

    lacks: Lacks = ""


class ObservationRefused(Unmet):
    """The server's policy takes another observation than it was sent."""

    lacks: Lacks = "observation"


class Unreached(Unmet):
    """Nobody is at the server's address: nothing listens, or there is no such host."""

    lacks: Lacks = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Which server is examined, and how patiently."""

    url: str
    """`ws://` or `wss://`."""

    observation: Observation
    """One that its policy answers."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Of every upgrade; the key is in here."""

    dialect: str = "openpi"
    """The server's."""

    patience_s: float = 5.0
    """Longest wait for anything but the first answer, in seconds."""

    first_patience_s: float = 60.0
    """Longest wait for the first answer: a model may be compiling."""

    send_patience_s: float = SEND_PATIENCE_S
    """Longest wait until the server has read what it is sent, in seconds; then the connection has ended."""

    quiet_s: float = 0.3
    """How long to listen where nothing should come, in seconds."""

    tls: ssl.SSLContext | None = None
    """For `wss://`."""


class Session:
    """A connection whose metadata has come."""

    def __init__(self, target: Target, link: Link, raw_metadata: bytes) -> None:
        self.link = link
        self.raw_metadata = raw_metadata
        self.metadata: dict[str, Any] = decoded(raw_metadata)
        self._target = target

    def request(self, observation: Observation | None = None) -> dict[str, Any]:
        """Return the message for an observation; None: the target's.

        Raises:
            ObservationRefused: The server's metadata asks for more than the observation has.
        """
        target = self._target
        try:
            return request_message(
                target.dialect,
                target.settings.observation if observation is None else observation,
                metadata=self.metadata,
                session_id="conformance",
                request_id=str(next(target.numbers)),
            )
        except ObservationError as exc:
            raise ObservationRefused(str(exc)) from exc

    def ask(self, message: Any = None) -> Heard:
        """Send a message, as it is or still to be encoded, and return what comes back; None: a request."""
        said = self.request() if message is None else message
        self.link.send_message(said if isinstance(said, bytes | str) else codec.encode(said))
        return self.hear()

    def hear(self) -> Heard:
        """Return what comes back for a request."""
        heard = self.link.message(self._target.answer_patience_s)
        self._target.warm |= heard.what == "binary"
        return heard

    def answer(self, message: Any = None) -> bytes:
        """Ask and return the answer.

        Raises:
            Unmet: There is none, or it is an error.
        """
        return self._target.answer_in(self.ask(message))

    def after_error(self) -> tuple[int | None, str]:
        """Return code and reason of the close that comes now; None: none does."""
        stays = self._target.dialect.errors in ("typed", "status")
        patience = self._target.settings.quiet_s if stays else self._target.settings.patience_s
        heard = self.link.message(patience)
        return (heard.code, heard.reason) if heard.what == "closed" else (None, "")


class Target:
    """The server; what was opened is closed by `hang_up`."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.dialect: Dialect = DIALECTS[settings.dialect]
        self.numbers = itertools.count(1)
        self.warm = False
        """Whether it has answered."""
        self._links: list[Link] = []

    @property
    def answer_patience_s(self) -> float:
        """How long to wait for an answer."""
        return self.settings.patience_s if self.warm else self.settings.first_patience_s

    def connect(
        self, extra: Mapping[str, str] | None = None, *, with_key: bool = True
    ) -> tuple[Link | None, HttpHead | None, str]:
        """Ask for a WebSocket; return it, the response and the handshake's key.

        Raises:
            Unmet: The server cannot be reached.
        """
        headers = {
            name: value
            for name, value in self.settings.headers.items()
            if with_key or name.lower() != "authorization"
        }
        try:
            link, response, key = dial(
                self.settings.url,
                {**headers, **(extra or {})},
                self.settings.patience_s,
                self.settings.tls,
                self.settings.send_patience_s,
            )
        except (OSError, ValueError) as exc:
            raise _unmet(self.settings.url, exc) from exc
        if link is not None:
            self._links.append(link)
        return link, response, key

    def begin(self, *, episode: bool = True) -> Session:
        """Open a connection, read its metadata, begin an episode where the dialect does.

        Raises:
            Unmet: One of these fails.
        """
        link, response, _ = self.connect()
        if link is None:
            status = "no HTTP answer" if response is None else response.line
            raise Unmet(f"no WebSocket: {status}")
        heard = link.message(self.settings.patience_s)
        if heard.what != "binary" or not isinstance(decoded(heard.payload), dict):
            raise Unmet(f"no metadata: {heard}")
        session = Session(self, link, heard.payload)
        if episode and self.dialect.reset != "none":
            link.send_message(codec.encode(self.reset()))
            if self.dialect.reset != "silent" and session.hear().said is None:
                raise Unmet("no answer to the message that begins an episode")
        return session

    def reset(self) -> dict[str, Any]:
        """Return the message that begins an episode."""
        return reset_message(self.dialect, self.settings.observation)

    def answer_in(self, heard: Heard) -> bytes:
        """Return the answer in what was heard.

        Raises:
            ObservationRefused: It is an error.
            Unmet: There is none.
        """
        said = heard.said
        if isinstance(said, bytes) and not is_error(self.dialect, said):
            return said
        if said is None:
            raise Unmet(f"expected an answer, got {heard}")
        text = said if isinstance(said, str) else str(decoded(said))
        raise ObservationRefused(
            f"the server answers the observation with an error: {last_line(text)[:200]}. "
            "Give one that its policy takes: keymap or observation."
        )

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of a plain GET without a key, its first 64 KiB; status 0: no answer.

        Raises:
            Unmet: The server cannot be reached.
        """
        host = urlsplit(self.settings.url).netloc.rpartition("@")[2]
        patience_s = self.settings.patience_s
        asked = request_head(path, host, "", {"Connection": "close"}, upgrade=False)
        with self.tcp() as sock, contextlib.suppress(OSError, ValueError):
            send_all(sock, asked, patience_s)
            found = read_http(sock, patience_s)
            if found is not None:
                return found[0].status, _body(sock, found[0], found[1], patience_s)
        return 0, b""

    @contextlib.contextmanager
    def tcp(self) -> Iterator[Any]:
        """Give a bare connection to the server's port, TLS done.

        Raises:
            Unmet: It cannot be reached.
        """
        settings = self.settings
        try:
            sock = open_socket(settings.url, settings.patience_s, settings.tls)
        except OSError as exc:
            raise _unmet(settings.url, exc) from exc
        with sock:
            yield sock

    def hang_up(self) -> None:
        """Close everything that was opened."""
        for link in self._links:
            link.close()
        self._links.clear()


def _unmet(url: str, exc: OSError | ValueError) -> Unmet:
    nobody = isinstance(exc, ConnectionRefusedError | socket.gaierror)
    kind = Unreached if nobody else Unmet
    return kind(f"{url}: {exc.strerror or exc}" if isinstance(exc, OSError) else f"{url}: {exc}")


def _body(sock: Any, head: HttpHead, received: bytes, timeout_s: float) -> bytes:
    """Return what of the body comes within a time and a bound."""
    deadline = time.monotonic() + timeout_s
    length = head.get("content-length")
    wanted = min(int(length), _LONGEST_BODY) if length.isdecimal() else _LONGEST_BODY
    with contextlib.suppress(OSError):
        while len(received) < wanted and (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            more = sock.recv(4096)
            if not more:
                break
            received += more
    return received[:wanted]
