# SPDX-License-Identifier: Apache-2.0
"""`RemotePolicy`: a policy that runs elsewhere, with the interface of OpenPI's `WebsocketClientPolicy`.

In: observations in policy names. Out: the server's result, or an `Exchange` to look at later.
May be called from several threads; the waiting happens on the connection's own.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from pi05_websocket.client.config import ConnectionConfig, load_headers, openpi_url
from pi05_websocket.client.connection import Connection, ConnectionState, Greeting
from pi05_websocket.client.exchange import Exchange
from pi05_websocket.client.image_quality import ImageQuality, Sent
from pi05_websocket.client.sameness import Sameness
from pi05_websocket.client.speaking import Speaking
from pi05_websocket.client.transport import HEADROOM
from pi05_websocket.data import Observation, ServerMetadata
from pi05_websocket.errors import (
    ConfigError,
    ConnectFailed,
    DeadlineExceeded,
    IncompatibleServer,
    Pi05WebsocketError,
    PolicyChanged,
)
from pi05_websocket.wire import codec
from pi05_websocket.wire.dialects import OPENPI, Dialect
from pi05_websocket.wire.encoded_images import encode_images, reads_jpeg
from pi05_websocket.wire.fingerprint import fingerprint_of
from pi05_websocket.wire.messages import server_infer_ms
from pi05_websocket.wire.realtime import read_realtime_reply

__all__ = ["RemotePolicy"]

logger = logging.getLogger(__name__)

PROGRESS_EVERY_S = 2.0
"""A person who waits longer than this is told what for."""


@dataclass(frozen=True, slots=True)
class _Packed:
    """An observation, ready to be sent."""

    buffer: bytearray
    quality: int | None
    """Of its images as JPEG; None: raw, and readable for every server."""
    greeting: int
    """Number of the greeting it was made for."""
    fingerprint: str | None = None
    """What that one announced."""
    dialect: Dialect = OPENPI
    """That server's."""
    observation: Observation | None = None
    """What it was made from, where a message may have to go before it."""


