# SPDX-License-Identifier: Apache-2.0
"""One server behind the gateway: its connections, and what it said about itself.

Runs on the server's event loop. The first connection is dialled for as long as it takes; the others once it
stands, because only then is known how many there are to be.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from pi05_websocket.client.config import ConnectionConfig
from pi05_websocket.errors import Pi05WebsocketError
from pi05_websocket.gateway.link import Link, LinkOwner
from pi05_websocket.wire.encoded_images import reads_jpeg
from pi05_websocket.wire.realtime import realtime_support

__all__ = ["Upstream", "connections_for"]

logger = logging.getLogger(__name__)

_BATCH = 16
"""The largest batch of a server of ours that does not say, see `ServerConfig.max_batch`."""

_MOST_CONNECTIONS = 256


def connections_for(metadata: Mapping[str, Any]) -> int:
    """Return how many requests a server should be given at once, by what it says.

    A stock server infers on its event loop: what else it is sent waits there, where nobody can take it back.
    One of ours forms the next batch from what is there when it has finished one.
    """
    support = realtime_support(metadata)
    if support is None or not support.refusals:
        return 1
    said = metadata.get("capabilities")
    largest = said.get("max_batch") if isinstance(said, Mapping) else None
    batch = largest if isinstance(largest, int) and largest > 0 else _BATCH
    return min(2 * batch, _MOST_CONNECTIONS)


class Upstream:
    """Its links, as one."""

    def __init__(
        self, number: int, config: ConnectionConfig, owner: LinkOwner, connections: int | None
    ) -> None:
        """Prepare it.

        Args:
            number: Which of the gateway's it is, from 0.
            config: Where to and how.
            owner: Told what happens on its links.
            connections: How many; None: by what it says.
        """
        self.number = number
        self.url = config.url
        self.metadata: Mapping[str, Any] = {}
        self.reads_jpeg = False
        self.reads_realtime = False
        self.trouble: Pi05WebsocketError | None = None
        """Why there is no connection; None while there is one."""
        self._config = config
        self._owner = owner
        self._connections = connections
        self._always = asyncio.Event()
        self._always.set()
        self._stands = asyncio.Event()
        self._links = [Link(number, config, owner, self._always)]

    def __repr__(self) -> str:
        return f"<Upstream {self.url} links={sum(link.up for link in self._links)}>"

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return any(link.up for link in self._links)

    @property
    def connections(self) -> int:
        """How many there are."""
        return sum(link.up for link in self._links)

    @property
    def vacancies(self) -> int:
        """How many requests it can be sent now."""
        return sum(link.free for link in self._links)

    def start(self) -> None:
        """Dial."""
        self._links[0].start()

    def close(self) -> None:
        """Say goodbye on all connections."""
        for link in self._links:
            link.close()

    async def wait_closed(self, patience_s: float) -> None:
        """Wait until they are gone after `close`, so long at most."""
        await asyncio.gather(*(link.wait_closed(patience_s) for link in self._links))

    def introduced(self, metadata: Mapping[str, Any]) -> None:
        """Take what the server says, and open as many connections as that asks for."""
        self.metadata = metadata
        self.reads_jpeg = reads_jpeg(metadata)
        self.reads_realtime = realtime_support(metadata) is not None
        self.trouble = None
        self._stands.set()
        wanted = self._connections or connections_for(metadata)
        while len(self._links) < wanted:
            link = Link(self.number, self._config, self._owner, self._stands)
            self._links.append(link)
            link.start()
        while len(self._links) > wanted:
            link = self._links.pop()
            link.renew()
            link.close()

    def lost(self, error: Pi05WebsocketError) -> bool:
        """Note that a link is gone, or could not be opened; return whether there is none now."""
        if self.connected:
            return False
        self.trouble = error
        self._stands.clear()
        return True

    def renew_others(self, than: Link) -> None:
        """Cut the other connections: they lead to a server that is not there any more."""
        for link in self._links:
            if link.up and link is not than:
                link.renew()

    def free_link(self, session: object = None) -> Link | None:
        """Return a link that can be sent a request; the one that this robot had last, if it is free."""
        free = [link for link in self._links if link.free]
        return next(
            (link for link in free if link.last_session is session), free[0] if free else None
        )
