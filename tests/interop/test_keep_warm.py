# SPDX-License-Identifier: Apache-2.0
"""Pongs that nobody asked for, as a resting connection sends them: servers let them pass."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pi05_websocket.client import ConnectionConfig
from pi05_websocket.client.dialling import open_transport
from pi05_websocket.client.transport import Transport
from pi05_websocket.wire import codec

pytestmark = pytest.mark.openpi


class Inbox:
    """Keeps what a transport hears."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes | str] = asyncio.Queue()
        self.ended: list[tuple[int, str]] = []

    def on_message(self, payload: bytes | str) -> None:
        """Keep it."""
        self.messages.put_nowait(payload)

    def on_ended(self, code: int, reason: str) -> None:
        """Keep it."""
        self.ended.append((code, reason))


@pytest.mark.parametrize("server_kind", ["our server", "stock server"])
def test_pongs_before_and_between_requests(
    start: Any, summing: Any, observe: Any, expected: Any, server_kind: str
) -> None:
    """Each request is answered as ever, and nobody hangs up."""
    server = start.server(server_kind, summing)
    observation = observe(1)

    async def converse() -> list[Any]:
        inbox = Inbox()
        transport = Transport(inbox, 64 * 1024 * 1024)
        await open_transport(ConnectionConfig(url=f"ws://127.0.0.1:{server.port}"), transport)
        replies: list[Any] = [await asyncio.wait_for(inbox.messages.get(), 10)]
        for _ in range(3):
            for _ in range(40):
                transport.send_pong()
            transport.send_copy(codec.encode(observation))
            replies.append(await asyncio.wait_for(inbox.messages.get(), 10))
        transport.close()
        await transport.wait_closed(1)
        assert inbox.ended == []
        return [codec.decode(reply) for reply in replies[1:]]

    for reply in asyncio.run(converse()):
        assert reply["sums"] == expected(observation)["sums"]
