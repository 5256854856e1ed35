# SPDX-License-Identifier: Apache-2.0
"""A client under examination: a listening socket, its connections, everything it sent.

In: settings. Out: requests as they come, evidence for the verdicts. Blocks; every wait has a limit.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pi05_websocket.conformance.client_evidence import Evidence
from pi05_websocket.conformance.frames import accept_of, response_head
from pi05_websocket.conformance.judging import decoded
from pi05_websocket.conformance.link import SEND_PATIENCE_S, Heard, Link
from pi05_websocket.conformance.sockets import read_http, send_all
from pi05_websocket.conformance.target import Unmet
from pi05_websocket.data import Float32Array
from pi05_websocket.errors import ConfigError
from pi05_websocket.wire import codec

__all__ = ["ClientSettings", "Visit"]

_MOST_EVIDENCE: Final = 256 * 1024 * 1024
"""Bytes of requests that are kept to be judged: a script's worth of the largest that robots send."""
_MOST_COLUMNS: Final = 1024
"""Of a made-up chunk; no arm has as many joints."""
_LEAST_S: Final = 0.1
"""Who came has at least as long to say what for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Where a client is waited for, and how patiently."""

    host: str = "127.0.0.1"
    """Address to listen on."""

    port: int = 0
    """TCP port; 0: a free one."""

    patience_s: float = 10.0
    """Longest wait for what the client does next, in seconds."""

    send_patience_s: float = SEND_PATIENCE_S
    """Longest wait until the client has read what it is sent, in seconds; then the connection has ended."""

    hold_s: float = 1.0
    """How long an answer is held back and pings are left unanswered; 60 shows a client that gives up at 40."""

    late_s: float = 3.0
    """Longest an answer is held back to see what the client does with it when it comes late."""

    quiet_s: float = 0.2
    """How long the metadata is held back, and how long to listen where nothing should come."""

    action_horizon: int = 10
    """Rows of the made-up chunks."""

    action_dim: int | None = None
    """Columns; None: as many as the observation's state has."""

    def __post_init__(self) -> None:
        if self.action_horizon < 1 or (self.action_dim is not None and self.action_dim < 1):
            raise ConfigError("action_horizon and action_dim: expected at least 1")


class Visit:
    """The client; one connection at a time is talked to, others wait."""

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        self.evidence = Evidence()
        self.metadata: Mapping[str, Any] = {}
        """What the next connections are told."""
        self.link: Link | None = None
        self._pending: bytes | None = None
        self._kept_bytes = 0
        """Of the requests that are evidence."""
        self._listener = socket.create_server((settings.host, settings.port))
        host, port = self._listener.getsockname()[:2]
        self.url = f"ws://{host}:{port}"
        """Where the client has to connect to."""

    def close(self) -> None:
        """Hang up and stop listening. Safe to call twice."""
        self.hang_up()
        self._listener.close()

    def hang_up(self) -> None:
        """End the connection, if there is one."""
        if self.link is not None:
            self.evidence.frame_faults += self.link.faults
            self.link.close()
        self.link, self._pending = None, None

    def welcome(self) -> Link:
        """Wait for the next connection, upgrade it; hold the metadata back a moment, then send it.

        Raises:
            Unmet: Nobody came.
        """
        self.hang_up()
        deadline = time.monotonic() + self.settings.patience_s
        while self.link is None:
            self.link = self._next_link(deadline)
        early = self.link.receive(self.settings.quiet_s)
        if early.said is not None:
            self.evidence.too_early.append(str(early))
        self.link.send_message(codec.encode(dict(self.metadata)))
        return self.link

    def hear(self, timeout_s: float | None = None) -> Heard:
        """Return what the client sends next on its connection; a request is kept as evidence, up to a bound."""
        if self.link is None:
            self.welcome()
        assert self.link is not None
        heard = self.link.message(self.settings.patience_s if timeout_s is None else timeout_s)
        if heard.said is not None and self._kept_bytes + len(heard.payload) <= _MOST_EVIDENCE:
            self._kept_bytes += len(heard.payload)
            self.evidence.requests.append((heard.said, self.metadata))
        return heard

    def request(self) -> bytes:
        """Return the request that waits for an answer; wait for one, on a new connection if need be.

        Raises:
            Unmet: None came.
        """
        if self._pending is not None:
            return self._pending
        if self.link is None or self.link.ended:
            self.welcome()
        heard = self.hear()
        if heard.said is None:
            self.hang_up()
            raise Unmet(f"expected a request, got {heard}")
        return self.keep(heard)

    def keep(self, heard: Heard) -> bytes:
        """Note that what was heard waits for an answer."""
        self._pending = heard.payload
        return heard.payload

    def answer(self, message: bytes | str, *, in_pieces: bool = False) -> Heard:
        """Answer the request that waits, and return what the client does then; its next request waits then."""
        self._pending = None
        assert self.link is not None
        if in_pieces and isinstance(message, bytes):
            self.link.send_in_pieces(message)
        else:
            self.link.send_message(message)
        heard = self.hear()
        if heard.said is not None:
            self.keep(heard)
        return heard

    def forget(self) -> None:
        """Note that what waited has been answered, or never will be."""
        self._pending = None

    def rows(self, request: bytes) -> Float32Array:
        """Return a chunk that stays where the robot is, as far as that can be seen."""
        state = _state(decoded(request))
        seen = 6 if state is None else min(len(state), _MOST_COLUMNS)
        width = self.settings.action_dim or seen
        row = np.zeros(width, np.float32)
        if state is not None:
            row[: len(state)] = state[:width]
        return np.tile(row, (self.settings.action_horizon, 1))

    def _next_link(self, deadline: float) -> Link | None:
        """Accept once; None: it was no upgrade, and was answered as plain HTTP, or it broke off."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise Unmet(f"the client did not connect within {self.settings.patience_s:g} s")
        self._listener.settimeout(left)
        try:
            sock, _ = self._listener.accept()
        except TimeoutError:
            raise Unmet(
                f"the client did not connect within {self.settings.patience_s:g} s"
            ) from None
        except ConnectionError:  # gone before it was taken
            return None
        try:
            link = self._upgraded(sock, deadline)
        except (OSError, ValueError):  # it broke off, or spoke no HTTP
            link = None
        if link is None:
            sock.close()
        return link

    def _upgraded(self, sock: socket.socket, deadline: float) -> Link | None:
        """Upgrade a connection; None: it asks for something else, and was told.

        Raises:
            OSError: It broke off.
            ValueError: It speaks no HTTP.
        """
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found = read_http(sock, max(_LEAST_S, deadline - time.monotonic()))
        if found is None:
            return None
        head, rest = found
        left = max(_LEAST_S, deadline - time.monotonic())
        if head.get("upgrade").lower() != "websocket":
            healthy = head.path == "/healthz"
            body = b"OK\n" if healthy else b""
            status = "200 OK" if healthy else "426 Upgrade Required"
            headers = {"Content-Length": str(len(body)), "Connection": "close"}
            send_all(sock, response_head(status, headers, body), left)
            return None
        accept = accept_of(head.get("sec-websocket-key"))
        headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}
        send_all(sock, response_head("101 Switching Protocols", headers), left)
        self.evidence.upgrades.append(head)
        return Link(sock, masks=False, rest=rest, send_patience_s=self.settings.send_patience_s)


def _state(value: Any) -> Float32Array | None:
    """Return the first vector of floats in an observation."""
    if isinstance(value, Mapping):
        found = (_state(each) for each in value.values())
        return next((each for each in found if each is not None), None)
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind == "f" and value.size:
        return np.asarray(value, np.float32)
    return None
