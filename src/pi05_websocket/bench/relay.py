# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy on this machine that hands on what it gets, in order and unchanged, when its kind says.

In: the port of a server. Out: a port that leads to it. Runs an event loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from types import TracebackType

__all__ = ["Relay"]

_HOST = "127.0.0.1"
_STOP_S = 10.0


class Relay(ABC):
    """A context manager; subclasses say in `pieces` what goes on when.

    Args:
        port: Where the server listens on this machine.
        most_bytes: Largest piece that is read at once.
        most_pieces: How many may be under way each way; after that the sender waits, as in TCP. 0: any.

    Raises:
        OSError: If no port can be opened.
    """

    def __init__(self, port: int, *, most_bytes: int, most_pieces: int = 0) -> None:
        self._target = port
        self._most_bytes, self._most_pieces = most_bytes, most_pieces
        self.loop = asyncio.new_event_loop()
        self._relays: set[asyncio.Task[None]] = set()
        self._server = self.loop.run_until_complete(
            asyncio.start_server(self._accept, _HOST, 0, limit=most_bytes)
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.port} -> {self._target}>"

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cut every connection and stop. Safe to call twice."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(_STOP_S)

    @abstractmethod
    def pieces(
        self, source: asyncio.StreamReader, *, upwards: bool
    ) -> AsyncIterator[tuple[float, bytes]]:
        """Yield what one side of a connection sends, each with the loop's time at which it is there.

        Args:
            source: Where it comes from; each direction of a connection once.
            upwards: Whether it goes to the server.
        """

    def _run(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self._cut())
            self.loop.close()

    async def _cut(self) -> None:
        self._server.close()
        relays = list(self._relays)
        for relay in relays:
            relay.cancel()
        await asyncio.gather(*relays, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the loop's next round

    async def _accept(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a connection is always served by a task")
        self._relays.add(task)
        try:
            await self._relay(near, back)
        except (OSError, asyncio.CancelledError):
            pass  # a cut connection is cut on the other side too: below
        finally:
            self._relays.discard(task)
            back.close()

    async def _relay(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, forth = await asyncio.open_connection(_HOST, self._target, limit=self._most_bytes)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(near, forth, upwards=True))
                group.create_task(self._carry(far, back, upwards=False))
        except* OSError:
            pass
        finally:
            forth.close()

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, upwards: bool
    ) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(self._most_pieces)
        delivery = asyncio.create_task(self._deliver(under_way, sink))
        try:
            last = self.loop.time()
            async for due, piece in self.pieces(source, upwards=upwards):
                last = due
                await under_way.put((due, piece))
            await under_way.put((max(last, self.loop.time()), b""))
            await delivery
        finally:
            delivery.cancel()

    async def _deliver(
        self, under_way: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter
    ) -> None:
        while True:
            due, piece = await under_way.get()
            await asyncio.sleep(due - self.loop.time())
            if not piece:
                with contextlib.suppress(OSError):
                    sink.write_eof()
                return
            sink.write(piece)
            await sink.drain()
