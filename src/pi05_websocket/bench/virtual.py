# SPDX-License-Identifier: Apache-2.0
"""A policy behind a modelled network, on a clock that is set by hand.

In: observations. Out: exchanges that are done when the link's model says so. The policy computes at once in
real time and is charged a fixed time in the virtual one; it is told the virtual durations only, so a busy
machine changes nothing.
Raw images are charged what they weigh; as JPEG they are really encoded, charged the bytes that came of it, and
decoded for the policy, at the quality that the client's own rule takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pi05_websocket.bench.cells import COMPUTE_MS
from pi05_websocket.bench.links import Link, Path
from pi05_websocket.client.image_quality import ImageQuality, Sent
from pi05_websocket.clock import Clock
from pi05_websocket.data import Float32Array, Observation, ServerMetadata
from pi05_websocket.errors import DeadlineExceeded, Pi05WebsocketError
from pi05_websocket.wire import codec
from pi05_websocket.wire.encoded_images import decode_images, encode_images

__all__ = ["OBSERVATION_BYTES", "REPLY_BYTES", "Infer", "VirtualExchange", "VirtualPolicy"]

Infer = Callable[[Observation, float], Mapping[str, Any]]
"""An observation and the milliseconds it waited at the server, to what the policy answers."""

OBSERVATION_BYTES = 1_072_400
"""The mission's observation on the wire: 480x640 and 224x224 pixels, raw."""
REPLY_BYTES = 1400
"""50 rows of six float32 and the keys around them."""
_LIMIT_S = 5.0


class _Reply:
    """What a finished exchange holds."""

    def __init__(self, value: dict[str, Any], received_at: float) -> None:
        self.value = value
        self.nbytes = REPLY_BYTES
        self.received_at = received_at


class VirtualExchange:
    """A request under way in virtual time."""

    def __init__(
        self,
        clock: Clock,
        nbytes: int,
        result: Mapping[str, Any],
        arrives_at: float,
        *,
        quality: int | None = None,
        network_s: float = 0.0,
    ) -> None:
        self.limit = _LIMIT_S
        self.nbytes = nbytes
        self.quality = quality
        self.network_s = network_s
        self.sent_at = clock.now()
        self.arrives_at = arrives_at
        self.rows: Float32Array = np.asarray(result["actions"])
        self._result = result
        self._clock = clock

    def __repr__(self) -> str:
        return f"<VirtualExchange {self.sent_at:.3f} to {self.arrives_at:.3f}>"

    def done(self) -> bool:
        """Say whether it has arrived; a hair before counts, for rounding."""
        return self._clock.now() >= self.arrives_at - 1e-9

    def late(self) -> DeadlineExceeded:
        """Return the error that says it is late."""
        return DeadlineExceeded("request", self.limit)

    def age(self) -> float:
        """Return the virtual seconds since it was sent."""
        return self._clock.now() - self.sent_at

    def result(self, timeout: float | None = None) -> _Reply:
        """Return the reply. Virtual time does not pass while anybody waits here."""
        if not self.done():
            raise DeadlineExceeded("request", timeout or 0.0)
        infer = {"server_timing": {"infer_ms": COMPUTE_MS}}
        return _Reply({**self._result, **infer}, self.arrives_at)


class VirtualPolicy:
    """Answers after the link's time, in the order of the requests, as one WebSocket does.

    Args:
        policy: What computes.
        link: The network.
        seed: Of its randomness.
        nbytes: Size of a request with raw images on the wire.
        metadata: What the server says first.
        images: Decides about JPEG; None: raw images, always.
    """

    def __init__(
        self,
        policy: Infer,
        link: Link,
        clock: Clock,
        *,
        seed: int,
        nbytes: int = OBSERVATION_BYTES,
        metadata: ServerMetadata | None = None,
        images: ImageQuality | None = None,
    ) -> None:
        self.metadata: ServerMetadata = metadata or {}
        self.exchanges: list[VirtualExchange] = []
        self._policy = policy
        self._clock = clock
        self._up, self._down = Path(link, 2 * seed), Path(link, 2 * seed + 1)
        self._nbytes = nbytes
        self._idle_at = 0.0
        self._learned = 0
        """Exchanges that the rule about images has been told."""
        self._images = images or ImageQuality("raw")
        self._images.connected(announced=True, connect_s=link.rtt_ms / 1000)

    def submit(self, observation: Observation, /) -> VirtualExchange:
        """Send an observation."""
        self._learn()
        quality, nbytes = self._images.quality, self._nbytes
        if quality is not None:
            encoded, _ = encode_images(observation, quality)
            message = codec.encode(encoded)
            nbytes, observation = len(message), decode_images(codec.decode(message))
        now = self._clock.now()
        at_server = self._up.arrival(now, nbytes)
        begins = max(at_server, self._idle_at)
        self._idle_at = begins + COMPUTE_MS / 1000
        arrives = self._down.arrival(self._idle_at, REPLY_BYTES)
        result = self._policy(observation, (begins - at_server) * 1000)
        exchange = VirtualExchange(
            self._clock,
            nbytes,
            result,
            arrives,
            quality=quality,
            network_s=at_server - now + arrives - self._idle_at,
        )
        self.exchanges.append(exchange)
        return exchange

    def _learn(self) -> None:
        """Tell the rule about images what has been answered since."""
        while self._learned < len(self.exchanges) and self.exchanges[self._learned].done():
            done = self.exchanges[self._learned]
            self._learned += 1
            self._images.exchanged(
                Sent(quality=done.quality, nbytes=done.nbytes, network_s=done.network_s)
            )

    def unavailable(self) -> Pi05WebsocketError | None:
        """Return nothing: the link is slow, not away."""
        return None