class RemotePolicy:
    """A policy behind a WebSocket.

    Takes OpenPI's constructor arguments (`host`, `port`, `api_key`), so that
    `WebsocketClientPolicy(host, port)` becomes `RemotePolicy(host, port)` and nothing else changes; or one
    `ConnectionConfig`. It stays connected by itself: after a loss the next `infer` waits for the new link.

    Args:
        host: Host name, or a whole `ws://` or `wss://` URL with any path.
        port: Port; None when it is part of the URL or the scheme's own.
        api_key: Sent as `Authorization: Api-Key …`.
        config: Everything else; excludes the three above.
        wait_for_server: Seconds the constructor waits for the server to come up, as OpenPI's does without
            limit; 0 returns at once and connects in the background.
        alone: Whether this is the only server: then one that comes back with another fingerprint is not asked
            until a person wants that (`accept`). A pool decides it for all of its servers.

    Raises:
        ConfigError: Contradicting arguments.
        Pi05WebsocketError: No server within `wait_for_server`: the last reason.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int | None = None,
        api_key: str | None = None,
        *,
        config: ConnectionConfig | None = None,
        wait_for_server: float = 60.0,
        alone: bool = True,
    ) -> None:
        if config is None:
            config = ConnectionConfig(
                url=openpi_url(host, port), headers=load_headers(api_key=api_key)
            )
        elif (host, port, api_key) != ("127.0.0.1", None, None):
            raise ConfigError("config together with host, port or api_key: give one or the other")
        self.config = config
        self.connection = Connection(config)
        self._free_buffers: list[bytearray] = []
        self._speaking = Speaking()
        # Below: guarded by the lock; asked on the callers' threads, told on the loop's.
        self._lock = threading.Lock()
        self._images = ImageQuality(config.image_transport, config.jpeg_quality_floor)
        self._greeted = 0
        self._under_way = 0
        self._sameness = Sameness(1) if alone else None
        self._met = 0
        """Number of the greeting whose fingerprint is known."""
        if wait_for_server > 0:
            try:
                self._wait_for_server(wait_for_server)
            except BaseException:
                self.connection.close()
                raise

    def __repr__(self) -> str:
        return f"<RemotePolicy {self.connection!r}>"

    def __enter__(self) -> RemotePolicy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def metadata(self) -> ServerMetadata:
        """The server's metadata; `{}` before the first connection."""
        return self.connection.metadata or {}

    def get_server_metadata(self) -> ServerMetadata:
        """Return what the server said about itself; waits for the first connection (OpenPI's name)."""
        if self.connection.metadata is None:
            self.connection.wait_ready(self.patience)
        return self.metadata

    def infer(self, obs: Observation) -> dict[str, Any]:
        """Send one observation and wait for its result.

        After a lost connection it first waits for the new one. A reply that comes after the timeout is never
        taken for a later request's.

        Raises:
            EncodeError: The observation holds something the wire cannot carry.
            PolicyChanged: The server came back as another policy, and nobody has accepted it.
            PolicyError: The server's policy failed; its traceback is `.detail`.
            DeadlineExceeded: No reply within `request_timeout` (`first_request_timeout` before the first).
            TransportError: No connection.
            IncompatibleServer: The reply is not a map.
        """
        packed = self._encode(obs)
        while True:
            self.connection.wait_ready(self.patience)
            looked_at, changed = self._look()
            if changed is not None:
                raise changed
            if packed.greeting == looked_at:
                break
            self._free_buffers.append(packed.buffer)
            packed = self._encode(obs)  # for the server that is there now
        exchange = self._submit(packed)
        value = exchange.result(exchange.limit).value
        if not isinstance(value, dict):
            raise IncompatibleServer(
                f"expected a result map with 'actions', got {type(value).__name__}"
            )
        return value

    def submit(self, obs: Observation, *, greeting: int | None = None) -> Exchange:
        """Send one observation and return at once.

        Args:
            obs: The observation.
            greeting: Number of the greeting by which a pool has chosen this server; one that has come since
                gets nothing. None: this decides by itself whom it may ask.

        Raises:
            EncodeError: The observation holds something the wire cannot carry.
        """
        packed = self._encode(obs)
        # After the packing, and for the server it was made for: no other gets the message.
        _, changed = self._look()
        if changed is not None:
            self._free_buffers.append(packed.buffer)
            return self.connection.refuse(changed)
        return self._submit(packed if greeting is None else replace(packed, greeting=greeting))

    def unavailable(self) -> Pi05WebsocketError | None:
        """Return why no request can be sent now, or None. Returns at once."""
        if self.connection.state is ConnectionState.READY:
            return self._look()[1]
        return self.connection.error or ConnectFailed(f"{self.config.url}: not connected yet")

    def accept(self, told: PolicyChanged | None = None) -> bool:
        """Go on with the policy that is there, as a person wants; say whether it does.

        Args:
            told: What the person was told, by `unavailable`: a policy that has come since is not accepted.
                None: whichever is there.
        """
        changed = self._look()[1] if self.connection.state is ConnectionState.READY else None
        if changed is None or (told is not None and str(told) != str(changed)):
            return False
        with self._lock:
            assert self._sameness is not None
            self._sameness.follow_as(0, changed.got)
        logger.warning("a person accepts the policy that %s serves now", self.config.url)
        return True

    def reset(self) -> None:
        """Begin a new episode. What goes over the wire is the dialect's; in OpenPI's own, nothing."""
        self._speaking.new_episode()
        greeting = self.connection.greeting
        if greeting.dialect.reset_needs_prompt or self.unavailable() is not None:
            return  # with the episode's first request
        self._tell_reset(greeting.number, greeting.dialect, {})

    def close(self) -> None:
        """Disconnect and stop the thread. Safe to call twice."""
        self.connection.close()

    def _encode(self, obs: Observation) -> _Packed:
        """Pack an observation, on the caller's thread.

        JPEG too, although it takes a millisecond or two: the loop thread answers pings meanwhile, and the robot
        may write into its images again as soon as this returns.
        """
        greeting = self.connection.greeting
        quality, fingerprint = self._how(greeting)
        original, dialect = obs, greeting.dialect
        obs = self._speaking.message(dialect, greeting.metadata or {}, obs)
        if quality is not None:
            obs, count = encode_images(obs, quality)
            quality = quality if count else None
        try:
            buffer = self._free_buffers.pop()
        except IndexError:  # asked for, not looked for: several threads may share the policy
            buffer = bytearray()
        codec.encode_into(obs, buffer, HEADROOM)
        kept = None if dialect is OPENPI else original
        return _Packed(buffer, quality, greeting.number, fingerprint, dialect, kept)

    def _how(self, greeting: Greeting) -> tuple[int | None, str | None]:
        """Return at what quality to encode for who gave a greeting, and the fingerprint in it."""
        said = None
        with self._lock:
            self._meet(greeting)
            fingerprint = None if self._sameness is None else self._sameness.said(0)
            if greeting.number != self._greeted:
                self._greeted = greeting.number
                said = self._images.connected(
                    announced=reads_jpeg(greeting.metadata), connect_s=greeting.connect_s
                )
            quality = self._images.quality
        self._tell(said)
        return quality, fingerprint

    def _look(self) -> tuple[int, PolicyChanged | None]:
        """Return the number of the greeting that counts, and why the arm may not go on with who gave it."""
        greeting = self.connection.greeting
        if self._sameness is None:
            return greeting.number, None
        with self._lock:
            self._meet(greeting)
            if self._sameness.agrees(0):
                return greeting.number, None
            changed = PolicyChanged(
                self._sameness.why_not(0, [self.config.url]),
                expected=self._sameness.expected,
                got=self._sameness.said(0),
            )
        return greeting.number, changed

    def _meet(self, greeting: Greeting) -> None:
        """Note a new server's fingerprint, once: this is asked in every tick. The lock is held."""
        if self._sameness is not None and greeting.number > self._met:
            self._met = greeting.number
            self._sameness.came(0, fingerprint_of(greeting.metadata or {}))

    def _tell_reset(self, greeting: int, dialect: Dialect, observation: Observation) -> None:
        """Tell the server that an episode begins, once; its answer goes before all later ones."""
        message = self._speaking.reset(dialect, observation, greeting=greeting)
        if message is None:
            return
        buffer = bytearray()
        codec.encode_into(message, buffer, HEADROOM)
        exchange = self.connection.submit(buffer, greeting=greeting, reset=dialect.reset)

        def told() -> None:
            error = exchange.future.exception()
            if error is not None:
                logger.warning("%s: the new episode was not taken: %s", self.config.url, error)
                self._speaking.reset_failed()

        exchange.when_done(told)

    def _submit(self, packed: _Packed) -> Exchange:
        if packed.observation is not None:
            self._tell_reset(packed.greeting, packed.dialect, packed.observation)
        exchange = self.connection.submit(
            packed.buffer, quality=packed.quality, greeting=packed.greeting
        )
        with self._lock:
            alone = self._under_way == 0
            self._under_way += 1
        exchange.when_done(lambda: self._done(exchange, packed, alone))
        return exchange

    def _done(self, exchange: Exchange, packed: _Packed, alone: bool) -> None:
        """Take back the buffer, and learn from how long it took; on the loop thread."""
        # Reuse spares a megabyte of page faults for each observation (276 measured on a stock client).
        self._free_buffers.append(packed.buffer)
        said = None
        with self._lock:
            self._under_way -= 1
            if self._sameness is not None and exchange.future.exception() is None:
                # Of when it was asked: this may be told late, after another server has come.
                self._sameness.follow_as(0, packed.fingerprint)
            if alone and packed.greeting == self._greeted:
                said = self._learn(exchange)
        self._tell(said)

    def _learn(self, exchange: Exchange) -> str | None:
        error = exchange.future.exception()
        if isinstance(error, DeadlineExceeded):
            self._images.gave_up()
        if error is not None:
            return None
        reply = exchange.result(0)
        took = reply.received_at - exchange.sent_at
        elsewhere_ms = server_infer_ms(reply.value) or 0.0
        realtime = read_realtime_reply(reply.value)
        if realtime is not None:
            elsewhere_ms += realtime.queue_ms
        network_s = max(0.0, took - elsewhere_ms / 1000)
        return self._images.exchanged(
            Sent(quality=exchange.quality, nbytes=exchange.nbytes, network_s=network_s)
        )

    def _tell(self, said: str | None) -> None:
        if said is not None:
            in_vain = self.config.image_transport == "jpeg" and self._images.quality is None
            logger.log(
                logging.WARNING if in_vain else logging.INFO, "%s: %s", self.config.url, said
            )

    @property
    def patience(self) -> float:
        """Seconds after which a server that does not answer at all counts as absent."""
        config = self.config
        return config.connect_timeout + config.handshake_timeout + config.metadata_timeout

    def _wait_for_server(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            try:
                self.connection.wait_ready(min(PROGRESS_EVERY_S, left))
                return
            except Pi05WebsocketError as exc:
                if not exc.retryable or deadline - time.monotonic() <= 0:
                    raise
                logger.warning("waiting for the server at %s: %s", self.config.url, exc)
