# SPDX-License-Identifier: Apache-2.0
"""What is read of a request before it is passed on: its deadline, and its images where an upstream reads none.

In: tickets, on the event loop. Out: tickets that can be sent, or the exception that answers them, told on the
event loop. The top of a message is read at once; decoding happens on threads of its own, for one connection
after the other (`server.decoding_order`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor

from pi05_websocket.gateway.skimming import Skimmed, normalised, skim
from pi05_websocket.gateway.ticket import Ticket
from pi05_websocket.server.decoding_order import DecodingOrder
from pi05_websocket.wire.limits import DecodeLimits

__all__ = ["Reader"]

_THREADS = 2

Read = Callable[[Ticket, Exception | None], None]


class Reader:
    """Reads tickets. Its threads are started when they are needed."""

    def __init__(
        self,
        limits: DecodeLimits,
        read: Read,
        *,
        skimmed: Callable[[Ticket], None],
        wanted: Callable[[Ticket], bool],
    ) -> None:
        """Prepare it.

        Args:
            limits: What a request may ask for.
            read: Told that a ticket can be sent, or what is wrong with it.
            skimmed: Told of a ticket whose images have to be decoded, once its top is read.
            wanted: Asked before a ticket is decoded: whether anybody still waits for it.
        """
        self._limits = limits
        self._read = read
        self._skimmed = skimmed
        self._wanted = wanted
        self._order: DecodingOrder[Ticket] = DecodingOrder()
        self._loop = asyncio.get_running_loop()
        self._threads: ThreadPoolExecutor | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Reader decoding={len(self._tasks)} waiting={len(self._order)}>"

    def read(self, ticket: Ticket, *, arrays: bool) -> None:
        """Read what is needed; tell at once, or when it has been decoded.

        Args:
            arrays: Whether an upstream may need arrays in the place of encoded images.
        """
        request, protocol = ticket.request, ticket.request.protocol
        try:
            if isinstance(request.payload, str):
                protocol.request(request.payload)  # says what is wrong with text
                raise AssertionError("text is no request")
            if protocol.reads_realtime or protocol.encoded_images:
                ticket.skimmed = skim(request.payload)
                if ticket.skimmed is None:
                    self._decode_beside(ticket)
                    return
                self._look_at(ticket, ticket.skimmed)
        except Exception as exc:  # whatever it is belongs to this request alone
            self._read(ticket, exc)
            return
        if arrays and ticket.images:
            self._skimmed(ticket)
            self._decode_beside(ticket)
        else:
            self._read(ticket, None)

    def need_arrays(self, ticket: Ticket) -> None:
        """Decode the images of a ticket that was read; tell when that is done."""
        self._decode_beside(ticket)

    def forget(self, connection: Hashable) -> None:
        """Decode nothing more of a connection that is gone."""
        self._order.drop(connection)

    def close(self) -> None:
        """Give up what is being decoded."""
        for task in self._tasks:
            task.cancel()
        if self._threads is not None:
            self._threads.shutdown(wait=False)

    def _look_at(self, ticket: Ticket, skimmed: Skimmed) -> None:
        """Note what the top of a message says.

        Raises:
            DecodeError: `_rt` is not what it should be.
        """
        protocol = ticket.request.protocol
        if protocol.reads_realtime:
            ticket.request.realtime = skimmed.realtime(self._limits)
        ticket.images = protocol.encoded_images and skimmed.encoded_images

    def _decode_beside(self, ticket: Ticket) -> None:
        self._order.to_read(ticket.request.connection, ticket)
        self._begin()

    def _begin(self) -> None:
        """Give the threads what they have time for."""
        while len(self._tasks) < _THREADS and (ticket := self._order.take()) is not None:
            if not self._wanted(ticket):
                self._order.done(ticket.request.connection)
                continue
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_THREADS, "pi05-decode")
            task = self._loop.create_task(self._decode(self._threads, ticket))
            self._tasks.add(task)

    def _ended(self, ticket: Ticket, error: Exception | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.discard(task)
        self._order.done(ticket.request.connection)
        self._read(ticket, error)
        self._begin()

    async def _decode(self, threads: ThreadPoolExecutor, ticket: Ticket) -> None:
        request = ticket.request
        assert isinstance(request.payload, bytearray)
        try:
            decoded = await self._loop.run_in_executor(
                threads, normalised, request.payload, self._limits, request.protocol.encoded_images
            )
            if ticket.skimmed is None:
                ticket.skimmed = decoded
                self._look_at(ticket, decoded)
            else:
                ticket.arrays = decoded
        except Exception as exc:
            self._ended(ticket, exc)
        else:
            self._ended(ticket, None)
