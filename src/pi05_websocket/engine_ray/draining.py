# SPDX-License-Identifier: Apache-2.0
"""Whether this ingress replica is being replaced: Ray tells HAProxy, and nobody else.

Ray lets a replica that it replaces end its sockets by themselves, and cuts them when its time is over; the
application is told nothing. The replica's own health page says so, and HAProxy, which asks it too, cuts what is
left two seconds later: it is asked four times a second.
"""

from __future__ import annotations

import asyncio
import contextlib

__all__ = ["until_replaced"]

_EVERY_S = 0.25
_TIMEOUT_S = 5.0
_REQUEST = b"GET /-/healthz HTTP/1.1\r\nHost: ingress\r\nConnection: close\r\n\r\n"


async def until_replaced(host: str, port: int) -> None:
    """Wait until the replica that listens there says that it is draining."""
    while not await _is_draining(host, port):
        await asyncio.sleep(_EVERY_S)


async def _is_draining(host: str, port: int) -> bool:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(_REQUEST)
                return b"DRAINING" in await reader.read(65536)
            finally:
                writer.close()
    return False
