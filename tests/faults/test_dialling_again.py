# SPDX-License-Identifier: Apache-2.0
"""A way that swallows SYNs, and is whole again: it is dialled again and again meanwhile, side by side."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pi05_websocket.client.config import ConnectionConfig
from pi05_websocket.client.tcp import tcp_connect

SYN_SENT = "02"
_MOST = 8

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="a full backlog swallows SYNs on Linux"
)


@contextlib.contextmanager
def swallowing() -> Iterator[tuple[socket.socket, int]]:
    """Give a listener whose backlog is full, and its port."""
    with socket.socket() as listener, contextlib.ExitStack() as fillers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener, listener.getsockname()[1]


def dials(port: int) -> set[str]:
    """Return the connections to a port that wait for an answer, by their own addresses."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = (line.split() for line in lines)
    return {row[1] for row in rows if row[2].endswith(f":{port:04X}") and row[3] == SYN_SENT}


async def until(port: int, count: int) -> set[str]:
    """Wait until so many wait; return them."""
    while len(found := dials(port)) < count:
        await asyncio.sleep(0.02)
    return found


def test_silence_is_dialled_into_again_and_again() -> None:
    """Eight at a time, the first of all among them; one that is let in is kept, the others are hung up."""

    async def run() -> None:
        with swallowing() as (listener, port):
            others = dials(port)
            task = asyncio.create_task(tcp_connect(ConnectionConfig(), "127.0.0.1", port))
            first = await asyncio.wait_for(until(port, len(others) + 1), 20) - others
            await asyncio.wait_for(until(port, len(others) + _MOST), 20)
            for _ in range(40):
                assert len(dials(port) - others) <= _MOST
                assert first <= dials(port)  # an answer may take as long as `connect_timeout`
                await asyncio.sleep(0.02)
            listener.setblocking(False)
            accepted: list[socket.socket] = []
            while not task.done():
                with contextlib.suppress(BlockingIOError):
                    accepted.append(listener.accept()[0])
                await asyncio.sleep(0.02)
            sock, round_trip_s = task.result()
            assert sock.getpeername() == ("127.0.0.1", port)
            assert round_trip_s < 0.1  # not what the lost SYNs took
            for each in (sock, *accepted):
                each.close()

    asyncio.run(run())
