# SPDX-License-Identifier: Apache-2.0
"""A slow link: a TCP proxy on this machine that hands everything on later, in order and unchanged.

In: the port of a server, and how much a round trip shall last longer. Out: a port that leads to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from pi05_websocket.bench.relay import Relay

__all__ = ["SlowLink"]

_PIECE = 64 * 1024
_PIECES_UNDER_WAY = 256
"""16 MB in each direction: more than any link of a robot holds."""


class SlowLink(Relay):
    """Delays each direction by half of `round_trip_s`. A context manager.

    Raises:
        OSError: If no port can be opened.
    """

    def __init__(self, port: int, *, round_trip_s: float) -> None:
        self._delay_s = round_trip_s / 2
        super().__init__(port, most_bytes=_PIECE, most_pieces=_PIECES_UNDER_WAY)

    async def pieces(
        self, source: asyncio.StreamReader, *, upwards: bool
    ) -> AsyncIterator[tuple[float, bytes]]:
        """Yield what comes, half of the round trip later."""
        while piece := await source.read(_PIECE):
            yield self.loop.time() + self._delay_s, piece
