# SPDX-License-Identifier: Apache-2.0
"""A link where no network can be had: a TCP proxy that delays whole WebSocket messages as `links.Path` says.

In: the port of a server and a link. Out: a port that leads to it. The sockets are real, the losses modelled:
results from here are labelled so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from pi05_websocket.bench.links import Link, Path
from pi05_websocket.bench.relay import Relay

__all__ = ["ModelledLink", "read_message"]

_MOST_HEADER_BYTES = 64 * 1024


async def read_message(source: asyncio.StreamReader, *, upgrading: bool) -> bytes:
    """Return the bytes of the next message as they came: the HTTP head of the upgrade, or a WebSocket frame.

    Raises:
        asyncio.IncompleteReadError: The peer has hung up.
    """
    if upgrading:
        return await source.readuntil(b"\r\n\r\n")
    head = await source.readexactly(2)
    length, masked = head[1] & 0x7F, bool(head[1] & 0x80)
    if length >= 126:  # RFC 6455, 5.2
        more = await source.readexactly(2 if length == 126 else 8)
        head, length = head + more, int.from_bytes(more, "big")
    return head + await source.readexactly(length + (4 if masked else 0))


class ModelledLink(Relay):
    """Hands each message on when the model says that it is there as a whole. A context manager.

    Args:
        port: Where the server listens on this machine.
        link: The network.
        seed: Of its randomness.

    Raises:
        OSError: If no port can be opened.
    """

    def __init__(self, port: int, link: Link, *, seed: int) -> None:
        self._link = link
        self._seed = seed
        super().__init__(port, most_bytes=_MOST_HEADER_BYTES)

    async def pieces(
        self, source: asyncio.StreamReader, *, upwards: bool
    ) -> AsyncIterator[tuple[float, bytes]]:
        """Yield whole messages, each when the link has carried it."""
        path = Path(self._link, 2 * self._seed + (0 if upwards else 1))
        upgrading = True
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                message = await read_message(source, upgrading=upgrading)
                upgrading = False
                yield path.arrival(self.loop.time(), len(message)), message
