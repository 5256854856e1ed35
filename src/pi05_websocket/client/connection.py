# SPDX-License-Identifier: Apache-2.0
"""One logical link to a policy server that survives reconnects.

In: encoded requests from any thread. Out: one `Exchange` each, completed on the loop thread.
A daemon thread runs the event loop: it connects, reads the metadata, answers pings while the robot is idle,
gives each reply to its own request, and comes back after a loss with jittered waits.

State: CONNECTING ─► READY ─► WAITING ─► CONNECTING …; FAILED when trying again is pointless; CLOSED by `close`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlsplit

from pi05_websocket.client.backoff import Backoff
from pi05_websocket.client.config import ConnectionConfig
from pi05_websocket.client.dialling import open_transport, tell_in_a_line
from pi05_websocket.client.exchange import Exchange, Reply
from pi05_websocket.client.keep_warm import KeepWarm, needs_warmth
from pi05_websocket.client.progress import Patience
from pi05_websocket.client.silence import SilenceWatch
from pi05_websocket.client.transport import HEADROOM, Transport
from pi05_websocket.data import ServerMetadata
from pi05_websocket.errors import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    Pi05WebsocketError,
)
from pi05_websocket.wire.codec import DecodeLimits
from pi05_websocket.wire.dialects import OPENPI, Dialect, ResetStyle
from pi05_websocket.wire.foreign_words import listed
from pi05_websocket.wire.protocol import (
    ClientProtocol,
    Event,
    MetadataReceived,
    ProtocolState,
    ReplyReceived,
    RequestFailed,
)

__all__ = ["Connection", "ConnectionState", "Greeting"]

logger = logging.getLogger(__name__)

_GOODBYE_S = 0.3
"""How long `close` waits for the server's goodbye before it cuts the connection."""


_ORDINARY_CLOSES = (1000, 1001, 1005)

_SHORTEST_LIFE_S = 0.5
# A server that closes sooner did not do it for want of requests: it is not dialled again without a wait.


