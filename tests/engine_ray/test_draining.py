# SPDX-License-Identifier: Apache-2.0
"""An ingress sees by its own health page that it is being replaced."""

from __future__ import annotations

import asyncio
import socket

import pytest

from pi05_websocket.engine_ray.draining import listening, until_replaced


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
            port = server.sockets[0].getsockname()[1]
            await until_replaced(range(port, port + 1))

    asyncio.run(script())
    assert len(asked) == 3
    assert asked[0].startswith(b"GET /-/healthz HTTP/1.1\r\n")


def test_a_page_that_is_there_no_more_is_the_end_too() -> None:
    """Ray stops listening before it cuts the sockets; who has not heard of it by then hears of it so."""

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nsuccess")
        writer.close()
        server.close()

    async def script() -> None:
        nonlocal server
        server = await asyncio.start_server(page, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(20):
            await until_replaced(range(port, port + 1))

    server: asyncio.Server
    asyncio.run(script())


@pytest.mark.parametrize(
    ("family", "host", "reached_at"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "127.0.0.2", "127.0.0.2"),
        (socket.AF_INET, "0.0.0.0", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "::1"),
    ],
)
def test_where_a_process_listens(family: socket.AddressFamily, host: str, reached_at: str) -> None:
    """While it does, and no longer."""
    with socket.create_server((host, 0), family=family) as listener:
        port = listener.getsockname()[1]
        assert (reached_at, port) in listening()
    assert (reached_at, port) not in listening()
