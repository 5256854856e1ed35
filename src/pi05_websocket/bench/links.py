# SPDX-License-Identifier: Apache-2.0
"""Networks as numbers, and how long a message takes over one. Pure; the randomness comes in.

A message of n bytes over TCP is modelled as

    way (half the round trip, and jitter) + sending (n * 8 / rate, or pacing if that is more) + what losses cost

Losses: each of the n / 1448 segments is lost with probability `loss`. A connection with selective
acknowledgements (RFC 2018, RFC 6675) resends what is missing one round trip later, as often as it is lost
again. Where the last segment is lost, nothing behind it tells the sender: then a tail loss probe after two
round trips, at least 10 ms (RFC 8985), or, if that is lost too, the retransmission timer of at least 200 ms
(Linux). Messages stay in order: one that stalls holds up those behind it.

Pacing: BBR sends at the rate that it has seen arrive, and of a connection that asks and waits it sees a message
and then a pause. So a message is spread over half a round trip, however few its bytes are; where segments were
lost, over a whole one and the jitter of further ones. Both shares are measured, with `bench real`, on Linux
6.18's BBR over TUN, 30 to 400 ms, 0 to 1 % loss, 40 kB to 1 MB: medians are within 15 %. Messages that fit into
the initial window of ten segments (RFC 6928) are sent at once.

Not modelled: the first message of a connection, which takes six round trips more for a raw observation, and
twice that under loss; a robot's connection outlives its episodes. Nor a congestion window that shrinks with
every loss: CUBIC and Reno carry about 1.22 * 1448 B / (RTT * sqrt(loss)) (Mathis et al. 1997), 0.7 Mbit/s at
200 ms and 1 %, ten seconds for one raw observation. Over such a link images are to be compressed, or the kernel
set to BBR, which does not take random loss for congestion.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from pi05_websocket.errors import ConfigError

__all__ = ["LINKS", "Link", "Path", "make_link"]

_SEGMENT_BYTES = 1448
_MIN_RTO_S = 0.2
_MIN_PROBE_S = 0.01
_INITIAL_WINDOW = 10
_REMEMBERED = 100
"""Segments whose loss BBR still feels, at least: it keeps ten round trips in mind."""
_SPREAD, _SPREAD_BY_LOSS = 0.55, 0.5
"""Round trips over which a message is spread, and how many more after a loss. At 200 ms without jitter the
medians of 50 observations fit 0.55, at 100 as at 1000 Mbit/s, and 1.05 with 1 % loss."""
_JITTERS = 4.5
"""Whose jitter adds to that, in draws: fitted to 50 observations each at 100, 200 and 400 ms with jitter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network between robot and server."""

    name: str
    """What tables call it."""

    rtt_ms: float
    """Round trip of an empty message."""

    jitter_ms: float = 0.0
    """Standard deviation of the round trip; it only ever adds."""

    loss: float = 0.0
    """Share of segments that are lost, 0 to 1."""

    mbit: float = 1000.0
    """Megabits per second from the robot to the server; the way back has at least as much."""

    reorder: float = 0.0
    """Share of packets that others overtake; the model of whole messages knows nothing of it."""

    duplicate: float = 0.0
    """Share of packets that arrive twice; likewise."""

    def __post_init__(self) -> None:
        if not 0 <= self.reorder < 1 or not 0 <= self.duplicate < 1:
            raise ConfigError(
                f"link {self.name}: reorder={self.reorder} duplicate={self.duplicate}: expected shares below 1"
            )
        if self.rtt_ms < 0 or self.jitter_ms < 0 or not 0 <= self.loss < 0.5 or not self.mbit > 0:
            raise ConfigError(
                f"link {self.name}: rtt_ms={self.rtt_ms} jitter_ms={self.jitter_ms} loss={self.loss} "
                f"mbit={self.mbit}: expected times of 0 or more, a loss below 0.5 and a rate above 0"
            )


LINKS = {
    link.name: link
    for link in (
        # One machine: what the loopback interface and two wake-ups cost.
        Link(name="local", rtt_ms=0.1, mbit=10_000),
        # A gigabit switch.
        Link(name="lan", rtt_ms=1.0, jitter_ms=0.2),
        # Wi-Fi 5 in an office: air time is shared, frames are resent on the air before TCP notices.
        Link(name="wifi", rtt_ms=8.0, jitter_ms=6.0, loss=0.002, mbit=100),
        # Uplinks of 80 and 19 Mbit/s as in VLA-Perf (arXiv 2602.18397).
        Link(name="5g", rtt_ms=30.0, jitter_ms=10.0, loss=0.005, mbit=80),
        Link(name="4g", rtt_ms=60.0, jitter_ms=20.0, loss=0.01, mbit=19),
        # Another continent, over a fibre: what the aim of the benchmark is stated for.
        Link(name="wan", rtt_ms=200.0, jitter_ms=50.0, loss=0.01, mbit=100),
        Link(name="far", rtt_ms=400.0, jitter_ms=50.0, loss=0.01, mbit=100),
    )
}


def make_link(
    name: str,
    *,
    rtt_ms: float | None = None,
    jitter_ms: float | None = None,
    loss: float | None = None,
    mbit: float | None = None,
) -> Link:
    """Return a link by name, with changes; a changed one is called after its round trip.

    Raises:
        ConfigError: If there is no such link, or a number makes none.
    """
    link = LINKS.get(name)
    if link is None:
        raise ConfigError(f"unknown link {name!r}: expected one of {', '.join(LINKS)}")
    if rtt_ms is jitter_ms is loss is mbit is None:
        return link
    rtt = link.rtt_ms if rtt_ms is None else rtt_ms
    return Link(
        name=f"{rtt:g}ms",
        rtt_ms=rtt,
        jitter_ms=link.jitter_ms if jitter_ms is None else jitter_ms,
        loss=link.loss if loss is None else loss,
        mbit=link.mbit if mbit is None else mbit,
    )


class Path:
    """One direction of one connection: says when a message that is sent now is there."""

    def __init__(self, link: Link, seed: int) -> None:
        self._link = link
        self._random = random.Random(seed)
        self._free_at = 0.0
        self._last_arrival = 0.0

    def __repr__(self) -> str:
        return f"<Path {self._link.name}>"

    def arrival(self, now: float, nbytes: int) -> float:
        """Return the second at which a message of `nbytes` that is sent at `now` is there as a whole."""
        link = self._link
        sending = max(nbytes * 8 / (link.mbit * 1e6), self._pacing(nbytes))
        sent = max(now, self._free_at) + sending
        self._free_at = sent
        there = sent + link.rtt_ms / 2000 + self._jitter() + self._stall(nbytes)
        self._last_arrival = max(self._last_arrival, there)
        return self._last_arrival

    def _jitter(self, draws: float = 1.0) -> float:
        """Return what queues on the way add: gamma with the link's deviation, half of the variance each way."""
        deviation = self._link.jitter_ms / 1000 / math.sqrt(2)
        return self._random.gammavariate(draws, deviation) if deviation else 0.0

    def _pacing(self, nbytes: int) -> float:
        """Return over how long the kernel spreads a message, whatever the link's rate."""
        segments, rtt = math.ceil(nbytes / _SEGMENT_BYTES), self._link.rtt_ms / 1000
        if segments <= _INITIAL_WINDOW:
            return 0.0
        spread = _SPREAD * rtt
        felt = 1 - (1 - self._link.loss) ** max(segments, _REMEMBERED)
        if self._random.random() < felt:
            spread += _SPREAD_BY_LOSS * rtt + self._jitter(_JITTERS)
        return spread

    def _stall(self, nbytes: int) -> float:
        link, rtt = self._link, self._link.rtt_ms / 1000
        segments = max(1, math.ceil(nbytes / _SEGMENT_BYTES))
        lost = self._losses(segments)
        if not lost:
            return 0.0
        # The last segment is among the lost ones with this share.
        if self._random.random() < lost / segments:
            probed = self._random.random() >= link.loss
            stall = max(2 * rtt, _MIN_PROBE_S) if probed else max(_MIN_RTO_S, 2 * rtt)
        else:
            stall = rtt
        while lost := self._losses(lost):
            stall += rtt
        return stall

    def _losses(self, segments: int) -> int:
        """Return how many of so many segments are lost."""
        if not self._link.loss:
            return 0
        return sum(self._random.random() < self._link.loss for _ in range(segments))