class ConnectionState(Enum):
    """Where the logical link stands."""

    CONNECTING = "connecting"
    READY = "ready"
    WAITING = "waiting to reconnect"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a connection began with: read together, because the next one may be to another server."""

    number: int = 0
    """Counts them; 0 before the first."""

    metadata: ServerMetadata | None = None
    connect_s: float | None = None
    """Seconds of a round trip, as opening the TCP connection showed it."""

    dialect: Dialect = OPENPI
    """How that server talks."""


class Connection:
    """The link: starts at construction, ends with `close`. Call its public methods from any thread."""

    def __init__(self, config: ConnectionConfig) -> None:
        self.config = config
        self.reconnects = 0
        """How often a READY link was replaced by a new one."""
        self._changed = threading.Condition()
        self._state = ConnectionState.CONNECTING
        self._error: Pi05WebsocketError | None = None
        self._greeting = Greeting()
        self._next_seq = 0
        self._answered = False
        self._stopped = False
        """Whether the loop takes no more calls; guarded by `_changed`."""
        # Below: touched on the loop thread only.
        self._protocol = ClientProtocol()
        self._transport: Transport | None = None
        self._exchanges: dict[int, tuple[Exchange, asyncio.TimerHandle]] = {}
        self._ended: asyncio.Future[Pi05WebsocketError] | None = None
        self._greeted: asyncio.Future[None] | None = None
        self._warned = False
        self._greeted_at: float | None = None
        """When the present transport's server introduced itself; None: it has not."""
        self._was_idle = False
        """Whether nothing was under way when the transport ended."""
        self._idled = False
        """Whether that was all that ended it."""
        self._patience = Patience(config.silence_timeout)
        self._watch: SilenceWatch | None = None
        """Of the present transport."""
        self._keep_warm: KeepWarm | None = None
        """Of the present transport; None where a pause makes it no slower."""
        self._backoff = Backoff(config.backoff_first, config.backoff_max, random.Random().random)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(tell_in_a_line)
        self._main: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run_loop, name="pi05-websocket", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return (
            f"<Connection {self.config.url} {self._state.name} "
            f"exchanges={self._next_seq} reconnects={self.reconnects}>"
        )

    @property
    def state(self) -> ConnectionState:
        """The present state; it may change at any moment."""
        return self._state

    @property
    def error(self) -> Pi05WebsocketError | None:
        """Why the link is not READY, where that is known."""
        return self._error

    @property
    def metadata(self) -> ServerMetadata | None:
        """The server's metadata, None before the first connection. The last server's while reconnecting."""
        return self._greeting.metadata

    @property
    def greeting(self) -> Greeting:
        """What the present connection began with; the last one while reconnecting."""
        return self._greeting

    @property
    def answered(self) -> bool:
        """Whether the server has ever answered a request: its model has been compiled."""
        return self._answered

    def wait_ready(self, timeout: float) -> None:
        """Wait until requests can be sent.

        Raises:
            Pi05WebsocketError: The link is FAILED or CLOSED, or not READY within `timeout` seconds: the
                last error of connecting where there is one.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._state is not ConnectionState.READY:
                if self._state in (ConnectionState.FAILED, ConnectionState.CLOSED):
                    raise self._not_ready()
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._not_ready()
                self._changed.wait(left)

    def submit(
        self,
        buffer: bytearray,
        *,
        quality: int | None = None,
        greeting: int | None = None,
        reset: ResetStyle = "none",
    ) -> Exchange:
        """Send the request that begins at `transport.HEADROOM` of `buffer`; return at once.

        The buffer belongs to the connection until the exchange is done. On a link that is not READY the
        exchange fails at once with the reason.

        Args:
            buffer: The message.
            quality: Of its images as JPEG; None: raw.
            greeting: Number of the greeting it was made for: a later server may not read it, and does not get
                it. None: any server reads it.
            reset: How it is answered, if it begins an episode; `silent`: it is done once it is sent.
        """
        first = not self._answered
        limit = self.config.request_limit(answered_before=not first)
        with self._changed:
            exchange = Exchange(
                self._next_seq, len(buffer) - HEADROOM, limit, first=first, quality=quality
            )
            self._next_seq += 1
            if not self._stopped:
                self._loop.call_soon_threadsafe(self._send, exchange, buffer, greeting, reset)
                return exchange
        exchange.future.set_exception(self._not_ready())
        return exchange

    def refuse(self, error: Pi05WebsocketError) -> Exchange:
        """Return an exchange that has failed before anything was sent."""
        with self._changed:
            exchange = Exchange(self._next_seq, 0, 0.0, first=False, quality=None)
            self._next_seq += 1
        exchange.future.set_exception(error)
        return exchange

    def ping(self, rounds: int, timeout: float) -> list[float]:
        """Return the seconds that empty messages take to the server and back; none where no answer comes.

        A server whose model runs on its event loop, as OpenPI's does, answers only between two inferences.
        """
        transport = self._transport
        if transport is None or self._state is not ConnectionState.READY:
            return []
        pings = asyncio.run_coroutine_threadsafe(transport.round_trips(rounds), self._loop)
        try:
            return pings.result(timeout)
        except (TimeoutError, ConnectionError):
            pings.cancel()
            return []

    def close(self, timeout: float = 2.0) -> None:
        """Say goodbye, fail what is outstanding, stop the thread. Safe to call twice."""
        with self._changed:
            if self._state is not ConnectionState.CLOSED and not self._stopped:
                self._loop.call_soon_threadsafe(self._shut_down)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    # --- listener of the transport, loop thread -------------------------------------------------------------

    def on_message(self, payload: bytes | str) -> None:
        """Take one whole message from the transport."""
        events = self._protocol.receive(payload)
        over = self._protocol.state is ProtocolState.CLOSED and self._transport is not None
        if over:
            self._leave_ready(self._protocol.error)
        self._apply(events)
        if over:
            assert self._transport is not None
            self._finish(self._protocol.error)
            self._transport.close()

    def on_ended(self, code: int, reason: str) -> None:
        """Take the end of the transport."""
        self._was_idle = not self._exchanges
        events = self._protocol.connection_ended(code=code, reason=reason)
        self._leave_ready(self._protocol.error)
        self._apply(events)
        self._finish(self._protocol.error)

    # --- loop thread -----------------------------------------------------------------------------------------

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._main = self._loop.create_task(self._stay_connected())
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        except Exception as exc:
            if threading.main_thread().is_alive():  # else: no more threads to resolve a name with
                logger.exception(
                    "the connection to %s stopped on an internal error", self.config.url
                )
            self._set(ConnectionState.FAILED, ConnectFailed(f"internal error: {exc!r}"))
        finally:
            with self._changed:
                self._stopped = True  # from here on `submit` fails by itself
            # No executor shutdown: it wants a new thread, which a program that is ending no longer gets.
            self._loop.run_until_complete(self._say_goodbye())
            self._fail_all(self._not_ready())
            self._loop.close()

    async def _say_goodbye(self) -> None:
        """Run what was submitted before the end, and wait until the closed transport is gone."""
        await asyncio.sleep(0.01)
        if self._transport is not None:
            await self._transport.wait_closed(_GOODBYE_S)

    async def _stay_connected(self) -> None:
        while True:
            try:
                error = await self._one_life()
            except Pi05WebsocketError as exc:
                error = exc
            if not error.retryable:
                logger.error("%s (not tried again)", self._located(error))
                self._set(ConnectionState.FAILED, error)
                self._fail_all(error)
                return
            self._idled = self._closed_idle(error)
            if self._idled:
                logger.debug("%s closed an idle connection, as it does", self.config.url)
                self._set(ConnectionState.CONNECTING, error)
                continue
            wait = self._backoff.next(getattr(error, "retry_after_s", None))
            # WARNING once for each outage, which only an answer ends: a server that closes after every error
            # is connected to again and again.
            logger.log(
                logging.DEBUG if self._warned else logging.WARNING,
                "%s (trying again)",
                self._located(error),
            )
            self._warned = True
            self._set(ConnectionState.WAITING, error)
            await asyncio.sleep(wait)

    def _closed_idle(self, error: Pi05WebsocketError) -> bool:
        """Say whether the server only did what its dialect says of connections without requests."""
        if self._greeted_at is None:
            return False  # what the last server said of itself tells nothing of this one
        if self._greeting.dialect.idle_close_s is None or not isinstance(error, ConnectionLost):
            return False
        lived_s = time.monotonic() - self._greeted_at
        return error.code in _ORDINARY_CLOSES and self._was_idle and lived_s >= _SHORTEST_LIFE_S

    async def _one_life(self) -> Pi05WebsocketError:
        """Connect, wait for the metadata, then until the end; return why it ended."""
        self._protocol = ClientProtocol(
            limits=DecodeLimits(max_message_bytes=self.config.max_message_bytes),
            dialect=self.config.dialect,
            path=urlsplit(self.config.address).path,
        )
        self._greeted_at, self._was_idle = None, False
        self._ended = self._loop.create_future()
        self._greeted = self._loop.create_future()
        # Known before it opens: the metadata may arrive while the upgrade is still being finished.
        self._transport = Transport(self, self.config.max_message_bytes)
        await open_transport(self.config, self._transport)
        try:
            async with asyncio.timeout(self.config.metadata_timeout):
                await self._greeted
        except TimeoutError:
            self._protocol.give_up(
                DeadlineExceeded(
                    "metadata",
                    self.config.metadata_timeout,
                    "An OpenPI server sends it first; a busy one cannot. Is this a policy server?",
                )
            )
            self._transport.close()
            self._finish(self._protocol.error)
        return await self._ended

    def _send(
        self, exchange: Exchange, buffer: bytearray, greeting: int | None, reset: ResetStyle
    ) -> None:
        if self._state is not ConnectionState.READY or self._transport is None:
            exchange.future.set_exception(self._not_ready())
            return
        if greeting not in (None, self._greeting.number):
            text = (
                "the connection was renewed after the observation had been encoded for the last one"
            )
            exchange.future.set_exception(ConnectionLost(text))
            return
        if reset == "silent":
            self._transport.send(buffer)
            exchange.future.set_result(Reply(None, 0, time.monotonic()))
            return
        limit = self.config.hard_limit(answered_before=self._answered)
        overdue = self._loop.call_later(limit, self._renew, exchange, limit)
        self._exchanges[exchange.seq] = (exchange, overdue)
        self._protocol.request_sent(exchange.seq, reset=reset != "none")
        if self._keep_warm is not None:
            self._keep_warm.works()
        self._transport.send(buffer)
        if self._watch is not None:
            self._watch.works()

    def _renew(self, exchange: Exchange, limit: float) -> None:
        if exchange.seq not in self._exchanges:
            return
        # Attribution still works, but the reply has lost its worth and the link its credit: renew the socket.
        error = DeadlineExceeded("request", limit, "The connection is renewed.")
        self._apply(self._protocol.give_up(error))
        self._finish(error)
        if self._transport is not None:
            self._transport.abort()

    def _apply(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case MetadataReceived(metadata):
                    self._greet(metadata)
                case ReplyReceived(seq, value, nbytes):
                    self._complete(seq, Reply(value, nbytes, time.monotonic()))
                case RequestFailed(seq, error):
                    self._fail(seq, error)

    def _greet(self, metadata: ServerMetadata) -> None:
        if self._greeting.number:
            self.reconnects += 1
        connect_s = None if self._transport is None else self._transport.connect_s
        dialect = self._protocol.dialect
        self._greeting = Greeting(self._greeting.number + 1, metadata, connect_s, dialect)
        self._greeted_at = time.monotonic()
        logger.log(
            logging.DEBUG if (self._warned or self._idled) and self.reconnects else logging.INFO,
            "connected to %s, metadata keys: [%s]%s",
            self.config.url,
            listed(sorted(map(str, metadata))),
            "" if dialect is OPENPI else f", dialect {dialect.name}",
        )
        self._look_after()
        self._set(ConnectionState.READY, None)
        self._stop_waiting_for_metadata()

    def _look_after(self) -> None:
        """Watch the transport that has been greeted, and keep it warm where it needs that."""
        transport = self._transport
        if transport is None:
            return
        self._watch = SilenceWatch(transport, self._loop, self._patience)
        if self.config.keep_warm and needs_warmth(transport.connect_s, transport.congestion):
            self._keep_warm = KeepWarm(transport, self._loop)
            self._keep_warm.rests()

    def _stop_waiting_for_metadata(self) -> None:
        if self._greeted is not None and not self._greeted.done():
            self._greeted.set_result(None)

    def _complete(self, seq: int, reply: Reply) -> None:
        if reply.value is None:  # a reset was taken, which says nothing of the model
            self._take_reply(seq, reply)
            return
        self._answered = True
        self._patience.answered()
        if self._warned:
            logger.info("%s answers again", self.config.url)
        self._warned = False
        self._backoff.reset()
        self._take_reply(seq, reply)

    def _take_reply(self, seq: int, reply: Reply) -> None:
        exchange = self._take(seq)
        if exchange is not None:
            exchange.future.set_result(reply)

    def _fail(self, seq: int, error: Pi05WebsocketError) -> None:
        exchange = self._take(seq)
        if exchange is not None:
            exchange.future.set_exception(error)

    def _take(self, seq: int) -> Exchange | None:
        exchange, overdue = self._exchanges.pop(seq, (None, None))
        if overdue is not None:
            overdue.cancel()
        if self._watch is not None and not self._exchanges:
            self._watch.rests()
        if self._keep_warm is not None and not self._exchanges:
            self._keep_warm.rests()
        return exchange

    def _fail_all(self, error: Pi05WebsocketError) -> None:
        for seq in list(self._exchanges):
            self._fail(seq, error)

    def _leave_ready(self, error: Pi05WebsocketError | None) -> None:
        """Take nothing more for this transport: what is submitted now must fail, not vanish.

        Before a failed exchange is told: whoever asks again at once waits for the new link.
        """
        if self._state is ConnectionState.READY:
            self._set(ConnectionState.CONNECTING, error or ConnectionLost("connection lost"))

    def _finish(self, error: Pi05WebsocketError | None) -> None:
        """Mark the present transport as over, once."""
        if self._ended is None or self._ended.done():
            return
        reason = error or ConnectionLost("connection lost")
        self._leave_ready(reason)
        self._fail_all(reason)  # whatever is left belongs to this transport
        if self._watch is not None:
            self._watch.rests()
            self._watch = None
        if self._keep_warm is not None:
            self._keep_warm.works()
            self._keep_warm = None
        self._ended.set_result(reason)
        self._stop_waiting_for_metadata()

    def _shut_down(self) -> None:
        error = ConnectionLost("closed by this side", code=1000)
        self._apply(self._protocol.give_up(error))
        self._set(ConnectionState.CLOSED, error)
        if self._transport is not None:
            self._transport.close()
        if self._main is not None:
            self._main.cancel()

    def _set(self, state: ConnectionState, error: Pi05WebsocketError | None) -> None:
        with self._changed:
            if self._state is ConnectionState.CLOSED:
                return
            self._state = state
            self._error = error
            self._changed.notify_all()

    def _located(self, error: Pi05WebsocketError) -> str:
        """Return the error's text with the address it is about, once."""
        text = str(error)
        return text if self.config.url in text else f"{self.config.url}: {text}"

    def _not_ready(self) -> Pi05WebsocketError:
        if self._error is not None:
            return self._error
        return ConnectFailed(f"{self.config.url}: not connected yet ({self._state.value})")
