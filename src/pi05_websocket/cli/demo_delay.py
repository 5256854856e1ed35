# SPDX-License-Identifier: Apache-2.0
"""A slow link: a TCP proxy on this machine that hands everything on later, in order and unchanged.

In: the port of a server, and how much a round trip shall last longer. Out: a port that leads to it.
Runs an event loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType

__all__ = ["SlowLink"]

_HOST = "127.0.0.1"
_PIECE = 64 * 1024
_PIECES_UNDER_WAY = 256
"""16 MB in each direction: more than any link of a robot holds; after that the sender waits, as in TCP."""


class SlowLink:
    """Delays each direction by half of `round_trip_s`. A context manager.

    Raises:
        OSError: If no port can be opened.
    """

    def __init__(self, port: int, *, round_trip_s: float) -> None:
        self._target = port
        self._delay_s = round_trip_s / 2
        self._loop = asyncio.new_event_loop()
        self._relays: set[asyncio.Task[None]] = set()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._accept, _HOST, 0, limit=_PIECE)
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._thread = threading.Thread(target=self._run, name="demo-slow-link", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<SlowLink {self.port} -> {self._target} round_trip_s=+{2 * self._delay_s:g}>"

    def __enter__(self) -> SlowLink:
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
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._cut())
            self._loop.close()

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
        far, forth = await asyncio.open_connection(_HOST, self._target, limit=_PIECE)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(near, forth))
                group.create_task(self._carry(far, back))
        except* OSError:
            pass
        finally:
            forth.close()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PIECES_UNDER_WAY)
        delivery = asyncio.create_task(self._deliver(pieces, sink))
        try:
            while piece := await source.read(_PIECE):
                await pieces.put((self._loop.time() + self._delay_s, piece))
            await pieces.put((self._loop.time() + self._delay_s, b""))
            await delivery
        finally:
            delivery.cancel()

    async def _deliver(
        self, pieces: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter
    ) -> None:
        while True:
            due, piece = await pieces.get()
            await asyncio.sleep(due - self._loop.time())
            if not piece:
                with contextlib.suppress(OSError):
                    sink.write_eof()
                return
            sink.write(piece)
            await sink.drain()
