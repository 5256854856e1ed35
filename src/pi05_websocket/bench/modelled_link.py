# SPDX-License-Identifier: Apache-2.0
"""A link where no network can be had: a TCP proxy that delays whole WebSocket messages as `links.Path` says.

In: the port of a server and a link. Out: a port that leads to it. The sockets are real, the losses modelled:
results from here are labelled so. Runs an event loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType

from pi05_websocket.bench.links import Link, Path

__all__ = ["ModelledLink", "read_message"]

_HOST = "127.0.0.1"
_MOST_HEADER_BYTES = 64 * 1024


async def read_message(source: asyncio.StreamReader, *, upgrading: bool) -> bytes:
    """Return the bytes of the next message as they came: the HTTP head of the upgrade, or a WebSocket frame.

    Raises:
        asyncio.IncompleteReadError: The peer has hung up.
    """
    if upgrading:
        return await source.readuntil(b"\r\n\r\n")
    head = await source.readexactly(2)
    length, masked = head[1] & 0x7F, bool(head[1] & 0x80)
    if length >= 126:  # RFC 6455, 5.2
        more = await source.readexactly(2 if length == 126 else 8)
        head, length = head + more, int.from_bytes(more, "big")
    return head + await source.readexactly(length + (4 if masked else 0))


class ModelledLink:
    """Hands each message on when the model says that it is there as a whole. A context manager.

    Args:
        port: Where the server listens on this machine.
        link: The network.
        seed: Of its randomness.

    Raises:
        OSError: If no port can be opened.
    """

    def __init__(self, port: int, link: Link, *, seed: int) -> None:
        self._target = port
        self._link = link
        self._seed = seed
        self._loop = asyncio.new_event_loop()
        self._relays: set[asyncio.Task[None]] = set()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._accept, _HOST, 0, limit=_MOST_HEADER_BYTES)
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._thread = threading.Thread(target=self._run, name="modelled-link", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<ModelledLink {self.port} -> {self._target} {self._link.name}>"

    def __enter__(self) -> ModelledLink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        assert task is not None
        self._relays.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            far, forth = await asyncio.open_connection(_HOST, self._target)
            try:
                up, down = Path(self._link, 2 * self._seed), Path(self._link, 2 * self._seed + 1)
                await asyncio.gather(self._carry(near, forth, up), self._carry(far, back, down))
            finally:
                forth.close()
        self._relays.discard(task)
        back.close()

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, path: Path
    ) -> None:
        messages: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        delivery = asyncio.create_task(self._deliver(messages, sink))
        try:
            upgrading = True
            with contextlib.suppress(asyncio.IncompleteReadError):
                while True:
                    message = await read_message(source, upgrading=upgrading)
                    upgrading = False
                    await messages.put((path.arrival(self._loop.time(), len(message)), message))
            await messages.put((self._loop.time(), b""))
            await delivery
        finally:
            delivery.cancel()

    async def _deliver(
        self, messages: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter
    ) -> None:
        while True:
            due, message = await messages.get()
            await asyncio.sleep(due - self._loop.time())
            if not message:
                with contextlib.suppress(OSError):
                    sink.write_eof()
                return
            sink.write(message)
            await sink.drain()
