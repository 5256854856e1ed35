# SPDX-License-Identifier: Apache-2.0
"""The clients that are connected now, whatever speaks WebSocket for them, and those who watch them.

Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from pi05_websocket.server.bounds import too_much
from pi05_websocket.server.records import Listener, Record

__all__ = ["OpenConnection", "OpenConnections", "close_out_of_bounds"]

logger = logging.getLogger(__name__)


class OpenConnection(Protocol):
    """What a server does to each of its connections."""

    @property
    def held_bytes(self) -> int:
        """How much of the server's memory it has: requests that wait, a message that has not ended."""
        ...

    def ping(self) -> None:
        """Send a ping."""

    def close(self, code: int, reason: str) -> None:
        """Say goodbye."""

    def close_if_unwelcome(self) -> None:
        """Say goodbye if its key is no longer good."""

    def close_for_room(self) -> None:
        """End it because it holds more than there is room for."""

    def close_if_out_of_bounds(self) -> None:
        """End it if something took it too long."""

    def abort(self) -> None:
        """Disconnect."""

    def __hash__(self) -> int: ...


C = TypeVar("C", bound=OpenConnection)


class OpenConnections(Generic[C]):
    """The clients that are connected now, and those who watch them."""

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        self._listeners = tuple(listeners)
        self._open: set[C] = set()
        self._count = 0
        self._nobody = asyncio.Event()
        self._nobody.set()

    def __repr__(self) -> str:
        return f"<OpenConnections {len(self._open)}>"

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[C]:
        return iter(tuple(self._open))

    def next_number(self) -> int:
        """Return the next connection's number, from 1."""
        self._count += 1
        return self._count

    @property
    def watched(self) -> bool:
        """Whether anybody is told anything."""
        return bool(self._listeners)

    def tell(self, record: Record) -> None:
        """Tell everybody who watches. One that fails is told the next all the same, and robots never notice."""
        for listener in self._listeners:
            try:
                listener(record)
            except Exception:
                logger.exception("a listener of the server failed")

    def add(self, connection: C) -> None:
        """Note a client that has come."""
        self._open.add(connection)
        self._nobody.clear()

    def discard(self, connection: C) -> None:
        """Note a client that has gone."""
        self._open.discard(connection)
        if not self._open:
            self._nobody.set()

    def ping(self) -> None:
        """Send each client a ping."""
        for connection in tuple(self._open):
            connection.ping()

    def close(self, code: int, reason: str) -> None:
        """Say goodbye to all."""
        for connection in tuple(self._open):
            connection.close(code, reason)

    def close_unwelcome(self) -> None:
        """Say goodbye to those whose keys are no longer good."""
        for connection in tuple(self._open):
            connection.close_if_unwelcome()

    def abort(self) -> None:
        """Disconnect whoever is still there."""
        for connection in tuple(self._open):
            connection.abort()

    async def all_gone(self) -> None:
        """Wait until nobody is connected."""
        await self._nobody.wait()


def close_out_of_bounds(connections: OpenConnections[C], max_held_bytes: int) -> None:
    """Say goodbye to those who take longer or hold more than they may."""
    held = {connection: connection.held_bytes for connection in connections}
    for connection in too_much(held, max_held_bytes):
        connection.close_for_room()
    for connection in connections:
        connection.close_if_out_of_bounds()
