# SPDX-License-Identifier: Apache-2.0
"""An ingress sees by its own health page that it is being replaced."""

from __future__ import annotations

import asyncio

from pi05_websocket.engine_ray.draining import until_replaced


def test_it_waits_until_the_page_says_so() -> None:
    """A page that is well, one that hangs up, then one that drains."""
    pages = [
        b"HTTP/1.1 200 OK\r\n\r\nsuccess",
        b"",
        b"HTTP/1.1 503 Service Unavailable\r\n\r\nDRAINING",
    ]
    asked: list[bytes] = []

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(pages[len(asked) - 1])
        writer.close()

    async def script() -> None:
        server = await asyncio.start_server(page, "127.0.0.1", 0)
        async with server, asyncio.timeout(20):
            await until_replaced("127.0.0.1", server.sockets[0].getsockname()[1])

    asyncio.run(script())
    assert len(asked) == 3
    assert asked[0].startswith(b"GET /-/healthz HTTP/1.1\r\n")
