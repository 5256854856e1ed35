# SPDX-License-Identifier: Apache-2.0
"""What is read of requests before they are passed on, and in which order their images are decoded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from pi05_websocket.gateway.reading import Reader
from pi05_websocket.gateway.ticket import Ticket
from pi05_websocket.server.requests import Asker, Request
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import encode_images
from pi05_websocket.wire.limits import DEFAULT_LIMITS
from pi05_websocket.wire.protocol import ServerProtocol

DEAR, SMALL = 1500, 16
PROTOCOL = ServerProtocol({}, encoded_images=True, deadlines=True)
ANNA, BEN = cast("Asker", "anna"), cast("Asker", "ben")


def packed(robot: Asker, number: int, side: int = SMALL) -> Ticket:
    """A request with an image of so many rows and columns."""
    observation, _ = encode_images({"image": np.zeros((side, side, 3), np.uint8)}, 80)
    return Ticket(
        request=Request(
            connection=robot,
            number=number,
            protocol=PROTOCOL,
            payload=bytearray(codec.encode(observation)),
            arrived=0.0,
            priority=1,
        )
    )


class Readings:
    """A reader, and what it told."""

    def __init__(self, wanted: Callable[[Ticket], bool] = lambda _: True) -> None:
        self.told: list[tuple[Any, int]] = []
        self.skimmed: list[int] = []
        self.more = asyncio.Event()
        self.reader = Reader(DEFAULT_LIMITS, self._read, skimmed=self._skimmed, wanted=wanted)

    def _read(self, ticket: Ticket, error: Exception | None) -> None:
        assert error is None
        assert ticket.arrays is not None
        self.told.append((ticket.request.connection, ticket.request.number))
        self.more.set()

    def _skimmed(self, ticket: Ticket) -> None:
        self.skimmed.append(ticket.request.number)

    async def until(self, robot: Asker, number: int) -> None:
        """Wait until this one has been told."""
        async with asyncio.timeout(20):
            while (robot, number) not in self.told:
                self.more.clear()
                await self.more.wait()

    def ask(self, *tickets: Ticket) -> None:
        """Read them, for upstreams that want arrays."""
        for ticket in tickets:
            self.reader.read(ticket, arrays=True)


def run(conversation: Callable[[], Any]) -> None:
    """Run a test on an event loop."""
    asyncio.run(conversation())


def test_connections_take_turns() -> None:
    """Who sends large images keeps one thread at most; the other's image is ready before its second."""

    async def conversation() -> None:
        readings = Readings()
        readings.ask(*[packed(ANNA, n, DEAR) for n in range(12)], packed(BEN, 0))
        await readings.until(BEN, 0)
        assert len(readings.told) <= 5
        await readings.until(ANNA, 11)
        assert [number for robot, number in readings.told if robot == ANNA] == list(range(12))
        assert repr(readings.reader) == "<Reader decoding=0 waiting=0>"
        readings.reader.close()

    run(conversation)


def test_nothing_is_decoded_for_nobody() -> None:
    """Neither for a connection that is gone, nor what is answered already; the others go on."""

    async def conversation() -> None:
        readings = Readings(wanted=lambda ticket: ticket.request.number != 1)
        readings.ask(
            *[packed(ANNA, n, DEAR) for n in range(12)], *[packed(BEN, n) for n in range(3)]
        )
        assert readings.skimmed == [*range(12), 0, 1, 2]
        readings.reader.forget(ANNA)
        await readings.until(BEN, 2)
        assert [number for robot, number in readings.told if robot == BEN] == [0, 2]
        assert [number for robot, number in readings.told if robot == ANNA] in ([], [0])
        readings.reader.close()

    run(conversation)
