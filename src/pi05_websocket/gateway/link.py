# SPDX-License-Identifier: Apache-2.0
"""One connection to an upstream, renewed for as long as the gateway runs; one request at a time on it.

In: requests as bytes. Out: replies as bytes, told to the owner. Runs on the server's event loop.
There are no request ids on the wire: a reply belongs to the request that was sent. So a request that nobody
waits for any more keeps its connection until the reply has come and was thrown away, or a new one is opened.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from typing import Any, Protocol

from pi05_websocket.client.backoff import Backoff
from pi05_websocket.client.config import ConnectionConfig
from pi05_websocket.client.dialling import open_transport
from pi05_websocket.client.progress import Patience
from pi05_websocket.client.silence import SilenceWatch
from pi05_websocket.client.transport import Transport
from pi05_websocket.errors import (
    ConnectionLost,
    DeadlineExceeded,
    Pi05WebsocketError,
    ServerError,
)
from pi05_websocket.wire.limits import DecodeLimits
from pi05_websocket.wire.protocol import (
    ClientProtocol,
    MetadataReceived,
    ProtocolState,
    ReplyReceived,
    RequestFailed,
)

__all__ = ["Link", "LinkOwner"]

logger = logging.getLogger(__name__)

_HOPELESS_S = 30.0
"""Wait before dialling again where a person has to change something first: a key, an address."""

_RENEWED_AFTER_S = 10.0
"""How long a connection is kept for a reply that nobody waits for."""


class LinkOwner(Protocol):
    """Who is told what happens on a link. Called on the event loop."""

    def link_up(self, link: Link, metadata: dict[str, Any], /) -> None:
        """Note that it can be sent requests."""

    def link_answered(self, link: Link, reply: bytes | ServerError, /) -> None:
        """Take what answers the request that was sent."""

    def link_lost(self, link: Link, error: Pi05WebsocketError, /, *, after_error: bool) -> None:
        """Note that it is gone, and with it the request under way; it is being opened again.

        Args:
            after_error: Whether it was to be expected: the server has answered with an error.
        """

    def link_failed(self, link: Link, error: Pi05WebsocketError, /) -> None:
        """Note that it could not be opened; it will be tried again."""


class Link:
    """Opened by `start`, for good closed by `close`."""

    def __init__(
        self, number: int, config: ConnectionConfig, owner: LinkOwner, may_dial: asyncio.Event
    ) -> None:
        """Prepare it.

        Args:
            number: Of its upstream.
            config: Where to and how.
            owner: Told what happens.
            may_dial: While it is not set nothing is opened.
        """
        self.number = number
        self.sent_at = 0.0
        """`time.perf_counter()` of the request under way."""
        self.free = False
        """Whether it can be sent a request."""
        self.last_session: object = None
        """Whose request was sent last."""
        self._config = config
        self._owner = owner
        self._may_dial = may_dial
        self._loop = asyncio.get_running_loop()
        self._backoff = Backoff(config.backoff_first, config.backoff_max, random.Random().random)
        self._numbers = itertools.count()
        self._protocol = ClientProtocol()
        self._transport: Transport | None = None
        self._ended: asyncio.Future[Pi05WebsocketError] = self._loop.create_future()
        self._greeted: asyncio.Future[None] = self._loop.create_future()
        self._after_error = False
        self._renewal: asyncio.TimerHandle | None = None
        self._patience = Patience(config.silence_timeout)
        self._watch: SilenceWatch | None = None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Link {self._config.url} {self._protocol.state.value}>"

    @property
    def up(self) -> bool:
        """Whether it is open and introduced."""
        return self._protocol.state is ProtocolState.READY

    @property
    def connect_s(self) -> float:
        """Seconds that opening took, about one round trip."""
        known = self._transport is not None and self._transport.connect_s
        return known or 0.0

    def start(self) -> None:
        """Open it, and keep it open."""
        self._task = self._loop.create_task(self._stay_connected())

    def send(self, message: bytes | bytearray) -> None:
        """Send a request on a free link. The message is copied."""
        assert self.free
        assert self._transport is not None
        self.free = False
        self.sent_at = time.perf_counter()
        self._protocol.request_sent(next(self._numbers))
        self._transport.send_copy(message)
        if self._watch is not None:
            self._watch.works()

    def abandon(self, patience_s: float) -> None:
        """Note that nobody waits for the reply any more; the owner is told of it all the same, if it comes.

        Args:
            patience_s: How long it may take, at most; a while at least. Then the connection is renewed.
        """
        self._renewal = self._loop.call_later(max(patience_s, _RENEWED_AFTER_S), self.renew)

    def renew(self) -> None:
        """Cut the connection, so that it is opened again; the owner is told that it is lost."""
        if self._transport is not None:
            self._transport.abort()
        self._end(ConnectionLost("given up by this side"))

    def close(self) -> None:
        """Say goodbye. The owner hears nothing more."""
        if self._task is not None:
            self._task.cancel()
        self.free = False
        self._stop_renewal()
        self._protocol.give_up(ConnectionLost("closed by this side", code=1000))
        if self._transport is not None:
            self._transport.close()

    async def wait_closed(self, patience_s: float) -> None:
        """Wait until the connection is gone after `close`; cut it when that takes too long."""
        if self._transport is not None:
            await self._transport.wait_closed(patience_s)

    # --- listener of the transport ---------------------------------------------------------------------------

    def on_message(self, payload: bytes | str) -> None:
        """Take one whole message from the transport."""
        events = self._protocol.receive(payload)
        over = self._protocol.state is ProtocolState.CLOSED
        if over and self._transport is not None:
            self._transport.close()
        for event in events:
            match event:
                case MetadataReceived(metadata):
                    self._backoff.reset()
                    self.free = True
                    if self._transport is not None:
                        self._watch = SilenceWatch(self._transport, self._loop, self._patience)
                    self._owner.link_up(self, metadata)
                    if not self._greeted.done():
                        self._greeted.set_result(None)
                case ReplyReceived(_, reply, _):
                    self.free = True
                    self._patience.answered()
                    self._stop_renewal()
                    self._owner.link_answered(self, reply)
                case RequestFailed(_, ServerError() as error):
                    self._stop_renewal()
                    self.free, self._after_error = not over, over
                    self._owner.link_answered(self, error)
                case RequestFailed():
                    pass  # told as lost
        if over:
            self._over(self._protocol.error or ConnectionLost("closed"))

    def on_ended(self, code: int, reason: str) -> None:
        """Take the end of the transport."""
        self._protocol.connection_ended(code=code, reason=reason)
        self._over(self._protocol.error or ConnectionLost("closed"))

    # -------------------------------------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        while True:
            await self._may_dial.wait()
            try:
                error = await self._one_life()
            except Pi05WebsocketError as exc:
                error = exc
                self._owner.link_failed(self, exc)
            if self._after_error:
                continue  # it closes after an error, as stock servers do, and is there
            await asyncio.sleep(self._backoff.next() if error.retryable else _HOPELESS_S)

    async def _one_life(self) -> Pi05WebsocketError:
        """Connect, wait for the metadata, then until the end; return why it ended."""
        limits = DecodeLimits(max_message_bytes=self._config.max_message_bytes)
        self._protocol = ClientProtocol(limits=limits, undecoded=True)
        self._after_error = False
        self._ended = self._loop.create_future()
        self._greeted = self._loop.create_future()
        self._transport = Transport(self, self._config.max_message_bytes)
        await open_transport(self._config, self._transport)
        waited_for = (self._greeted, self._ended)
        await asyncio.wait(
            waited_for, timeout=self._config.metadata_timeout, return_when=asyncio.FIRST_COMPLETED
        )
        if not self._greeted.done() and not self._ended.done():
            self._transport.abort()
            self._end(DeadlineExceeded("metadata", self._config.metadata_timeout))
        return await self._ended

    def _end(self, error: Pi05WebsocketError) -> None:
        self._protocol.give_up(error)
        self._over(error)

    def _over(self, error: Pi05WebsocketError) -> None:
        """Tell the owner once that the present transport is over."""
        if self._ended.done():
            return
        self._stop_renewal()
        self.free = False
        self._ended.set_result(error)
        if self._greeted.done():
            self._owner.link_lost(self, error, after_error=self._after_error)
        else:
            self._owner.link_failed(self, error)

    def _stop_renewal(self) -> None:
        """Note that nothing is waited for on this connection."""
        if self._watch is not None:
            self._watch.rests()
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
