# SPDX-License-Identifier: Apache-2.0
"""Listening sockets that count whom they let in, from the first packet on: before TLS, before HTTP.

In: an address, the settings. Out: sockets to serve on. Runs on the event loop; decisions are `bounds`.

Servers on asyncio's loops call `accept` of the listening socket they were given, and close what it returned
when the connection has ended. That is all that is overridden here. Loops that go around Python's sockets
(uvloop, the one of Windows) accept everybody; `Gate.counts` then stays False.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import sys
from typing import Any

from pi05_websocket.server.bounds import Door
from pi05_websocket.server.config import ServerConfig

__all__ = ["Gate"]

logger = logging.getLogger(__name__)

_BACKLOG = 100
_NO_SUCH_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_OTHER_FILES = 128
"""Sockets for refusals, the policy's own files."""


class _Client(socket.socket):
    """A client's socket, which tells the gate when it is closed."""

    gate: Gate | None = None
    number = 0

    def close(self) -> None:
        """Close, and leave the gate."""
        if self.gate is not None:
            self.gate.left(self)
        super().close()


class _Listener(socket.socket):
    gate: Gate

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept the next client who may come in.

        Raises:
            ConnectionAbortedError: The next one may not; the server asks again.
            OSError: As ever.
        """
        plain, address = super().accept()
        client = _Client(self.family, self.type, self.proto, fileno=plain.detach())
        if not self.gate.let_in(client, str(address[0])):
            client.close()
            raise ConnectionAbortedError
        return client, address


class Gate:
    """All sockets of one run of a server."""

    def __init__(self, config: ServerConfig) -> None:
        self._door = Door(config)
        self._most = config.max_connections
        self._inside: dict[int, _Client] = {}
        self._told = 0
        self._warned = False
        self.counts = False
        """Whether this event loop lets us count at all."""

    def __repr__(self) -> str:
        return f"<Gate {self._door!r}>"

    @property
    def full(self) -> bool:
        """Whether as many WebSockets are open as may be."""
        return self._door.full

    def listen(self, host: str, port: int) -> list[_Listener]:
        """Open the sockets for an address: one for each family that its name has.

        Raises:
            OSError: If the address cannot be listened on.
        """
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        opened: list[_Listener] = []
        unusable: OSError | None = None
        try:
            for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
                chosen = opened[0].getsockname()[1] if opened else port
                try:
                    opened.append(self._listener(family, (address[0], chosen, *address[2:])))
                except OSError as exc:
                    if exc.errno not in _NO_SUCH_FAMILY:
                        raise
                    unusable = exc  # a name may have an IPv6 address where IPv6 is off
        except BaseException:
            for listener in opened:
                listener.close()
            raise
        if not opened:
            raise unusable or OSError(f"no address for {host}")
        self._warn_of_few_files()
        return opened

    def _listener(self, family: int, address: tuple[Any, ...]) -> _Listener:
        plain = socket.create_server(address, family=family, backlog=_BACKLOG)
        listener = _Listener(plain.family, plain.type, plain.proto, fileno=plain.detach())
        listener.gate = self
        return listener

    def _warn_of_few_files(self) -> None:
        """Say that the system lets this process open fewer sockets than the settings."""
        if sys.platform == "win32":
            return
        import resource  # only Unix has it

        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if allowed != resource.RLIM_INFINITY and allowed < self._most + _OTHER_FILES:
            logger.warning(
                "this process may open %d files; max_connections=%d needs %d (ulimit -n)",
                allowed, self._most, self._most + _OTHER_FILES,
            )  # fmt: skip

    def let_in(self, client: _Client, address: str) -> bool:
        """Let a client in, unless there are too many; one that has said nothing may have to go for it."""
        self.counts = True
        admission = self._door.arrive(address)
        if admission.instead_of is not None:
            self._cut(admission.instead_of)
        if admission.number is None:
            return False
        client.number, client.gate = admission.number, self
        self._inside[client.number] = client
        return True

    def became_websocket(self, fileno: int) -> None:
        """Note that a socket's handshake is done."""
        for client in self._inside.values():
            if client.fileno() == fileno:
                self._door.finish(client.number)
                return
        if not self.counts and not self._warned:
            self._warned = True
            logger.warning(
                "this event loop accepts connections by itself: max_connections and "
                "max_connections_per_address do not count"
            )

    def turn_away(self) -> None:
        """Note that a client was told to come again later."""
        self._door.refused += 1

    def left(self, client: _Client) -> None:
        """Note that a socket is being closed."""
        self._inside.pop(client.number, None)
        self._door.leave(client.number)

    def tell(self) -> None:
        """Leave a line about those who did not come in since the last one."""
        new, self._told = self._door.refused - self._told, self._door.refused
        if new:
            logger.warning(
                "%d connections refused, or cut before their handshake: too many at once (max_connections, "
                "max_connections_per_address)", new,
            )  # fmt: skip

    def _cut(self, number: int) -> None:
        """End a connection; its transport sees the end of the stream and closes."""
        client = self._inside.pop(number, None)
        if client is not None:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
