# SPDX-License-Identifier: Apache-2.0
"""One direction of a link, packet by packet: packets in with their times, packets out with theirs. Pure.

Beside `links.Path`, which says it of whole messages over TCP: here a kernel's TCP is at both ends, and what a
message takes follows from what happens to its packets. The randomness comes in as a seed.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random

from pi05_websocket.bench.links import Link

__all__ = ["JITTER_MEAN_S", "DelayLine", "queue_bytes"]

JITTER_MEAN_S = 0.1
"""How long the queues on the way stay as they are, on average: cross traffic comes and goes in bursts. With a
draw for each packet a message of 740 of them would wait for the largest of 740 draws, since none overtakes."""

_OVERTAKEN_S = 0.002
"""How much later a packet comes that took another way: a dozen others overtake it at 50 Mbit/s."""

_QUEUE_S = 0.2
_LEAST_QUEUE_BYTES = 128 * 1024


def queue_bytes(link: Link) -> int:
    """Return what waits before the slowest hop at most: 200 ms at its rate, or a round trip if that is more.

    Access points and base stations hold that much and more (bufferbloat); what does not fit is dropped.
    """
    seconds = max(_QUEUE_S, link.rtt_ms / 1000)
    return max(_LEAST_QUEUE_BYTES, int(link.mbit * 1e6 / 8 * seconds))


class DelayLine:
    """Loses, queues, serialises and delays packets; none overtakes another, unless the link says so.

    Each packet is dropped if the queue is full, takes its bits at the link's rate, is lost with the link's
    probability, and is under way for half of the round trip and the jitter of the moment: gamma with half of
    the link's variance, drawn anew at random moments, `JITTER_MEAN_S` apart on average.

    Args:
        link: The network.
        seed: Of its randomness.
    """

    def __init__(self, link: Link, seed: int) -> None:
        self.dropped = 0
        """Packets that did not fit into the queue."""
        self.lost = 0
        """Packets that were lost at random, or because the cable was cut."""
        self.carried = 0
        """Packets that came out."""
        self.overtaken = 0
        """Packets that others overtook."""
        self.cut = False
        """Whether nothing is let in; what is under way still comes out."""
        self.doubled = 0
        """Packets that came out twice."""
        self._link = link
        self._random = random.Random(seed)
        self._way_s = link.rtt_ms / 2000
        self._byte_s = 8 / (link.mbit * 1e6)
        self._queue_s = queue_bytes(link) * self._byte_s
        self._deviation_s = link.jitter_ms / 1000 / math.sqrt(2)
        self._free_at = 0.0
        self._last = 0.0
        self._jitter_s = 0.0
        self._jitter_until = -math.inf
        self._numbers = itertools.count()
        self._under_way: list[tuple[float, int, bytes]] = []
        """A heap: when it is out, which it is, what it is."""

    def __repr__(self) -> str:
        return f"<DelayLine {self._link.name} under_way={len(self._under_way)} lost={self.lost}>"

    @property
    def next_at(self) -> float:
        """When the next packet comes out, seconds; infinity while none is under way."""
        return self._under_way[0][0] if self._under_way else math.inf

    def put(self, now: float, packet: bytes) -> None:
        """Take a packet that is sent at second `now`; never earlier than the one before."""
        if self.cut:
            self.lost += 1
            return
        if self._free_at - now > self._queue_s:
            self.dropped += 1
            return
        self._free_at = max(now, self._free_at) + len(packet) * self._byte_s
        if self._link.loss and self._random.random() < self._link.loss:
            self.lost += 1
            return
        there = self._free_at + self._way_s + self._jitter(self._free_at)
        if self._link.reorder and self._random.random() < self._link.reorder:
            self.overtaken += 1
            self._send(there + _OVERTAKEN_S, packet)
            return
        self._last = max(self._last, there)
        self._send(self._last, packet)
        if self._link.duplicate and self._random.random() < self._link.duplicate:
            self.doubled += 1
            self._send(self._last + _OVERTAKEN_S, packet)

    def take(self, now: float) -> list[bytes]:
        """Return the packets that are out by second `now`, in order."""
        out: list[bytes] = []
        while self._under_way and self._under_way[0][0] <= now:
            out.append(heapq.heappop(self._under_way)[2])
        self.carried += len(out)
        return out

    def _send(self, there: float, packet: bytes) -> None:
        heapq.heappush(self._under_way, (there, next(self._numbers), packet))

    def _jitter(self, now: float) -> float:
        if not self._deviation_s:
            return 0.0
        if now >= self._jitter_until:
            # Without memory, so it does not matter when anybody last looked.
            self._jitter_s = self._random.gammavariate(1.0, self._deviation_s)
            self._jitter_until = now + self._random.expovariate(1 / JITTER_MEAN_S)
        return self._jitter_s
